"""requests-oauthlib, for the client credentials grant. It insists on https and raises when its token has expired."""

import json
import os
import time

from oauthlib.oauth2 import BackendApplicationClient, TokenExpiredError
from requests_oauthlib import OAuth2Session

session = OAuth2Session(client=BackendApplicationClient("any"))


def fetch() -> None:
    """Get a token."""
    session.fetch_token(os.environ["TOKEN_URL"], client_id="any", client_secret=os.environ["KEY"])


fetch()
for _ in range(2):
    try:
        made = session.post(os.environ["BASE"] + "/signature/documents", json={"title": "Contract", "externalId": "1"})
    except TokenExpiredError:
        fetch()
        made = session.post(os.environ["BASE"] + "/signature/documents", json={"title": "Contract", "externalId": "1"})
    read = session.get(os.environ["BASE"] + "/signature/documents/" + made.json()["documentId"])
    print(json.dumps({"read": read.json()["documentId"] == made.json()["documentId"]}))
    time.sleep(float(os.environ.get("PAUSE", "0")))
