"""Client assertions: `private_key_jwt` (RFC 7523 §2.2), signed afresh for every attempt.

Knows PyJWT and nothing of HTTP. A `jti` is never used twice: an endpoint that remembers them would refuse a retry.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused
from gateway.model import Secret

if TYPE_CHECKING:
    from gateway.model import Assertion


def sign(assertion: Assertion, wall: float) -> Secret:
    """Return a signed client assertion that is valid from `wall` (seconds since the epoch).

    Raises:
        CredentialRefused: the key cannot be read or does not fit the algorithm; permanent until it is changed.
    """
    import jwt  # noqa: PLC0415 - a fifth of a second of start-up that few credentials need

    issued = int(wall)
    claims = {
        "iss": assertion.issuer,
        "sub": assertion.subject or assertion.issuer,
        "aud": assertion.audience,
        "iat": issued,
        "exp": issued + max(1, int(assertion.lifetime)),
        "jti": uuid.uuid4().hex,
    }
    headers = {"kid": assertion.key_id} if assertion.key_id else None
    try:
        return Secret(jwt.encode(claims, assertion.key.reveal(), algorithm=assertion.algorithm, headers=headers))
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        # The library's own words may quote the key: only the kind of error is told.
        reason = f"the private key cannot sign with {assertion.algorithm} ({type(error).__name__})"
        raise CredentialRefused(reason=reason) from None
