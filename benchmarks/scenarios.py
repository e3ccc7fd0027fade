"""The scenarios of the bench. Each makes one table of the result."""

from __future__ import annotations

import os
from dataclasses import dataclass

import orjson

from benchmarks.processes import KEY

HEADERS = {
    "User-Agent": "bench/1",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Accept-Language": "en",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "X-Gatepass-Key": KEY,
}
"""Seven headers together with `Host`."""
SMALL = "/v1/checks/7f4c2a?expand=documents"
BOUNDARY = "bench-0f3b9d"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    title: str
    path: str = SMALL
    content_type: str = ""
    body: bytes = b""
    """A request with a body is a POST."""
    connections: int = 64
    per_second: int = 0
    """A constant rate; 0: as many as possible."""
    idle: int = 0
    """Connections that are opened, used once and kept open; then there is no other load."""
    tls: bool = False
    """TLS to the app and to the vendor."""
    token_life: int = 3600
    """In seconds."""
    only: tuple[str, ...] = ()
    """The peers that run it; empty: all."""
    direct: bool = False
    """Also measured without any proxy."""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of its request."""
        return HEADERS | ({"Content-Type": self.content_type} if self.content_type else {})


def document(size: int) -> bytes:
    """Return JSON of about `size` bytes."""
    row = {"kind": "passport", "number": "X0000000", "country": "AE", "name": "Zoë Example", "score": 0.97}
    return orjson.dumps({"documents": [row] * (size // len(orjson.dumps(row)))})


def multipart(size: int) -> bytes:
    """Return a form with one file of `size` bytes."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="passport.jpg"\r\n'
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + os.urandom(size) + f"\r\n--{BOUNDARY}--\r\n".encode()


SCENARIOS = (
    Scenario("small", "Small JSON, GET"),
    Scenario("post", "POST of 20 KB JSON", "/v1/documents", "application/json", document(20_000)),
    Scenario("download", "Download of 1 MiB", "/v1/portrait", connections=16),
    Scenario(
        "upload",
        "Multipart upload of 5 MiB",
        "/v1/documents",
        f"multipart/form-data; boundary={BOUNDARY}",
        multipart(5 * 1024 * 1024),
        connections=8,
    ),
    Scenario("constant", "1,000 requests a second, small JSON", connections=10, per_second=1000, direct=True),
    Scenario("many", "Small JSON over 1,000 connections", connections=1000),
    Scenario("tls", "Small JSON, TLS on both sides", tls=True),
    Scenario("idle", "10,000 idle connections", idle=10_000),
    Scenario("expiry", "Small JSON while tokens live 4 seconds", token_life=4, only=("gatepass",)),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
