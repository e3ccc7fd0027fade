"""The keys of `store`: the Valkey or Redis server that several instances share."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from gateway.config.keys.files import MAX_BYTES, ReadableFile
from gateway.config.keys.http import URL
from gateway.config.keys.network import is_host, may_be_plain, parse_address
from gateway.config.keys.numbers import PositiveDuration
from gateway.config.keys.section import Section, kind, refuse
from gateway.config.keys.text import SecretValue, TextValue, list_of, plain_text, secret_text, text_like
from gateway.config.read.files import read_bytes
from gateway.model import Address, Secret, StoreConfig, StoreServer
from gateway.tls import check_authorities

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = {"redis", "rediss", "valkey", "valkeys", "unix", "redis+sentinel", "rediss+sentinel"}
ENCRYPTED = {"rediss", "valkeys", "rediss+sentinel"}
SHAPES = (
    "must be redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/of/socket, "
    "or redis+sentinel://h1:26379,h2:26379/NAME/0"
)
PORT, SENTINEL_PORT = 6379, 26379
DATABASE = re.compile(r"[0-9]{1,5}")
NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
MASTER = re.compile(r"[A-Za-z0-9_.-]+")
LEAST_KEY = 32
"""Fewest characters of a key: fewer cannot hold 32 random bytes."""
LONGEST_LEASE = 60.0
"""Seconds."""
LEAST_LEASES = 4
"""Time-outs of a command that must fit into a lease, because it is renewed each third and one renewal may be lost."""


def store_url(value: object) -> StoreServer:
    """Return the server, socket or Sentinels that a URL names."""
    text = plain_text(value)
    try:
        parts = urlsplit(text)
    except ValueError:
        refuse(SHAPES)
    if parts.scheme not in SCHEMES or not URL.fullmatch(text):
        refuse(SHAPES)
    if "@" in parts.netloc:
        refuse("must not hold a user name or password; use `username` and `password`")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        refuse(f"must not have options (? or #): {SHAPES.removeprefix('must be ')}")
    if parts.scheme == "unix":
        return _socket(parts.netloc, parts.path)
    segments = [each for each in parts.path.split("/") if each]
    if parts.scheme.endswith("+sentinel"):
        return _sentinels(parts.scheme, parts.netloc, segments)
    addresses = _addresses(parts.netloc, PORT, encrypted=parts.scheme in ENCRYPTED)
    if len(addresses) > 1:
        refuse("names several servers; only Sentinels can be several: redis+sentinel://h1,h2/NAME/0")
    if len(segments) > 1:
        refuse(f"must have a number of a database as its path, or none: {SHAPES.removeprefix('must be ')}")
    return StoreServer(addresses, database=_database(segments), tls=parts.scheme in ENCRYPTED)


def _socket(netloc: str, path: str) -> StoreServer:
    if netloc or not path.startswith("/") or path == "/":
        refuse("must be an absolute path: unix:///run/valkey/valkey.sock")
    return StoreServer(socket=unquote(path))


def _sentinels(scheme: str, netloc: str, segments: list[str]) -> StoreServer:
    if not segments or len(segments) > 2 or not MASTER.fullmatch(segments[0]):  # noqa: PLR2004 - name and database
        refuse("must name the server that the Sentinels watch: redis+sentinel://h1:26379,h2:26379/NAME/0")
    addresses = _addresses(netloc, SENTINEL_PORT, encrypted=scheme in ENCRYPTED)
    return StoreServer(addresses, database=_database(segments[1:]), tls=scheme in ENCRYPTED, master=segments[0])


def _addresses(netloc: str, port: int, *, encrypted: bool) -> tuple[Address, ...]:
    found = []
    for each in netloc.split(","):
        bare = each.endswith("]") or ":" not in each
        address = parse_address(f"{each}:{port}" if bare else each) if each else None
        if address is None or not address.port or each.startswith(":") or not is_host(address.host):
            refuse(SHAPES)
        found.append(address)
    if not encrypted and not all(may_be_plain(address.host) for address in found):
        refuse("must be rediss:// (redis:// is only for loopback, private addresses and local names)")
    return tuple(found)


def _database(segments: list[str]) -> int:
    if not segments:
        return 0
    return int(segments[0]) if DATABASE.fullmatch(segments[0]) else refuse("must end with the number of a database: /0")


def key_texts(value: object) -> tuple[Secret, ...]:
    """Return the keys. Refuses an empty list, and keys that are short or repeat few characters."""
    keys: tuple[Secret, ...] = list_of(secret_text)(value)
    if not keys:
        refuse("is empty: at least one key is needed: openssl rand -base64 33")
    for index, key in enumerate(keys):
        if len(key.reveal()) < LEAST_KEY:
            refuse(f"key {index + 1} has fewer than {LEAST_KEY} characters: openssl rand -base64 33")
        if len(set(key.reveal())) < LEAST_KEY // 4:
            refuse(f"key {index + 1} repeats a few characters: openssl rand -base64 33")
    return keys


namespace = text_like(NAMESPACE, "must be a name of at most 64 letters, digits, dots, underscores and hyphens, as prod")

StoreUrl = Annotated[StoreServer, *kind("URL", store_url, type="string", pattern="^(redis|rediss|valkey|valkeys|unix)")]
StoreKeys = Annotated[
    tuple[Secret, ...],
    *kind("list of secrets", key_texts, type="array", items={"type": "string"}, minItems=1),
]
Namespace = Annotated[str, *kind("name", namespace, type="string", pattern=f"^{NAMESPACE.pattern}$")]


class StoreSection(Section):
    """The Valkey or Redis server that several instances share; needs the extra `store`."""

    url: StoreUrl = Field(
        description="The server: `redis://host:6379/0`, `rediss://` with TLS, `unix:///path`, or "
        "`redis+sentinel://h1:26379,h2:26379/NAME/0`."
    )
    username: TextValue | None = Field(None, description="User of the store's ACL; default: its user `default`.")
    password: SecretValue | None = Field(
        None,
        description="Password; if the whole value is `${file:…}`, the file is read again for each new connection.",
    )
    namespace: Namespace = Field(
        "gatepass", description="Part of every key's name; gateways with the same one share tokens and counts."
    )
    keys: StoreKeys = Field(
        description="Keys of at least 32 random bytes. Tokens are encrypted with each of them; the last one also makes "
        "the names in the store."
    )
    timeout: PositiveDuration = Field(0.25, description="Longest duration of one command.")
    lease: PositiveDuration = Field(
        3.0,
        description="Time after which another instance may request a token if the instance that was requesting it has "
        "died.",
    )
    ca_file: ReadableFile | None = Field(
        None, description="PEM file of the authorities to trust for TLS instead of the system's."
    )

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        """Refuse keys of the configuration that have no effect, and times that do not fit each other."""
        if self.username is not None and self.password is None:
            refuse("`username` needs a `password`")
        if self.ca_file is not None and not self.url.tls:
            refuse("`ca_file` needs an encrypted connection: rediss://")
        try:
            if self.ca_file is not None:
                check_authorities(self.ca_file)
        except (OSError, ValueError):
            refuse("ca_file is not a PEM file of certificates")
        if not self.timeout * LEAST_LEASES <= self.lease <= LONGEST_LEASE:
            refuse(f"`lease` must be at least {LEAST_LEASES} times `timeout`, and at most {LONGEST_LEASE:.0f}s")
        return self

    def compiled(self, password_file: Path | None) -> StoreConfig:
        """Return the `StoreConfig`; `password_file` is the file that `password` was read from, if any."""
        authorities = read_bytes(self.ca_file, MAX_BYTES) if self.ca_file is not None else b""
        return StoreConfig(
            server=self.url,
            keys=self.keys,
            namespace=self.namespace,
            username=self.username.reveal() if isinstance(self.username, Secret) else self.username or "",
            password=self.password,
            password_file=password_file,
            timeout=self.timeout,
            lease=self.lease,
            ca_file=self.ca_file,
            ca_fingerprint=hashlib.sha256(authorities).hexdigest() if authorities else "",
        )
