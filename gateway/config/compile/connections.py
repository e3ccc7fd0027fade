"""How a server is reached and known: the company's proxy, certificates, and the hashes of their files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway import model
from gateway.config.keys.egress import DEFAULT_PORTS, DIRECT
from gateway.config.keys.files import MAX_BYTES
from gateway.config.read.files import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.keys.egress import EgressSection
    from gateway.config.keys.grant import ClientCertificateSection
    from gateway.config.keys.tls import TlsSection


def egress(keys: EgressSection | None, general: model.Egress | None = None) -> model.Egress | None:
    """Return the proxy of a section; without a section the general one, and None where the way is direct."""
    if keys is None or keys.proxy == DIRECT:
        return general if keys is None else None
    parts = urlsplit(keys.proxy)
    username = keys.username or ""
    return model.Egress(
        scheme="https" if parts.scheme == "https" else "http",
        host=parts.hostname or "",
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        username=username.reveal() if isinstance(username, model.Secret) else username,
        password=keys.password,
        no_proxy=keys.no_proxy,
        ca_file=keys.ca_file,
        ca_fingerprint=fingerprint(keys.ca_file) if keys.ca_file else "",
    )


def certificate(keys: ClientCertificateSection) -> model.ClientCertificate:
    """Return a client certificate with the hash of its file, so that a renewed one is a different value."""
    fingerprint = hashlib.sha256(read_bytes(keys.certificate, MAX_BYTES)).hexdigest()
    return model.ClientCertificate(keys.certificate, keys.key, fingerprint)


def server_tls(keys: TlsSection) -> model.ServerTLS:
    """Return the TLS of a port with a hash of its files, so that a renewed certificate is a different value."""
    files = [path for path in (keys.certificate, keys.key, keys.client_ca) if path is not None]
    return model.ServerTLS(keys.certificate, keys.key, keys.client_ca, fingerprint(*files))


def fingerprint(*files: Path) -> str:
    """Return the SHA-256 over the contents of files, in hex."""
    return hashlib.sha256(b"".join(hashlib.sha256(read_bytes(path, MAX_BYTES)).digest() for path in files)).hexdigest()
