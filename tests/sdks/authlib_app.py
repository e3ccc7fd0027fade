"""Authlib's OAuth 2.0 session on requests."""

import json
import os
import time

from authlib.integrations.requests_client import OAuth2Session

session = OAuth2Session(
    "any",
    os.environ["KEY"],
    scope="document_read document_write",
    token_endpoint=os.environ["TOKEN_URL"],
    grant_type="client_credentials",
    leeway=0,
)
session.fetch_token()
for _ in range(2):
    made = session.post(os.environ["BASE"] + "/signature/documents", json={"title": "Contract", "externalId": "1"})
    read = session.get(os.environ["BASE"] + "/signature/documents/" + made.json()["documentId"])
    print(json.dumps({"read": read.json()["documentId"] == made.json()["documentId"]}))
    time.sleep(float(os.environ.get("PAUSE", "0")))
