"""The switches of a vendor: what can be changed while it runs, over the control port or in Python.

This module has their names, types and limits. Their effects are in `token_faults.py`, `api_faults.py` and the vendors.
Durations are in seconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

TOKEN_FAULTS: dict[str, str] = {
    "none": "answers as the vendor does",
    "refuse": "the token port is closed; every connection is refused",
    "reset": "the connection is reset (RST) before an answer",
    "hang": "reads the request and never answers",
    "429": "429 with the switch `retry_after` as its Retry-After",
    "html": "200 with an HTML page",
    "empty": "200 with an empty body",
    "truncated": "200 with incomplete JSON (the HTTP message itself is complete)",
    "cut": "200; the connection is reset before Content-Length bytes were sent",
    "not_json": "200 with text that is not JSON",
    "json_list": "200 with a JSON list",
    "oversized": "200 with valid JSON of 64 KiB + 1 byte",
    "error_in_200": '200 with {"error": "temporarily_unavailable"}',
    "no_token": "200 without the token",
    "empty_token": "200 with an empty token",
    "number_token": "200 with a number as the token",
    "list_token": "200 with a list as the token",
    "crlf_token": "200 with a token that contains CR LF and a header line",
    "non_ascii_token": "200 with a token that contains non-ASCII letters",
    "mac": 'token_type "MAC"',
    "redirect": "302 to `/elsewhere` on this port, which counts the requests that follow it",
    "invalid_client_400": "400 with the error invalid_client",
    "invalid_client_401": "401 with the error invalid_client",
    "invalid_client_403": "403 with the error invalid_client",
}
API_FAULTS: dict[str, str] = {
    "none": "answers as the vendor does",
    "reset": "the connection is reset (RST) before an answer",
    "hang": "reads the request and never answers",
    "cut": "half of a body with Content-Length, then a reset",
    "not_http": "bytes that are not HTTP",
}
_STATUS = re.compile(r"[45][0-9]{2}")


def _one_of(faults: dict[str, str], value: str) -> str:
    if value in faults or _STATUS.fullmatch(value):
        return value
    raise ValueError(f"must be a status from 400 to 599 or one of: {' '.join(faults)}")


TokenFault = Annotated[str, AfterValidator(lambda value: _one_of(TOKEN_FAULTS, value))]
ApiFault = Annotated[str, AfterValidator(lambda value: _one_of(API_FAULTS, value))]


class Override(BaseModel):
    """A JSON value that replaces the vendor's own `expires_in`."""

    model_config = ConfigDict(extra="forbid")

    value: Any


class Switches(BaseModel):
    """All switches of one vendor. With the defaults it behaves as documented."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    life: PositiveFloat | None = Field(
        default=None, description="lifetime of tokens that are issued from now on; null: the vendor's own lifetime"
    )
    expires_in: Literal["missing"] | Override | None = Field(
        default=None, description='what the answer says instead of the true lifetime: "missing" or {"value": any JSON}'
    )
    latency: NonNegativeFloat = Field(default=0.0, description="time before the token endpoint issues the token")
    travel: NonNegativeFloat = Field(
        default=0.0, description="time between issuing the token and answering: the token ages meanwhile"
    )
    token_fault: TokenFault = Field(default="none", description="fault of the token endpoint")
    retry_after: str | None = Field(default="2", description="Retry-After of a 429 or 503, as sent: seconds or a date")
    same_token: bool = Field(default=False, description="return the newest live token again until it expires")
    single_active: bool = Field(default=False, description="a new token revokes the one before")
    clock_offset: float = Field(default=0.0, description="added to the vendor's clock in `Date` and in JWT claims")
    api_latency: NonNegativeFloat = Field(default=0.0, description="time before the API's first byte")
    api_fault: ApiFault = Field(default="none", description="fault of the API; 401 rejects every token")
    rate_limit: bool = Field(default=True, description="apply the vendor's own rate limit, if it has one")
    literal: bool = Field(default=False, description="akiba: follow its document exactly: a form instead of HTTP Basic")
    ip_ban: bool = Field(
        default=False, description="akiba: ban an address after more than 32 answers with 4xx in two minutes"
    )
