"""Keys, JWKS documents and JWTs for tests: genuine and forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import algorithms as alg

from gateway.model import Secret

ISSUER, AUDIENCE = "https://login.example/realms/corp", "gatepass"
WALL = 1_800_000_000.0


@cache
def key(name: str) -> Any:
    """Return a private key, always the same for a name; the beginning of the name chooses its kind."""
    if name.startswith("rsa1024"):
        return rsa.generate_private_key(65537, 1024)
    if name.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if name.startswith("ed") else ec.generate_private_key(ec.SECP256R1())


def pem(private: Any) -> Secret:
    """Return a private key as PKCS #8 without a passphrase."""
    plain = serialization.NoEncryption()
    return Secret(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode())


def jwk(name: str, **more: Any) -> dict[str, Any]:
    """Return the public half as a JWK with `kid` = name."""
    public = key(name).public_key()
    kind = (
        alg.RSAAlgorithm if name.startswith("rsa") else alg.OKPAlgorithm if name.startswith("ed") else alg.ECAlgorithm
    )
    document = kind.to_jwk(public, as_dict=True)
    return {**{field: value for field, value in document.items() if field != "key_ops"}, "kid": name, **more}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def claims(**more: Any) -> dict[str, Any]:
    """Return valid claims; None removes a claim."""
    whole = {"iss": ISSUER, "aud": AUDIENCE, "azp": "web", "exp": WALL + 300, "iat": WALL, **more}
    return {name: value for name, value in whole.items() if value is not None}


def token(name: str = "rsa-1", algorithm: str = "RS256", header: dict[str, Any] | None = None, **more: Any) -> str:
    """Return a JWT signed with the key `name`; its `kid` is that name unless `header` has another."""
    fields = {"kid": name, **(header or {})}
    fields = {field: value for field, value in fields.items() if value is not None}
    return jwt.encode(claims(**more), key(name), algorithm=algorithm, headers=fields)


def forged(header: dict[str, Any], body: dict[str, Any], secret: bytes | None = None) -> str:
    """Return a JWT that no library would make: unsigned, or signed by HMAC with `secret`."""
    head = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, body))
    signature = hmac.new(secret, head, hashlib.sha256).digest() if secret is not None else b""
    return (head + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def public_pem(name: str) -> bytes:
    public: bytes = (
        key(name).public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return public
