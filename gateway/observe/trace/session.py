"""The HTTP session of the trace exporter: our TLS contexts, our egress proxy, nothing from the environment.

Imported only where tracing is configured, because `requests` comes with the extra `tracing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from gateway.egress import login, proxy_for
from gateway.tls import client_context, proxy_context

if TYPE_CHECKING:
    from gateway.model import Egress


class _Adapter(HTTPAdapter):
    """Uses given TLS contexts and a given proxy, where `requests` would read files and variables."""

    def __init__(self, proxy: Egress | None) -> None:
        self._tls = client_context()
        self._proxy_tls = proxy_context(proxy) if proxy is not None else None
        self._login = login(proxy) if proxy is not None else None
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._tls, proxy_ssl_context=self._proxy_tls, **options)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Leave out the file of authorities that `requests` brings, unless OpenTelemetry's variables name another."""
        host, options = super().build_connection_pool_key_attributes(request, verify, cert)
        if verify is True:
            options = {name: value for name, value in options.items() if name not in {"ca_certs", "ca_cert_dir"}}
        return host, options

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave verification to the contexts, which require it, in the same case."""
        if verify is not True:
            super().cert_verify(conn, url, verify, cert)

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return the fields of a CONNECT request."""
        del proxy
        return {} if self._login is None else {"Proxy-Authorization": self._login}

    def add_headers(self, request: requests.PreparedRequest, **options: Any) -> None:
        """Add the login for the proxy to a plain http request, which the proxy forwards."""
        if self._login is not None and options.get("proxies") and str(request.url).startswith("http:"):
            request.headers["Proxy-Authorization"] = self._login


def collector_session(egress: Egress | None, host: str) -> requests.Session:
    """Return a session for the collector on `host`, through the proxy if it is reached through one.

    Raises OSError for a file of authorities that cannot be used.
    """
    proxy = proxy_for(egress, host)
    session = requests.Session()
    session.trust_env = False
    adapter = _Adapter(proxy)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    if proxy is not None:
        session.proxies = {"http": proxy.url, "https": proxy.url}
    return session
