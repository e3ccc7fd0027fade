"""Unparsed bytes of an app: heads come out whole and in order, however the bytes were cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, HeadersTooLarge
from gateway.proxy.unparsed import Unparsed, UnparsedBudget

HEADS = st.lists(st.sampled_from([b"GET / HTTP/1.1", b"GET /a HTTP/1.1\r\nHost: a", b"PUT /b HTTP/1.0\r\nA: \rb\nc"]))


def heads_of(unparsed: Unparsed) -> list[bytes]:
    """Take every head that is complete."""
    heads = []
    while unparsed.pending and (head := unparsed.next_head(1000)) is not None:
        heads.append(head)
    return heads


@given(HEADS, st.lists(st.integers(1, 40)), st.lists(st.integers(0, 3), min_size=1))
def test_heads_come_out_in_order_however_they_are_cut_and_whatever_empty_lines_stand_before(
    heads: list[bytes], cuts: list[int], empty: list[int]
) -> None:
    heads = [head.replace(b"\rb\nc", b"b") for head in heads]
    stream = b"".join(b"\r\n" * empty[i % len(empty)] + head + b"\r\n\r\n" for i, head in enumerate(heads))
    unparsed, got, at = Unparsed(UnparsedBudget()), [], 0
    for size in (*cuts, len(stream)):
        if piece := stream[at : at + size]:
            unparsed.add(piece)
            got += heads_of(unparsed)
        at += size
    assert got == heads
    assert (unparsed.pending, unparsed.partial) == (0, 0)


@given(st.integers(0, 5), st.binary(max_size=20))
def test_what_follows_the_heads_that_were_taken_is_returned_as_it_is(taken: int, rest: bytes) -> None:
    unparsed = Unparsed(UnparsedBudget())
    unparsed.add(b"GET / HTTP/1.1\r\n\r\n" * taken + b"POST / HTTP/1.1\r\n\r\n" + rest[:5])
    for _ in range(taken + 1):
        unparsed.next_head(1000)
    unparsed.add(rest[5:])
    assert unparsed.pending == len(rest)
    assert unparsed.take() == rest
    assert unparsed.pending == 0


@pytest.mark.parametrize(
    ("beginning", "error"),
    [(b"G" * 1001, HeadersTooLarge), (b"GET / HTTP/1.1\r\nA: \x00", BadRequest), (b"GET /\r\n", BadRequest)],
)
@pytest.mark.parametrize("before", [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_beginning_that_cannot_become_a_head_is_refused(
    before: bytes, beginning: bytes, error: type[Exception]
) -> None:
    unparsed = Unparsed(UnparsedBudget())
    unparsed.add(before + beginning)
    with pytest.raises(error):
        assert heads_of(unparsed)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["add", "head", "take", "clear", "settle"])), max_size=60))
def test_the_budget_counts_what_is_there_at_the_last_settling(steps: list[tuple[int, str]]) -> None:
    budget = UnparsedBudget()
    connections = [Unparsed(budget) for _ in range(3)]
    for number, step in steps:
        each = connections[number]
        if step == "add":
            each.add(b"GET / HTTP/1.1\r\n\r\nGET")
        elif step == "head":
            try:
                heads_of(each)
            except BadRequest:
                each.clear()
        else:
            getattr(each, step)()
        assert budget.held == sum(one.counted for one in connections)
    for each in connections:
        each.settle()
        assert each.counted == each.pending + each.partial
        each.clear()
    assert budget.held == 0


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"])
def test_the_cost_of_a_pipelined_request_does_not_depend_on_how_many_stand_behind_it(request_: bytes) -> None:
    def seconds(count: int) -> float:
        """Return the time of one head, at best."""
        times = []
        for _ in range(5):
            unparsed = Unparsed(UnparsedBudget())
            unparsed.add(request_ * count)
            began = time.perf_counter()
            assert len(heads_of(unparsed)) == count
            times.append((time.perf_counter() - began) / count)
        return min(times)

    assert seconds(20_000) < 10 * seconds(1000)
