"""A gateway with clients, budgets and every kind of failure, so that each panel and alert has data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import yaml

from gateway.access import hash_key
from gateway.errors import TokenError
from gateway.observe import Metrics, StoreState
from gateway.sandbox import Sandbox
from tests.kit.configuration import ROOT
from tests.kit.gateway import Running, running
from tests.kit.wire import connect, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = {"onboarding-web": "gp_CANARY-onboarding", "billing": "gp_CANARY-billing", "back-office": "gp_CANARY-office"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def _config(sandbox: Sandbox, budget: int) -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    overlay = yaml.safe_load(sandbox.overlay())
    credentials = {
        name: {**config["credentials"][name], **overlay["credentials"][name], "min_interval": 0}
        for name in config["credentials"]
    }
    credentials["uqudo"]["next_client_secret"] = "${UQUDO_CLIENT_SECRET}"
    routes = {name: {**config["routes"][name], **overlay["routes"][name]} for name in config["routes"]}
    routes["uqudo"] |= {"price": {"per_call": 0.35, "currency": "EUR"}}
    routes["akiba"] |= {"pool": {"size": 2, "wait": "300ms"}}
    routes["ledger"] = {"credential": "ledger", "upstream": "http://127.0.0.1:9"}
    credentials["ledger"] = {"static": {"token": "${UQUDO_CLIENT_SECRET}"}}
    return {
        "credentials": credentials,
        "routes": routes,
        "clients": [
            {"name": name, "key_sha256": hash_key(key)}
            | (
                {"budgets": [{"route": "hypersign", "per": "day", "hard": budget, "soft": budget // 2}]}
                if name == "billing"
                else {"limits": [{"routes": ["uqudo"], "rate": 4, "burst": 4}]}
                if name == "back-office"
                else {}
            )
            for name, key in KEYS.items()
        ],
    }


@asynccontextmanager
async def failing(*, budget: int = 50) -> AsyncIterator[tuple[Running, Sandbox]]:
    """Run a gateway in front of the sandbox, with apps that call it continuously and that also send wrong requests."""
    async with Sandbox() as sandbox:
        for each in sandbox.vendors.values():
            await each.set(rate_limit=False)
        async with running(_config(sandbox, budget), environ=sandbox.environ()) as it:
            apps = [asyncio.create_task(app) for app in _apps(it)]
            try:
                yield it, sandbox
            finally:
                for app in apps:
                    app.cancel()
                await asyncio.gather(*apps, return_exceptions=True)


def _apps(it: Running) -> list[Any]:
    callers = [
        ("onboarding-web", "uqudo"),
        ("onboarding-web", "idfy"),
        ("billing", "hypersign"),
        ("back-office", "uqudo"),
    ]
    found = [_app(it, f"/{route}/sandbox/status/200", KEYS[name], pause=0.1) for name, route in callers]
    found += [_app(it, "/akiba/sandbox/status/200", KEYS["back-office"], pause=0.02) for _ in range(4)]
    found.append(_app(it, "/ledger/balance", KEYS["billing"], pause=0.4))
    found.append(_app(it, "/nowhere", KEYS["billing"], pause=0.5))
    found.append(_app(it, "/idfy/sandbox/status/200", "gp_CANARY-unknown", pause=0.5))
    found.append(_app(it, "/idfy/sandbox/status/503", KEYS["billing"], pause=0.5))
    return found


async def _app(it: Running, path: str, key: str, *, pause: float) -> None:
    """One app that sends requests until it is cancelled, over one connection as long as that stays open."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            peer = await connect(it.address)
            while True:
                fields = (f"X-Gatepass-Key: {key}", f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01")
                await peer.send(get(path, *fields))
                await peer.message()
                await asyncio.sleep(pause)
        await asyncio.sleep(0.05)


def _lose_the_store(metrics: Metrics) -> None:
    store = metrics.store()
    store.watch(lambda: StoreState(up=False, shared=False, silence=30.0, members=3, strangers=1))
    store.answered(0.001)
    store.failed(0.25)
    store.undecryptable()
    metrics.credential("idfy").lease("committed")
    metrics.credential("idfy").adopted()
    metrics.store_granted.labels("billing", "hypersign", "day").set(10)
    metrics.store_away_calls.labels("billing", "hypersign").inc()


async def make_failures(it: Running, sandbox: Sandbox) -> None:
    """Cause each kind of failure: revoked tokens, a dead endpoint, a rejected secret, a rejected configuration.

    Failures that no vendor can cause (issuers' keys, echoed tokens, the state file, the shared store) are added to the
    counters by hand, because these tests are about the queries.
    """
    it.gateway.metrics.certificate_expires(time.time() + 3600)  # as with `tls`, which a scrape by name would not trust
    metrics = it.gateway.metrics
    for place in ("header", "body"):
        metrics.route("uqudo").echoed(place)
    for outcome in ("ok", "failed"):
        metrics.keys_fetched("corp", outcome)
        metrics.state_written(outcome)
        metrics.credential("uqudo").fetched("ok", "rotated", 0.2)
    _lose_the_store(metrics)
    await sandbox.vendors["akiba"].set(api_latency=0.3)
    await sandbox.vendors["idfy"].set(token_fault="503")
    await sandbox.vendors["hypersign"].set(token_fault="invalid_client_401")
    for _ in range(4):
        sandbox.vendors["uqudo"].revoke()
        await asyncio.sleep(0.3)
    sandbox.vendors["idfy"].revoke()
    await it.gateway.reload(it.gateway.config)
    await asyncio.sleep(0.6)
    metrics.config_loaded("failed")
    for _ in range(3):
        with contextlib.suppress(TokenError):
            await it.gateway.tokens.fetch_now("hypersign")
        await asyncio.sleep(0.6)
    for _ in range(3):
        for outcome in ("ok", "failed"):
            metrics.keys_fetched("corp", outcome)
            metrics.state_written(outcome)
        for place in ("header", "body"):
            metrics.route("uqudo").echoed(place)
        metrics.route("uqudo").app_token("billing", "issued")
        metrics.credential("uqudo").fetched("ok", "rotated", 0.2)
        await asyncio.sleep(0.4)
