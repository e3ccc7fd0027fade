"""Every TLS context of Gatepass: the data port's, and those of all connections that Gatepass opens.

TLS 1.2 is the oldest version on either side (RFC 9325 §3.1.1). The data port takes of it only cipher suites with
forward secrecy and authenticated encryption (RFC 9325 §4.2). HTTP/1.1 is the only protocol offered (ALPN, RFC 7301).

A private key with a passphrase fails at once: without a callback OpenSSL would ask for the passphrase on the terminal
and block the process.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self

from gateway.descriptors import open_one

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.model import ClientCertificate, Egress, ServerTLS, Upstream

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


def certificate_expiry(path: Path) -> float:
    """Return when the first certificate of a PEM file expires, in seconds since the epoch.

    Raises OSError for a file that cannot be read and ValueError for one without a certificate.
    """
    from cryptography import x509  # noqa: PLC0415 - slow to import, and needed only with TLS

    return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()


def client_context(ca_file: Path | None = None, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """Return a context that verifies the peer's certificate and host name.

    Reading the system's authorities takes some 40 ms of CPU: call it on a thread. Raises OSError (ssl.SSLError is one)
    for files that cannot be used.

    Args:
        ca_file: PEM file of the authorities to trust instead of the system's.
        certificate: the client certificate to show (RFC 8705).
    """
    context = ssl.create_default_context(cafile=ca_file)
    if not context.cert_store_stats()["x509"]:
        # Authorities that cannot be read are left out without an error, and the context is kept: with no descriptor
        # left it would trust nobody for as long as the process runs.
        open_one()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        load_pair(context, certificate.certificate, certificate.key)
    return context


def proxy_context(egress: Egress) -> ssl.SSLContext | None:
    """Return the context for an https proxy; None for an http one. As `client_context`."""
    return client_context(egress.ca_file) if egress.scheme == "https" else None


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
    """Contexts of upstreams and their proxies, one per set of files, because building one takes some 40 ms."""

    def __init__(self) -> None:
        self._contexts: dict[object, ssl.SSLContext] = {}

    @staticmethod
    def _certificate(peer: Upstream | Egress) -> ClientCertificate | None:
        return getattr(peer, "client_certificate", None)  # a proxy is shown none

    def _key(self, peer: Upstream | Egress) -> object:
        return (peer.ca_file, peer.ca_fingerprint, self._certificate(peer))

    def get(self, peer: Upstream | Egress | None) -> ssl.SSLContext | None:
        """Return the context for a peer; None for plain http. Raises OSError for files that cannot be used."""
        if peer is None or peer.scheme == "http":
            return None
        key = self._key(peer)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = client_context(peer.ca_file, self._certificate(peer))
        return context

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget the contexts of all other upstreams and proxies."""
        peers = [peer for upstream in upstreams for peer in (upstream, upstream.egress) if peer is not None]
        keys = {self._key(peer) for peer in peers}
        self._contexts = {key: context for key, context in self._contexts.items() if key in keys}


class ProxiedContext(ssl.SSLContext):
    """For TLS through an https proxy: one context verifies the proxy, another one the server behind it.

    Libraries take a single context for both handshakes. Each handshake names the host that it is with; if the server
    has the proxy's own name, the proxy's context verifies it.
    """

    _server: ssl.SSLContext
    _proxy: ssl.SSLContext
    _proxy_name: str

    def __new__(cls, server: ssl.SSLContext, proxy: ssl.SSLContext, proxy_name: str) -> Self:
        """Combine the contexts of a server and of the proxy, whose host is `proxy_name`."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._server, self._proxy, self._proxy_name = server, proxy, proxy_name
        return self

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a handshake with the context of the host that it is with."""
        context = self._proxy if server_hostname == self._proxy_name else self._server
        return context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
