"""Act 5: an SDK that fetches its own token, as vendors' SDKs and OAuth libraries do."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from gateway.sandbox.demo.app import OK

if TYPE_CHECKING:
    from gateway.sandbox.demo.report import Row
    from gateway.sandbox.demo.stage import Stage

ROUTE, TOKEN_PATH, CALL = "idfy", "/oauth/connect/token", "/signature/documents/summary?limit=2"


async def sdk(stage: Stage) -> None:
    """A token request at the vendor's own path, then a call with the token from its answer."""
    stage.report.act(
        5,
        "An SDK that fetches its own token",
        f"It posts its client credentials to http://{stage.gateway.listen}/{ROUTE}{TOKEN_PATH}; the gateway answers.",
    )
    vendor = stage.sandbox.vendors[ROUTE]
    secret = base64.b64encode(b"any-client-id:the-apps-gateway-key").decode()
    fetched = await stage.app.call(
        ROUTE,
        "POST",
        TOKEN_PATH,
        headers={"Authorization": f"Basic {secret}"},
        data={"grant_type": "client_credentials", "scope": "document_read"},
    )
    answer = fetched.body if isinstance(fetched.body, dict) else {}
    token, life = str(answer.get("access_token", "")), answer.get("expires_in")
    called = await stage.app.call(ROUTE, "GET", CALL, headers={"Authorization": f"Bearer {token}"})
    rows: list[Row] = [
        (ROUTE, f"POST {TOKEN_PATH}", str(fetched.status), f"{fetched.ms:.1f}", f"a pass for {life} s"),
        (ROUTE, f"GET {CALL}", str(called.status), f"{called.ms:.1f}", f"the vendor saw the token {called.token}"),
    ]
    stage.report.table(("route", "request", "status", "ms", "answer"), rows)
    known = {issued.value.reveal() for issued in vendor.ledger.all()}
    stage.report.claim(
        "An SDK that fetches its own token gets a pass in its vendor's format, never the vendor's token",
        f"status {fetched.status}, {life} s",
        held=fetched.status == OK and isinstance(life, int) and bool(token) and token not in known,
    )
    stage.report.claim(
        "The call with that pass carries the vendor's real token",
        f"status {called.status}, the vendor saw {called.token}",
        held=called.status == OK and stage.own_token(called),
    )
