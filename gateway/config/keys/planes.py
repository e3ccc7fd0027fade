"""The keys of `planes`: other proxies that ask for tokens, or whose tokens are pushed into a folder.

Checks that need other sections are in `gateway.config.plane_checks`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.keys.files import ReadableFile
from gateway.config.keys.identity import CertificateNames
from gateway.config.keys.network import parse_address
from gateway.config.keys.numbers import WHOLE, Flag
from gateway.config.keys.section import Section, kind, refuse, revealed
from gateway.config.keys.text import Name, Names, plain_text
from gateway.config.keys.tls import TlsSection
from gateway.model import Address, SocketFile

UNIX = "unix:"
LONGEST_PATH = 107
"""Bytes of the longest path of a Unix socket (unix(7): `sun_path` has 108, the last of which is NUL)."""
MODE = re.compile(r"0?[0-7]{3}")
LARGEST_UID = 2**32 - 2


def plane_listen(value: object) -> Address | SocketFile:
    """Return the Unix socket of `unix:/path`, or the address of `host:port`."""
    written = plain_text(value)
    if written.startswith(UNIX):
        path = absolute_path(written.removeprefix(UNIX))
        if len(bytes(path)) > LONGEST_PATH:
            refuse(f"the path of a Unix socket has at most {LONGEST_PATH} bytes")
        return SocketFile(path)
    return parse_address(written) or refuse("must be unix:/run/gatepass/planes.sock, or host:port")


def absolute_path(value: object) -> Path:
    """Return an absolute path. Refuses a relative one."""
    path = Path(plain_text(value))
    return path if path.is_absolute() else refuse("must be an absolute path, as /run/gatepass/…")


def file_mode(value: object) -> str:
    """Return permissions as three octal digits, or four that begin with 0."""
    text = revealed(value)
    if not isinstance(text, str) or not MODE.fullmatch(text):
        refuse('must be octal digits in quotes, as "0660"')
    return text


def uid(value: object) -> int:
    """Return the number of a user, 0 to 2³² - 2."""
    value = revealed(value)
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_UID:
        refuse("must be the number of a user, as `id -u www-data` prints it")
    return value


_LISTEN: dict[str, object] = {"type": "string", "pattern": r"^unix:/|:[0-9]{1,5}$"}
PlaneListen = Annotated[Address | SocketFile, *kind("`unix:/path` or address", plane_listen, **_LISTEN)]
Directory = Annotated[Path, *kind("absolute path", absolute_path, type="string", pattern="^/")]
FileMode = Annotated[str, *kind("octal digits", file_mode, type="string", pattern=f"^{MODE.pattern}$")]
Uid = Annotated[int, *kind("user number", uid, type=["integer", "string"])]


class PlaneTlsSection(TlsSection):
    """TLS for proxies that ask: 1.2 or newer, with client certificates."""

    client_ca: ReadableFile | None = Field(
        None,
        description="PEM file of authorities: each proxy must present a certificate that they issued.",
    )


class AskSection(Section):
    """A proxy that asks for each request."""

    routes: Names = Field(description="Routes whose tokens the proxy may get.")
    request: Literal["x-forwarded", "x-original", "path"] = Field(
        description="Where the proxy puts the method and path of the app's request: `X-Forwarded-Method` and `-Uri` "
        "(Caddy, Traefik), `X-Original-Method` and `-URI` (nginx), or the method and the `path` of the question "
        "itself (Envoy).",
    )
    uid: Uid | None = Field(None, description="Number of the user that the proxy runs as; only with a Unix socket.")
    certificates: CertificateNames = Field(
        (),
        description="Names in the proxy's certificate, as in `clients[].certificates`; only with an address and TLS.",
    )
    prefix: Flag = Field(
        default=True,
        description="The paths that the proxy sends begin with the route's prefix, as on the data port; "
        "`false`: they are the paths that the vendor gets.",
    )
    addresses: Flag = Field(
        default=False,
        description="The proxy puts the app's address last in `X-Forwarded-For`. "
        "Otherwise, clients with `addresses` get 403 through this proxy.",
    )


class PushSection(Section):
    """A proxy whose tokens are written into a folder."""

    kind: Literal["envoy-sds"] = Field(description="The format of the files: Envoy's secret discovery (SDS).")
    directory: Directory = Field(
        description="Folder of the files; it should be in memory (tmpfs) and have no other files."
    )
    credentials: Names = Field(description="Credentials whose tokens are written into the folder.")
    uid: Uid | None = Field(
        None,
        description="Number of the user that the proxy runs as, so that it may report refused tokens; "
        "only with a Unix socket.",
    )
    certificates: CertificateNames = Field(
        (), description="Names in the proxy's certificate, for the same purpose; only with an address and TLS."
    )


class PlanesSection(Section):
    """Other proxies that keep their own data plane and get their tokens here."""

    listen: PlaneListen | None = Field(
        None,
        description="Where proxies connect to ask, or to report refused tokens: a Unix socket, or an address with "
        "`planes.tls`.",
    )
    mode: FileMode = Field("0660", description="Permissions of the Unix socket; a proxy needs the right to write.")
    tls: PlaneTlsSection | None = Field(
        None, description="TLS for proxies that ask, with client certificates; changed files are read again."
    )
    ask: dict[Name, AskSection] = Field(default_factory=dict, description="Proxies that ask, by name.")
    push: dict[Name, PushSection] = Field(default_factory=dict, description="Proxies that get files, by name.")
