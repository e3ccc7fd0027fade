"""Every TLS context of Gatepass: the data port's, and those of all connections that Gatepass opens.

TLS 1.2 is the oldest version on either side (RFC 9325 §3.1.1). The data port takes of it only cipher suites with
forward secrecy and authenticated encryption (RFC 9325 §4.2). HTTP/1.1 is the only protocol offered (ALPN, RFC 7301).

A private key with a passphrase fails at once: without a callback OpenSSL would ask for the passphrase on the terminal
and block the process.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.model import ClientCertificate, ServerTLS, Upstream

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Cipher suites of TLS 1.2 on the data port; all of TLS 1.3's are good and cannot be chosen here."""


def server_context(tls: ServerTLS) -> ssl.SSLContext:
    """Return the context of a data port. Raises OSError (ssl.SSLError is one) for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, tls.certificate, tls.key)
    if tls.client_ca is not None:
        load_authorities(context, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca_file: Path | None = None, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """Return a context that verifies the peer's certificate and host name.

    Reading the system's authorities takes some 40 ms of CPU: call it on a thread. Raises OSError (ssl.SSLError is one)
    for files that cannot be used.

    Args:
        ca_file: PEM file of the authorities to trust instead of the system's.
        certificate: the client certificate to show (RFC 8705).
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        load_pair(context, certificate.certificate, certificate.key)
    return context


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load a certificate chain and its private key, PEM files. Raises OSError, ValueError if they cannot be used."""
    context.load_cert_chain(certificate, key, password=str)


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Load certificate authorities, a PEM file. Raises OSError, ValueError if it cannot be used."""
    context.load_verify_locations(file)


def check_pair(certificate: Path, key: Path) -> None:
    """Raise OSError or ValueError unless these PEM files are a certificate and its private key."""
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)


def check_authorities(file: Path) -> None:
    """Raise OSError or ValueError unless this PEM file holds certificate authorities."""
    load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), file)


class UpstreamContexts:
    """Contexts of upstreams, one per set of files: building one reads every authority of the system."""

    def __init__(self) -> None:
        self._contexts: dict[object, ssl.SSLContext] = {}

    @staticmethod
    def _key(upstream: Upstream) -> object:
        return (upstream.ca_file, upstream.ca_fingerprint, upstream.client_certificate)

    def get(self, upstream: Upstream) -> ssl.SSLContext | None:
        """Return the context for an upstream; None for plain http. Raises OSError for files that cannot be used."""
        if upstream.scheme == "http":
            return None
        key = self._key(upstream)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = client_context(upstream.ca_file, upstream.client_certificate)
        return context

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget the contexts of all other upstreams."""
        keys = {self._key(upstream) for upstream in upstreams}
        self._contexts = {key: context for key, context in self._contexts.items() if key in keys}
