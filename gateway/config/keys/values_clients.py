"""What the values of clients and issuers must look like: rules, networks, instants, claims. As `values.py`."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.config.keys import net
from gateway.config.keys.values import opened, plain_text, readable_file, refuse, texts

if TYPE_CHECKING:
    from pathlib import Path

RULE = re.compile(r"(?:(?:\*|[A-Z][A-Z-]*(?:,[A-Z][A-Z-]*)*) +)?(?P<pattern>/\S*)")
TEMPLATE = re.compile(r"(?:/(?:\{[A-Za-z][A-Za-z0-9_]*\}|[A-Za-z0-9._~:@!$&'()+,;=%-]+))+/?")
CERTIFICATE_KINDS = ("subject:", "dns:", "uri:", "email:")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones: a secret shared with an issuer would let its other audiences sign for us (RFC 8725 §3.1)."""


def rule(value: object) -> str:
    """A client's rule: methods and a path pattern."""
    text = plain_text(value)
    found = RULE.fullmatch(text)
    if found is None or not net.PATTERN.fullmatch(found["pattern"]):
        refuse("must be a rule as `POST /orders/v1/*`, `GET,HEAD /ledger/**` or `/ledger/**`")
    return text


def template(value: object) -> str:
    """A path template."""
    text = plain_text(value)
    return text if TEMPLATE.fullmatch(text) else refuse("must be a path template, as /api/v1/info/{id}")


def network(value: object) -> str:
    """A network in CIDR notation; a single address is a network of one."""
    try:
        return str(ipaddress.ip_network(plain_text(value)))
    except ValueError:
        return refuse("must be a network as 10.1.0.0/16 or fd00::/8, its host bits zero")


def instant(value: object) -> float:
    """Seconds since the epoch, from an ISO 8601 date or time; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(plain_text(value))
    except ValueError:
        return refuse("must be a date or a time, as 2027-01-31 or 2027-01-31T18:00:00Z")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def rate(value: object) -> float:
    """Requests per second; a fraction is fine."""
    value = opened(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        refuse("must be a number of requests per second, more than zero")
    return float(value)


def claims(value: object) -> tuple[tuple[str, str], ...]:
    """Claims and the values that they must have."""
    if not isinstance(value, dict) or not value:
        refuse("must be a mapping with at least one claim: {azp: onboarding-web}")
    return tuple((name, plain_text(str(each) if type(each) is int else each)) for name, each in value.items())


def certificate_name(value: object) -> str:
    """A name in a client certificate, with its kind. Host names are compared in lower case."""
    text = plain_text(value)
    if not text.startswith(CERTIFICATE_KINDS) or text in CERTIFICATE_KINDS:
        refuse("must be `subject:CN=web,O=Acme`, `dns:web.internal`, `uri:spiffe://acme/web` or `email:…`")
    return text.lower() if text.startswith("dns:") else text


def algorithm(value: object) -> str:
    """A signature algorithm of JWTs."""
    text = plain_text(value)
    return text if text in ALGORITHMS else refuse(f"must be one of {', '.join(ALGORITHMS)}")


def jwks_file(value: object) -> Path:
    """A file of public keys."""
    path = readable_file(value)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        refuse("the file is not JSON")
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list) or not document["keys"]:
        refuse('the file holds no keys: it must be a JWKS, as {"keys": […]}')
    return path


rules, templates, networks = texts(rule), texts(template), texts(network)
certificate_names, algorithms = texts(certificate_name), texts(algorithm)
