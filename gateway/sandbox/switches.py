"""What can be changed at a vendor while it runs, as the control port and the Python methods take it.

Knows names, types and bounds; what a switch does stands where it acts (`token_faults.py`, `api_faults.py`, the vendor).
Durations are seconds. An unknown name or a wrong value is an error that says so.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

TOKEN_FAULTS: dict[str, str] = {
    "none": "answers as the vendor does",
    "refuse": "the token port is closed; every connection to it is refused",
    "reset": "the connection is reset (RST) before an answer",
    "hang": "takes the request and never answers",
    "429": "429 with `retry_after` as its Retry-After",
    "html": "200 with an HTML page",
    "empty": "200 with an empty body",
    "truncated": "200 with JSON that stops in the middle (the HTTP message itself is whole)",
    "cut": "200 whose connection is reset before Content-Length is reached",
    "not_json": "200 with text that is no JSON",
    "json_list": "200 with a JSON list",
    "oversized": "200 with valid JSON of 64 KiB + 1 byte",
    "error_in_200": '200 with {"error": "temporarily_unavailable"}',
    "no_token": "200 without the token",
    "empty_token": "200 with an empty token",
    "number_token": "200 with a number as the token",
    "list_token": "200 with a list as the token",
    "crlf_token": "200 with a token that holds CR LF and a header line",
    "non_ascii_token": "200 with a token that holds non-ASCII letters",
    "mac": 'token_type "MAC"',
    "redirect": "302 to `/elsewhere` on this port, which counts who followed",
    "invalid_client_400": "400 with the error invalid_client",
    "invalid_client_401": "401 with the error invalid_client",
    "invalid_client_403": "403 with the error invalid_client",
}
API_FAULTS: dict[str, str] = {
    "none": "answers as the vendor does",
    "reset": "the connection is reset (RST) before an answer",
    "hang": "takes the request and never answers",
    "cut": "half of a sized body, then a reset",
    "not_http": "bytes that are no HTTP",
}
_STATUS = re.compile(r"[45][0-9]{2}")


def _one_of(faults: dict[str, str], value: str) -> str:
    if value in faults or _STATUS.fullmatch(value):
        return value
    raise ValueError(f"must be a status from 400 to 599 or one of: {' '.join(faults)}")


TokenFault = Annotated[str, AfterValidator(lambda value: _one_of(TOKEN_FAULTS, value))]
ApiFault = Annotated[str, AfterValidator(lambda value: _one_of(API_FAULTS, value))]


class Override(BaseModel):
    """A JSON value that stands where the vendor's own `expires_in` would."""

    model_config = ConfigDict(extra="forbid")

    value: Any


class Switches(BaseModel):
    """All switches of one vendor. The defaults are the vendor as documented."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    life: PositiveFloat | None = Field(
        default=None, description="life of tokens issued from now on; null: the vendor's own"
    )
    expires_in: Literal["missing"] | Override | None = Field(
        default=None, description='what the answer says instead of the true life: "missing" or {"value": any JSON}'
    )
    latency: NonNegativeFloat = Field(default=0.0, description="time that the token endpoint thinks before it issues")
    travel: NonNegativeFloat = Field(
        default=0.0, description="time between issuing and answering: the token ages under way"
    )
    token_fault: TokenFault = Field(default="none", description="fault of the token endpoint")
    retry_after: str | None = Field(default="2", description="Retry-After of a 429 or 503, as sent: seconds or a date")
    same_token: bool = Field(default=False, description="hand out the newest live token again until it dies")
    single_active: bool = Field(default=False, description="a new token kills the one before")
    clock_offset: float = Field(
        default=0.0, description="added to the vendor's clock, as `Date` and JWT claims show it"
    )
    api_latency: NonNegativeFloat = Field(default=0.0, description="time before the API's first byte")
    api_fault: ApiFault = Field(default="none", description="fault of the API; 401 refuses every token")
    rate_limit: bool = Field(default=True, description="enforce the vendor's own limit, where it has one")
    literal: bool = Field(default=False, description="akiba: read the form as its document says instead of HTTP Basic")
    ip_ban: bool = Field(default=False, description="akiba: ban an address after 32 errors of kind 4xx in two minutes")
