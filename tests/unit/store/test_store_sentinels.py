"""Sentinels that name different servers: after a fail-over, one that was cut off still names the old one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import StoreAway
from gateway.model import Address, StoreServer
from gateway.resolver import Resolver
from gateway.store.connection import Connector
from tests.kit.storeclient import config

OLD, NEW = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
SENTINELS = tuple(Address("127.0.0.1", port) for port in range(1, 6))


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ((OLD, NEW, NEW), NEW),
        ((OLD, NEW, TimeoutError(), NEW), NEW),
        ((OSError(), OSError(), OLD), OLD),
        ((OLD, OLD, NEW, NEW, NEW), NEW),
    ],
)
async def test_the_server_that_most_sentinels_name_is_used(
    answers: tuple[Address | Exception, ...], named: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = dict(zip(SENTINELS, answers, strict=False))

    async def ask(_: Connector, sentinel: Address) -> Address:
        answer = told[sentinel]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Connector, "_ask", ask)
    settings = replace(config(0), server=StoreServer(tuple(told), master="mymaster"))
    assert await Connector(settings, Resolver())._master() == named


async def test_without_an_answer_of_any_the_first_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(_: Connector, sentinel: Address) -> Address:
        raise StoreAway(f"refused by {sentinel.port}")

    monkeypatch.setattr(Connector, "_ask", ask)
    settings = replace(config(0), server=StoreServer(SENTINELS[:3], master="mymaster"))
    with pytest.raises(StoreAway, match="no Sentinel names the server mymaster: refused by 1"):
        await Connector(settings, Resolver())._master()
