"""httpx-auth's client credentials authentication for httpx."""

import json
import os
import time

import httpx
from httpx_auth import OAuth2ClientCredentials

auth = OAuth2ClientCredentials(
    os.environ["TOKEN_URL"], client_id="any", client_secret=os.environ["KEY"], early_expiry=0.01
)
with httpx.Client(auth=auth, base_url=os.environ["BASE"] + "/") as client:
    for _ in range(2):
        made = client.post("signature/documents", json={"title": "Contract", "externalId": "1"}).json()
        read = client.get("signature/documents/" + made["documentId"]).json()
        print(json.dumps({"read": read["documentId"] == made["documentId"]}))
        time.sleep(float(os.environ.get("PAUSE", "0")))
