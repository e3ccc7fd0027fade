"""Targets: what is refused, what passes byte for byte, and which route a path belongs to."""

from __future__ import annotations

import pytest

from gateway.errors import PathRefused, RouteNotFound
from gateway.proxy.routing import PathRules, RouteTable, check_path, split_target

TABLE = RouteTable([("/idfy", "idfy"), ("/idfy/v2", "v2"), ("/uqudo", "uqudo"), ("/a/b/c", "abc")])

DOTS = [".", "..", "%2e", "%2E", "%2e%2e", ".%2e", "%2E.", "%2e%2E"]
REFUSED = [
    *(f"/idfy/{dots}/x" for dots in DOTS),
    *(f"/idfy/{dots}" for dots in DOTS),
    *(f"/idfy/x/{dots}/../y" for dots in DOTS),
    *(f"/idfy/{dots};a=b/x" for dots in DOTS),
    *(f"/idfy/{dots}%2fx" for dots in DOTS),
    *(f"/idfy/x%2f{dots}" for dots in DOTS),
    *(f"/idfy/x%2F{dots}%2Fy" for dots in DOTS),
    *(f"/idfy/{dots}%5cx" for dots in DOTS),
    *(f"/idfy/{dots}\\x" for dots in DOTS),
    *(f"/x/{dots}/idfy/a" for dots in DOTS),
    "//idfy/a", "/idfy//a", "/idfy/a//", "///", "//evil.example/idfy", "/idfy/a//../b", "/idfy/%2f/../x",
    "/idfy\\a", "/\\idfy", "\\idfy", "/idfy/a%5cb", "/idfy/a%5Cb", "/idfy/a\\b",
    "/idfy/%252e%252e/a", "/idfy/%252e", "/idfy/%252f", "/idfy/%25252e", "/idfy/%255c", "/idfy/%2500", "/idfy/%2541",
    "/idfy/%00", "/idfy/a%00b", "/idfy/%0d%0aX:y", "/idfy/%0a", "/idfy/%09", "/idfy/%1f", "/idfy/%7f",
    "/idfy/a b", "/idfy/a\tb", "/idfy/a\x00b", "/idfy/a\x7fb", "/idfy/caf\xe9", "/idfy/\u2025",
    "/idfy/%", "/idfy/%2", "/idfy/%zz", "/idfy/%u002e", "/idfy/%2g", "/idfy/a%",
    "/idfy/%c0%ae%c0%ae/a", "/idfy/%c1%9c", "/idfy/%e0%80%ae", "/idfy/%e0%80%af", "/idfy/%f0%80%80%ae", "/idfy/%C0%AF",
    "/idfy/..;/a", "/idfy/.;/a", "/idfy/..%3b/a", "/idfy/..;x=y", "/..", "/.", "/../idfy", "/./idfy/a",
]  # fmt: skip

PASSED = [
    "/idfy", "/idfy/", "/idfy/a", "/idfy/a/", "/idfy/a.b", "/idfy/...", "/idfy/a..b", "/idfy/..a",
    "/idfy/.well-known/x",
    "/idfy/a%2Fb", "/idfy/a%2fb", "/idfy/did:hid:testnet:z6Mk%23key-1", "/idfy/sch:hid:testnet:z6:1.0", "/idfy/%20",
    "/idfy/a+b", "/idfy/a;v=1", "/idfy/a,b", "/idfy/a=b", "/idfy/a@b", "/idfy/~a", "/idfy/%E2%82%AC", "/idfy/%25",
    "/idfy/100%25", "/idfy/a%3Fb", "/idfy/a%26b", "/idfy/(a)", "/idfy/a!b*c'd", "/idfy/a|b", "/idfy/{a}", "/idfy/%41",
]  # fmt: skip


def test_the_corpus_is_large_enough() -> None:
    assert len(set(REFUSED)) >= 100


@pytest.mark.parametrize("path", REFUSED)
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        check_path(path)


@pytest.mark.parametrize("path", PASSED)
def test_every_other_path_passes(path: str) -> None:
    check_path(path)
    assert TABLE.match(path)[1] == path.removeprefix("/idfy")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/idfy", ("idfy", "")),
        ("/idfy/", ("idfy", "/")),
        ("/idfy/v2", ("v2", "")),
        ("/idfy/v2/x", ("v2", "/x")),
        ("/idfy/v20/x", ("idfy", "/v20/x")),
        ("/a/b/c/d", ("abc", "/d")),
    ],
)
def test_the_longest_prefix_wins_on_whole_segments(path: str, found: tuple[str, str]) -> None:
    assert TABLE.match(path) == found


@pytest.mark.parametrize(
    "path", ["/", "/idfyX", "/IDFY/a", "/Idfy", "/id", "/a/b", "/%69dfy/a", "/idfy;x/a", "/idfy%2Fa"]
)
def test_no_other_path_belongs_to_a_route(path: str) -> None:
    with pytest.raises(RouteNotFound):
        TABLE.match(path)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b=c", ("/a", "?b=c")),
        ("/a?", ("/a", "?")),
        ("/a?b=/../c", ("/a", "?b=/../c")),
        ("http://evil.example/idfy/a?b", ("/idfy/a", "?b")),
        ("HTTPS://evil.example:99/idfy", ("/idfy", "")),
        ("http://evil.example", ("/", "")),
        ("http://evil.example?x", ("/", "?x")),
        ("http://user@evil.example/idfy", ("/idfy", "")),
        ("http://u:p@[2001:db8::1]:8080/idfy", ("/idfy", "")),
        ("http://evil.example:/idfy", ("/idfy", "")),
        ("http://127.0.0.1/idfy@x", ("/idfy@x", "")),
    ],
)
def test_the_authority_of_a_target_is_ignored_and_its_query_kept(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize(
    "target",
    ["*", "idfy/a", "", "evil.example:443", "ftp://x/idfy", "/a#b", "/a?b#c", "/a?b\x01", "/a?\xe9", "/a?b c\x7f",
     "http:///idfy", "http://", "http:/idfy", "http://:80/idfy", "http://user@/idfy", "http://a b/idfy", "http://[::1/idfy",
     "http://a:b/idfy", "http://a@b@c/idfy", "http://a\\b/idfy", "http://a\xe9/idfy", "http://?x", "http://[]/idfy"],
)  # fmt: skip
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(PathRefused):
        split_target(target)


DENIED = [
    "/oauth", "/oauth/", "/oauth/connect/token", "/OAuth/Connect/Token", "/oauth%2fconnect", "/%6fauth/x", "/oauth;x/y",
    "/oauth/connect;jsessionid=1/token", "/api/v1/app/oauth", "/api/v1/app/OAUTH/", "/api/x/secret",
]  # fmt: skip


@pytest.mark.parametrize("path", DENIED)
def test_deny_reads_a_path_as_the_most_lenient_server_would(path: str) -> None:
    rules = PathRules((), ("/oauth/**", "/api/v1/app/oauth", "/api/*/secret"))
    with pytest.raises(PathRefused):
        rules.check(path)


@pytest.mark.parametrize("path", ["/", "/oauthx", "/api/oauth", "/api/v1/app/oauth2", "/api/a/b/secret"])
def test_deny_spares_its_neighbours(path: str) -> None:
    PathRules((), ("/oauth/**", "/api/v1/app/oauth", "/api/*/secret")).check(path)


ALLOWED = {
    "/scan": True,
    "/scan/1": False,
    "/Scan": False,
    "/info/a": True,
    "/info/a/b": False,
    "/info/a%2Fb": False,
    "/x": False,
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_what_is_not_allowed_is_refused(path: str, allowed: bool) -> None:
    rules = PathRules(("/scan", "/info/*"), ())
    if allowed:
        rules.check(path)
    else:
        with pytest.raises(PathRefused):
            rules.check(path)


def test_deny_wins_over_allow() -> None:
    with pytest.raises(PathRefused):
        PathRules(("/**",), ("/oauth/**",)).check("/oauth/token")
