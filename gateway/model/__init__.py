"""The nouns of Gatepass: frozen values that all other packages share.

Imports no other package of Gatepass and does no I/O. `gateway.config` makes them from configuration files, and
`gateway.tokens` makes a `Token` from a vendor's answer. Durations are seconds as `float`, sizes are bytes as `int`,
instants are seconds of the injected monotonic clock unless the name says `wall`.
"""

from gateway.model.client import Client, ClientBudget, ClientClaims, ClientLimit, Issuer
from gateway.model.clock import Clock, Timer
from gateway.model.config import LEVELS, Config, Drain, Level, Limits, Logs, Tracing
from gateway.model.egress import Egress
from gateway.model.grant import (
    Assertion,
    Basic,
    ClientCertificate,
    Credential,
    Expires,
    Grant,
    GrantRequest,
    GrantResponse,
    Json,
    Pairs,
)
from gateway.model.planes import AskPlane, Planes, PlaneStatus, PushPlane, PushState, RequestSource
from gateway.model.ports import Address, ServerTLS, SocketFile
from gateway.model.price import Money
from gateway.model.route import Injection, PoolLimits, RefusalSign, Replay, Route, Timeouts, Upstream
from gateway.model.secret import Secret, Text
from gateway.model.shared import (
    Again,
    Bucket,
    Demand,
    FailureKind,
    Held,
    Lease,
    NotYet,
    Reading,
    SharedTokens,
    Turn,
)
from gateway.model.store import StoreConfig, StoreServer, StoreStatus
from gateway.model.tally import NOTHING, CountKey, EscrowReply, EscrowRequest, Field, Tally
from gateway.model.token import AppTokenEndpoint, CredentialStatus, ExpirySource, Presented, Token, Tokens
from gateway.model.units import KIB, MIB

__all__ = [
    "KIB",
    "LEVELS",
    "MIB",
    "NOTHING",
    "Address",
    "Again",
    "AppTokenEndpoint",
    "AskPlane",
    "Assertion",
    "Basic",
    "Bucket",
    "Client",
    "ClientBudget",
    "ClientCertificate",
    "ClientClaims",
    "ClientLimit",
    "Clock",
    "Config",
    "CountKey",
    "Credential",
    "CredentialStatus",
    "Demand",
    "Drain",
    "Egress",
    "EscrowReply",
    "EscrowRequest",
    "Expires",
    "ExpirySource",
    "FailureKind",
    "Field",
    "Grant",
    "GrantRequest",
    "GrantResponse",
    "Held",
    "Injection",
    "Issuer",
    "Json",
    "Lease",
    "Level",
    "Limits",
    "Logs",
    "Money",
    "NotYet",
    "Pairs",
    "PlaneStatus",
    "Planes",
    "PoolLimits",
    "Presented",
    "PushPlane",
    "PushState",
    "Reading",
    "RefusalSign",
    "Replay",
    "RequestSource",
    "Route",
    "Secret",
    "ServerTLS",
    "SharedTokens",
    "SocketFile",
    "StoreConfig",
    "StoreServer",
    "StoreStatus",
    "Tally",
    "Text",
    "Timeouts",
    "Timer",
    "Token",
    "Tokens",
    "Tracing",
    "Turn",
    "Upstream",
]
