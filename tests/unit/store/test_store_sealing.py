"""Records and names of the store: what opens what, and that nothing shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Undecryptable
from gateway.model import Secret
from gateway.observe import forms
from gateway.store import Sealing
from gateway.store.sealing import NAME_DIGITS, NONCE, TAG, WRAPPED

OLD, NEW, OTHER = (Secret(f"CANARY-{name}-0123456789abcdefghij") for name in ("old", "new", "other"))
TOKEN = "CANARY-token-value"


def sealing(*keys: Secret, namespace: str = "gatepass") -> Sealing:
    return Sealing(keys, namespace)


ROTATION = {
    "before": (sealing(OLD), sealing(OLD)),
    "one has the new key": (sealing(NEW, OLD), sealing(OLD)),
    "one has no new key yet": (sealing(OLD), sealing(NEW, OLD)),
    "all have both": (sealing(NEW, OLD), sealing(NEW, OLD)),
    "one has dropped the old key": (sealing(NEW), sealing(NEW, OLD)),
    "one has not dropped it yet": (sealing(NEW, OLD), sealing(NEW)),
}


@pytest.mark.parametrize(("writer", "reader"), ROTATION.values(), ids=ROTATION)
def test_at_each_step_of_a_rotation_everybody_opens_what_anybody_wrote(writer: Sealing, reader: Sealing) -> None:
    assert reader.unseal(writer.seal(TOKEN.encode(), b"h|1"), b"h|1") == TOKEN.encode()


def test_names_stay_while_the_last_key_does() -> None:
    assert sealing(OLD).name("a") == sealing(NEW, OLD).name("a")
    assert sealing(OLD).name("a") != sealing(NEW).name("a")


def test_while_a_key_is_replaced_the_names_under_the_other_key_are_known() -> None:
    assert sealing(NEW, OLD).other_names("a", "b") == [sealing(NEW).name("a", "b")]
    assert sealing(NEW, OTHER, OLD).other_names("a") == [sealing(OTHER).name("a"), sealing(NEW).name("a")]
    assert sealing(OLD).other_names("a") == []


def test_names_differ_by_namespace_and_by_each_part() -> None:
    it = sealing(OLD)
    names = {it.name("a"), it.name("b"), it.name("a", "b"), it.name("ab"), it.name("", "ab"), it.name("ab", "")}
    names.add(sealing(OLD, namespace="other").name("a"))
    assert len(names) == 7
    assert all(len(name) == NAME_DIGITS and int(name, 16) >= 0 for name in names)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(Undecryptable):
        sealing(OTHER).unseal(sealing(NEW, OLD).seal(b"x", b"h|1"), b"h|1")


def test_a_record_opens_in_its_place_only() -> None:
    """Swapped with another credential's, or put back when a newer one was there."""
    sealed = sealing(OLD).seal(b"x", b"h|1")
    for place in (b"h|2", b"g|1", b"", b"h|1 "):
        with pytest.raises(Undecryptable):
            sealing(OLD).unseal(sealed, place)


@given(at=st.integers(0, 2 + WRAPPED + NONCE + TAG + 3), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    sealed = bytearray(sealing(OLD).seal(b"abcd", b"h|1"))
    sealed[at] ^= 1 << bit
    with pytest.raises(Undecryptable):
        sealing(OLD).unseal(bytes(sealed), b"h|1")


@given(st.binary(max_size=300))
def test_anything_else_is_undecryptable_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Undecryptable):
        sealing(NEW, OLD).unseal(data, b"h|1")


def test_two_records_of_one_token_have_nothing_in_common() -> None:
    one, other = (sealing(OLD).seal(TOKEN.encode(), b"h|1") for _ in range(2))
    assert one[2:] != other[2:]
    assert not set(_blocks(one[2:])) & set(_blocks(other[2:]))


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + 8] for at in range(0, len(data) - 7, 8)]


def test_no_form_of_a_token_or_key_is_in_a_record() -> None:
    sealed = sealing(NEW, OLD).seal(TOKEN.encode(), b"h|1").decode("latin-1")
    for secret in (TOKEN, NEW.reveal(), OLD.reveal()):
        assert not [form for form in forms(secret) if form in sealed]


def test_a_repr_shows_no_key() -> None:
    assert "CANARY" not in repr(sealing(NEW, OLD))
