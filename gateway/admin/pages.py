"""Liveness, readiness and credentials as plain values: no sockets, no HTTP library.

`/healthz` says that the process runs; `/readyz` says whether a load balancer may send it requests. Ready means that
every credential was tried once and that the gateway is not draining. A vendor that is down does *not* make the gateway
unready: only its routes answer 503, and all replicas are affected alike, so removing replicas would turn one vendor's
outage into an outage of all vendors. The body shows the status of each credential.
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
    """Return whether requests may be sent here. A credential that is fetched on demand (`idle`) does not delay this."""
    return state == "ready" and all(status.tried or status.state == "idle" for status in credentials)


def shown_state(state: State, credentials: Sequence[CredentialStatus]) -> State:
    """Return the state to show: `starting` until every credential was tried."""
    return "starting" if state == "ready" and not ready(state, credentials) else state


def credential(status: CredentialStatus) -> dict[str, Any]:
    """Return one credential in JSON types: no secret, seconds rounded, no infinity.

    The reason of a failure is written without secrets, and is redacted like everything that is shown.
    """
    # Field by field, so that names of fields are never masked, even if somebody's secret is such a word.
    return {name: _plain(redact(value)) for name, value in dataclasses.asdict(status).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
