"""Whom a client certificate names."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.access import NOBODY, certificate_names


def der(cert: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.cert_chain_pems[0].bytes().decode())


CA = trustme.CA()


def test_subject_and_alternative_names_are_told_with_their_kind() -> None:
    cert = CA.issue_cert(
        "Web.Internal", "ops@acme.example", common_name="web", organization_name="Acme", organization_unit_name="Apps"
    )
    assert certificate_names(der(cert)) == {
        "subject:CN=web,OU=Apps,O=Acme",
        "dns:web.internal",
        "email:ops@acme.example",
    }


def test_a_comma_in_a_name_is_escaped_and_makes_no_second_part() -> None:
    cert = CA.issue_cert("a.internal", common_name="web,O=Acme", organization_name="Other", organization_unit_name="x")
    assert "subject:CN=web\\,O\\=Acme,OU=x,O=Other" in certificate_names(der(cert)) or (
        "subject:CN=web\\,O=Acme,OU=x,O=Other" in certificate_names(der(cert))
    )


@pytest.mark.parametrize("data", [None, b"", b"\x30\x03\x02\x01\x05", b"CANARY"], ids=["none", "empty", "DER", "text"])
def test_what_is_no_certificate_names_nobody(data: bytes | None) -> None:
    assert certificate_names(data) == NOBODY


def test_a_certificate_without_alternative_names_is_known_by_its_subject() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    assert certificate_names(cert.public_bytes(serialization.Encoding.DER)) == {"subject:CN=web"}
