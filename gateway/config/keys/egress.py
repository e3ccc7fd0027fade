"""The keys of `egress`: the HTTP proxy through which servers outside are reached."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gateway.config.keys.files import ReadableFile
from gateway.config.keys.http import URL
from gateway.config.keys.network import HOST_NAME, is_host
from gateway.config.keys.section import Section, kind, refuse
from gateway.config.keys.text import STRINGS, SecretValue, TextValue, list_of, plain_text

DIRECT = "direct"
DEFAULT_PORTS = {"http": 3128, "https": 443}
"""What a URL without a port means; 3128 is what HTTP proxies usually listen on."""


def proxy_url(value: object) -> str:
    """Return the URL of a proxy, or `direct`."""
    text = plain_text(value)
    if text == DIRECT:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        refuse("is no URL")
    if parts.scheme not in DEFAULT_PORTS or not URL.fullmatch(text) or port == 0 or not is_host(parts.hostname or ""):
        refuse("must be http://host:port or https://host:port, or `direct`")
    if "@" in parts.netloc:
        refuse("must not hold a user name or password; use `username` and `password`")
    if parts.path not in {"", "/"} or "?" in text or "#" in text:
        refuse("must have no path: http://host:port")
    return text


def unproxied(value: object) -> str:
    """Return a name in lower case, without the dot or `*.` before it, or a network that is reached directly."""
    text = plain_text(value)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        name = text.lower().removeprefix("*").removeprefix(".").removesuffix(".")
    if not HOST_NAME.fullmatch(name) or not is_host(name):
        refuse("must be a host name, which includes all names below it, or a network as 10.0.0.0/8")
    return name


ProxyUrl = Annotated[str, *kind("proxy URL or `direct`", proxy_url, type="string")]
Unproxied = Annotated[tuple[str, ...], *kind("list of host names and networks", list_of(unproxied), **STRINGS)]


class EgressSection(Section):
    """The HTTP proxy through which vendors, token endpoints, issuers and the trace collector are reached."""

    proxy: ProxyUrl = Field(description="URL of the proxy, `http://` or `https://`; `direct`: no proxy here.")
    username: TextValue | None = Field(None, description="User name for the proxy (Basic).")
    password: SecretValue | None = Field(None, description="Password for the proxy (Basic).")
    no_proxy: Unproxied = Field(
        (),
        description="Servers that are reached directly: names, with all names below them, and networks of literal "
        "addresses. Loopback and `localhost` always are.",
    )
    ca_file: ReadableFile | None = Field(
        None, description="PEM file of the authorities to trust for an `https://` proxy instead of the system's."
    )

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        """Refuse keys that have no effect, and a login that Basic cannot carry (RFC 7617 §2)."""
        if self.proxy == DIRECT and (self.username or self.password or self.no_proxy or self.ca_file):
            refuse("`proxy: direct` stands alone")
        if (self.username is None) != (self.password is None):
            refuse("`username` and `password` go together")
        name = self.username if isinstance(self.username, str | None) else self.username.reveal()
        if name is not None and (not name or ":" in name):
            refuse("username is empty or holds a colon, which Basic cannot carry")
        if self.ca_file is not None and not self.proxy.startswith("https:"):
            refuse("`ca_file` needs an https:// proxy")
        return self
