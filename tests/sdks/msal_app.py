"""MSAL's OAuth 2.0 client, `msal.oauth2cli`, over TLS."""

import json
import os
import time

import requests
from msal.oauth2cli.oauth2 import Client

http = requests.Session()
client = Client({"token_endpoint": os.environ["TOKEN_URL"]}, "any", http_client=http, client_secret=os.environ["KEY"])
for _ in range(2):
    token = client.obtain_token_for_client(scope="document_read document_write")
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    made = http.post(
        os.environ["BASE"] + "/signature/documents", json={"title": "Contract", "externalId": "1"}, headers=headers
    )
    read = http.get(os.environ["BASE"] + "/signature/documents/" + made.json()["documentId"], headers=headers)
    print(json.dumps({"read": read.json()["documentId"] == made.json()["documentId"]}))
    time.sleep(float(os.environ.get("PAUSE", "0")))
