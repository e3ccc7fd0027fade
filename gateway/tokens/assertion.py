"""Client assertions for `private_key_jwt` (RFC 7523 §2.2), signed anew for every attempt.

Each assertion has its own `jti`, because an endpoint that remembers them would reject a retry.
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
    import jwt  # noqa: PLC0415 - importing it takes a fifth of a second, and few credentials need it

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
        # The library's message may quote the key, so only the type of the error is shown.
        reason = f"the private key cannot sign with {assertion.algorithm} ({type(error).__name__})"
        raise CredentialRefused(reason=reason) from None
