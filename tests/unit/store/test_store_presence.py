"""Who the members are, from the answers to heartbeats."""

from __future__ import annotations

from gateway.store.presence import Presence


def answer(*names: str, at: float = 1000.25, added: int = 0) -> list[object]:
    return [str(int(at)).encode(), str(int(at % 1 * 1e6)).encode(), [name.encode() for name in names], added]


def test_an_instance_is_alone_before_the_first_answer() -> None:
    it = Presence("b")
    assert (it.members, it.rank, it.wall(5.0)) == (1, 0, None)


def test_ranks_follow_the_names_and_not_the_heartbeats() -> None:
    it = Presence("b")
    it.learn(answer("c", "b", "a"), 0.0)
    assert (it.members, it.rank) == (3, 1)


def test_more_members_count_at_once_and_fewer_when_a_second_answer_says_so() -> None:
    it = Presence("b")
    it.learn(answer("b", "c"), 0.0)
    it.learn(answer("b"), 1.0)
    assert it.members == 2
    it.learn(answer("b"), 2.0)
    assert it.members == 1


def test_a_store_that_forgets_everybody_for_a_moment_changes_nothing() -> None:
    it = Presence("b")
    it.learn(answer("a", "b", "c"), 0.0)
    it.learn(answer("b"), 1.0)
    it.learn(answer("a", "b", "c"), 2.0)
    it.learn(answer("b"), 3.0)
    assert it.members == 3


def test_an_answer_without_us_counts_us_all_the_same() -> None:
    it = Presence("b")
    it.learn(answer("a"), 0.0)
    assert (it.members, it.rank) == (2, 1)


def test_the_store_s_time_is_counted_from_when_the_heartbeat_was_sent() -> None:
    """So it is ahead of the store's clock by one command's duration at most."""
    it = Presence("b")
    it.learn(answer("b", at=1000.25), 10.0)
    assert it.wall(12.0) == 1002.25


def test_members_with_another_key_id_are_strangers() -> None:
    it = Presence("b")
    it.learn(answer("a:1", "b:1", "c:2"), 0.0, "1")
    assert (it.members, it.strangers, it.is_alone) == (3, 1, False)
    it.learn(answer("a:2", "b:1", "c:2"), 1.0, "1")
    assert (it.strangers, it.is_alone) == (2, True)


def test_a_member_whose_keys_were_replaced_is_counted_once() -> None:
    it = Presence("b")
    it.learn(answer("a:1", "a:2", "b:1", "b:2"), 0.0, "2")
    assert (it.members, it.strangers) == (2, 0)


def test_what_somebody_else_wrote_into_the_members_breaks_nothing() -> None:
    it = Presence("b")
    it.learn([b"1", b"0", [b"\xff\xfe", b"", b"b:1"], 0], 0.0, "1")
    assert it.members == 3


def test_a_store_that_adds_us_again_has_lost_data() -> None:
    it = Presence("b")
    assert not it.learn(answer("b", added=1), 0.0)
    assert not it.learn(answer("b"), 1.0)
    assert it.learn(answer("b", added=1), 2.0)
    assert not it.learn(answer("b"), 3.0)
