"""The names in a client certificate: its subject (RFC 4514) and its subject alternative names. Pure.

The TLS handshake has verified the certificate with the listener's `client_ca`.
"""

from __future__ import annotations

NOBODY: frozenset[str] = frozenset()
"""The names of a connection without a certificate."""
KINDS = ("subject", "dns", "uri", "email")


def certificate_names(der: bytes | None) -> frozenset[str]:
    """Return the names in a certificate, each with its kind: `subject:CN=web,O=Acme`, `dns:web.internal`, `uri:…`.

    `der` is the result of `SSLObject.getpeercert(binary_form=True)`; None or an unreadable certificate has no names.
    Host names are converted to lower case; nothing else is changed.
    """
    if not der:
        return NOBODY
    from cryptography import x509  # noqa: PLC0415 - only used with client certificates

    try:
        certificate = x509.load_der_x509_certificate(der)
        names = {f"subject:{certificate.subject.rfc4514_string()}"}
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names |= {f"dns:{name.lower()}" for name in alternatives.get_values_for_type(x509.DNSName)}
        names |= {f"uri:{name}" for name in alternatives.get_values_for_type(x509.UniformResourceIdentifier)}
        names |= {f"email:{name}" for name in alternatives.get_values_for_type(x509.RFC822Name)}
    except x509.ExtensionNotFound:
        return frozenset(names)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return NOBODY
    return frozenset(names)
