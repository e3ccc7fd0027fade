"""A pool's line: clients in turn, none more than its share, no newcomer before who waits."""

from __future__ import annotations

import asyncio

from gateway.proxy.queue import Queue


def waiters(count: int) -> list[asyncio.Future[None]]:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def test_clients_that_wait_are_served_in_turn() -> None:
    queue, greedy, modest = Queue(10), waiters(3), waiters(1)
    for each in greedy:
        queue.join("greedy", each, in_front=False)
    queue.join("modest", modest[0], in_front=False)
    order = []
    for _ in range(4):
        queue.wake()
        done = [each for each in (*greedy, *modest) if each.done() and each not in order]
        order += done
    assert order == [greedy[0], modest[0], greedy[1], greedy[2]]
    assert len(queue) == 0


async def test_a_client_with_its_share_waits_for_itself_and_the_others_pass() -> None:
    queue = Queue(4)
    queue.share_among(2)
    for _ in range(3):
        assert queue.admits("greedy")
        queue.hold("greedy")
    assert not queue.admits("greedy")
    line = waiters(1)
    queue.join("greedy", line[0], in_front=False)
    assert queue.admits("modest")
    queue.wake()
    assert not line[0].done()
    queue.release("greedy")
    queue.wake()
    assert line[0].done()


async def test_alone_a_client_may_use_the_whole_pool() -> None:
    queue = Queue(4)
    queue.share_among(1)
    for _ in range(4):
        assert queue.admits("web")
        queue.hold("web")
    assert not queue.admits("web")


async def test_a_newcomer_passes_nobody_who_waits_or_was_promised_a_place() -> None:
    queue, line = Queue(10), waiters(1)
    queue.join("web", line[0], in_front=False)
    assert not queue.admits("batch")
    queue.wake()
    assert not queue.admits("batch")
    assert queue.leave("web", line[0])
    assert queue.admits("batch")


async def test_a_place_that_was_promised_to_somebody_who_left_is_free_again() -> None:
    queue, line = Queue(1), waiters(2)
    for each in line:
        queue.join("web", each, in_front=False)
    queue.wake()
    assert queue.leave("web", line[0])
    assert not queue.leave("web", line[0])
    queue.wake()
    assert line[1].done()


async def test_who_was_woken_in_vain_stands_in_front_and_who_gave_up_is_forgotten() -> None:
    queue, line = Queue(10), waiters(3)
    queue.join("batch", line[0], in_front=False)
    queue.join("web", line[1], in_front=True)
    queue.join("web", line[2], in_front=False)
    assert not queue.leave("web", line[2])
    line[0].cancel()
    queue.wake()
    assert line[1].done()
    assert len(queue) == 1
    queue.wake()
    assert len(queue) == 0
