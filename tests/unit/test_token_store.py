"""The store keeps a token to its own end, and never gives back another."""

from __future__ import annotations

from gateway.model import Secret, Token
from gateway.tokens.store import MemoryStore
from tests.kit.clock import FakeClock


def token(clock: FakeClock, life: float, value: str = "CANARY-a") -> Token:
    return Token(Secret(value), "acme", clock.monotonic(), clock.monotonic() + life, "in")


async def test_a_token_is_kept_to_its_own_end() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    short, long = token(clock, 10), token(clock, 20)
    store.put("short", short)
    store.put("long", long)
    await clock.advance(10)
    assert (store.get("short"), store.get("long")) == (None, long)


def test_an_expired_token_does_not_leave_the_one_before_it_in_place() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    store.put("k", token(clock, 10))
    store.put("k", token(clock, -1))
    assert store.get("k") is None


def test_only_the_very_token_is_removed() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    old, new = token(clock, 10), token(clock, 10)
    store.put("k", new)
    store.remove("k", old)
    assert store.get("k") is new
    store.remove("k", new)
    assert store.get("k") is None


async def test_removing_what_has_expired_or_never_was_is_harmless() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    gone = token(clock, 1)
    store.put("k", gone)
    await clock.advance(2)
    store.remove("k", gone)
    store.remove("never", gone)
