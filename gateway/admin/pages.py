"""What the admin port answers, as plain values: no sockets, no HTTP library.

`/healthz` says that the process lives; `/readyz` says whether a load balancer may send it requests. Ready means: every
credential was tried once, and the gateway is not going down. A vendor that is down does *not* make the gateway
unready: its routes answer 503 by themselves, the other vendors' routes work, and every replica would look alike, so
taking replicas out would turn one vendor's outage into everybody's. How each credential stands is in the body.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from gateway.observe import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import CredentialStatus

State = str
"""`starting`, `ready` or `draining`."""


def ready(state: State, credentials: Sequence[CredentialStatus]) -> bool:
    """Tell whether requests may come. A credential that is fetched only on demand (`idle`) keeps nobody waiting."""
    return state == "ready" and all(status.tried or status.state == "idle" for status in credentials)


def shown_state(state: State, credentials: Sequence[CredentialStatus]) -> State:
    """Return the state as the outside sees it: `starting` until every credential was tried."""
    return "starting" if state == "ready" and not ready(state, credentials) else state


def credential(status: CredentialStatus) -> dict[str, Any]:
    """Return one credential for people: no secret, seconds rounded, no number that JSON does not have.

    The reason of a failure is written without secrets; it still goes through redaction, as everything that is shown.
    """
    # Field by field: the names are ours, and stay what they are even if somebody's secret is the word "secret".
    return {name: _plain(redact(value)) for name, value in dataclasses.asdict(status).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
