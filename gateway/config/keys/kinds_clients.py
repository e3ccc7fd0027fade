"""The kinds of value that only clients, issuers and networks have. As `fields.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gateway.config.keys import values_clients as v
from gateway.config.keys.kinds import kind

_TEXT: dict[str, object] = {"type": "string"}
_LIST: dict[str, object] = {"type": "array", "items": _TEXT}

Rate = Annotated[float, *kind("number", v.rate, type=["number", "string"], exclusiveMinimum=0)]
Instant = Annotated[float, *kind("date or time", v.instant, type="string")]
Rules = Annotated[tuple[str, ...], *kind("list of rules", v.rules, **_LIST)]
Templates = Annotated[tuple[str, ...], *kind("list of path templates", v.templates, **_LIST)]
NetworkList = Annotated[tuple[str, ...], *kind("list of networks", v.networks, **_LIST)]
Claims = Annotated[
    tuple[tuple[str, str], ...],
    *kind("claims", v.claims, type="object", additionalProperties={"type": ["string", "integer"]}),
]
CertificateNames = Annotated[tuple[str, ...], *kind("list of names in certificates", v.certificate_names, **_LIST)]
Algorithms = Annotated[
    tuple[str, ...],
    *kind("list of algorithms", v.algorithms, type="array", items={"enum": list(v.ALGORITHMS)}),
]
JwksFile = Annotated[Path, *kind("file", v.jwks_file, type="string")]
