"""`idfy-sdk`, IDfy's own SDK for Python."""

import json
import os
import sys
import time

from idfy_sdk import IdfyConfiguration, SignatureService

IdfyConfiguration.BaseUrl = os.environ["BASE"]
IdfyConfiguration.OAuthBaseUrl = os.environ["BASE"]
IdfyConfiguration.set_client_credentials("any", os.environ["KEY"], ["document_read", "document_write"])
service = SignatureService()


def round_trip() -> None:
    """Create a document, read it back."""
    made = service.create_document({"title": "Contract", "externalId": "1"})
    read = service.get_document(made.document_id)
    print(json.dumps({"read": read.document_id == made.document_id}))


round_trip()
time.sleep(float(os.environ.get("PAUSE", "0")))
round_trip()
sys.exit(0)
