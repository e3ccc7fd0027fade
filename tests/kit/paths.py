"""Tries random rules with random spellings of paths that they deny; no lenient server may get such a path."""

from __future__ import annotations

from random import Random

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gateway.access.rules import Rules
from gateway.errors import ClientForbidden, PathRefused
from gateway.patterns import pattern_mistake
from gateway.proxy.routing import PathRules, check_path
from tests.kit import lenient


def passes(path: str, deny: tuple[str, ...]) -> bool:
    """Whether a route and a client with these rules admit a path; both must agree."""
    if not path.startswith("/"):  # after a route's prefix it would not be a path of that route
        return False
    try:
        plain = check_path(path)
        PathRules((), deny).check(path, plain=plain)
    except PathRefused:
        return False
    Rules("web", [], list(deny)).check("GET", path, plain=plain)
    return True


PIECES = ["a", "b", "ab", "admin", "v1", "A", "%20", "x y".replace(" ", "%20"), ";v=1", ".", "-", "%41", "+"]
PATTERN = st.lists(
    st.one_of(
        st.sampled_from(["*", "**", "*-*", "a*", "*b", "admin", "a%20b", "s;v=1", "x.y"]),
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
    ),
    min_size=1,
    max_size=4,
).map(lambda segments: "/" + "/".join(segments))


def no_lenient_server_sees_it(pattern: str, seed: int) -> None:
    """Check the property for one rule and one spelling of a path that it denies."""
    if pattern_mistake(pattern) is not None:
        return
    random = Random(seed)
    path = lenient.spelling(lenient.named_by(pattern, random), random)
    try:
        through = passes(path, (pattern,))
    except ClientForbidden as error:
        raise AssertionError(f"the route lets {path} through, the client's rule does not") from error
    assert not through or lenient.reaches(pattern, path) is None, (pattern, path, lenient.reaches(pattern, path))


def search(start: int, count: int) -> None:
    """Try `count` rules and spellings, always the same for one `start`; raise AssertionError if one is admitted."""
    tried = given(PATTERN, st.integers(0, 2**32))(no_lenient_server_sees_it)
    seed(start)(settings(max_examples=count, deadline=None, database=None)(tried))()
