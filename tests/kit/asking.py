"""Requests tokens from the sandbox's vendors as their documents say, for tests that need a token."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

    from gateway.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The arguments of a token request for `ClientSession.request`."""

    url: str
    arguments: dict[str, Any]

    def but(self, **changes: Any) -> TokenRequest:
        """Return the request with other arguments; None removes an argument."""
        arguments = {name: value for name, value in {**self.arguments, **changes}.items() if value is not None}
        return TokenRequest(self.url, arguments)


def basic(name: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def documented(sandbox: Sandbox, vendor: str) -> TokenRequest:
    """Return a vendor's token request as its document describes it."""
    emulated = sandbox.vendors[vendor]
    mine = {name: value.reveal() for name, value in emulated.credentials.items()}
    form = {"grant_type": "client_credentials"}
    arguments: dict[str, Any] = {
        "hypersign": lambda: {"headers": {"X-Api-Secret-Key": mine["api_secret_key"]}},
        "akiba": lambda: {"data": form, "headers": {"Authorization": basic(mine["client_id"], mine["client_secret"])}},
        "uqudo": lambda: {"data": {**form, **mine}},
        "idfy": lambda: {
            "data": {**form, "scope": "document_read document_write document_file event"},
            "headers": {"Authorization": basic(mine["client_id"], mine["client_secret"])},
        },
    }[vendor]()
    return TokenRequest(emulated.token_url, {"method": "POST", **arguments})


async def ask(session: aiohttp.ClientSession, request: TokenRequest) -> tuple[int, Any]:
    """Send the request; return status and JSON."""
    async with session.request(url=request.url, allow_redirects=False, **request.arguments) as response:
        return response.status, await response.json(content_type=None)


async def bearer(session: aiohttp.ClientSession, sandbox: Sandbox, vendor: str) -> dict[str, str]:
    """Return the header with a new token of this vendor."""
    status, answer = await ask(session, documented(sandbox, vendor))
    assert status == 200, answer
    return {"Authorization": f"Bearer {answer['access_token']}"}
