"""TLS on the data port: one context per set of files, what it agrees on and what it refuses.

TLS 1.3, or 1.2 with forward secrecy and authenticated encryption only (RFC 9325 §4.2); HTTP/1.1 is all that is spoken.
The files were tried when the configuration was read; a renewed certificate makes a new context for new connections.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import ServerTLS

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all good and not ours to choose."""


def server_context(tls: ServerTLS) -> ssl.SSLContext:
    """Return the context of a data port. Raises OSError (ssl.SSLError) when the files changed for the worse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.certificate, tls.key, password=str)
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
