"""The kinds of value, each by its table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from gateway.addresses import is_loopback
from gateway.config.keys import http, network, numbers
from gateway.model import Address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (3, 3.0),
        (0.25, 0.25),
        ("45s", 45.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1.5 h", 5400.0),
        ("7", 7.0),
    ],
)
def test_a_duration_is_seconds_or_has_a_unit(text: object, seconds: float) -> None:
    assert numbers.duration(text) == seconds


@pytest.mark.parametrize(
    "text", [-1, "-1s", "s", "1 week", "", True, None, float("inf"), float("nan"), "1e3s", "٣s", [1]]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(PydanticCustomError, match="must be a duration"):
        numbers.duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (10, 10),
        ("32MiB", 32 << 20),
        ("64KiB", 64 << 10),
        ("1GiB", 1 << 30),
        ("2MB", 2_000_000),
        ("5 KB", 5000),
        ("9B", 9),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(text: object, size: int) -> None:
    assert numbers.size(text) == size


@pytest.mark.parametrize("text", [-1, "32 mib", "1.5MiB", 1.5, "", True, None, "MiB", "9" * 4301])
def test_anything_else_is_no_size(text: object) -> None:
    with pytest.raises(PydanticCustomError, match="must be a size"):
        numbers.size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:8080", Address("::1", 8080)),
        (":8080", Address("0.0.0.0", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("gateway.internal:65535", Address("gateway.internal", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert network.parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["8080", "a:b", "::1:8080", "1.2.3.4.5:80", "h:65536", "[h]:80", "http://h:80", "a b:80", "[::1:80"]
)
def test_anything_else_is_no_address(text: str) -> None:
    assert network.parse_address(text) is None


PLAIN = {
    "http://127.0.0.1:9/x": True,
    "http://[::1]/x": True,
    "http://localhost/x": True,
    "http://10.1.2.3/x": True,
    "http://192.168.0.1/x": True,
    "http://172.16.0.1/x": True,
    "http://[fd00::1]/x": True,
    "http://sandbox:9101/x": True,
    "http://auth.internal/x": True,
    "http://auth.local/x": True,
    "http://a.localhost/x": True,
    "http://a.test/x": True,
    "http://169.254.169.254/x": False,
    "http://[fe80::1]/x": False,
    "http://0.0.0.0/x": False,
    "http://[::ffff:169.254.169.254]/x": False,
    "http://[::ffff:8.8.8.8]/x": False,
    "http://[::ffff:10.1.2.3]/x": True,
    "http://[::ffff:127.0.0.1]/x": True,
    "http://[64:ff9b::8.8.8.8]/x": False,
    "http://[64:ff9b:1::169.254.169.254]/x": False,
    "http://[2002:a9fe:a9fe::]/x": False,
    "http://[2001:0:5db8:d822:0:0:80ff:fffe]/x": False,
    "http://[fd00:ec2::254]/x": False,
    "http://192.0.0.192/x": False,
    "http://168.63.129.16/x": False,
    "http://8.8.8.8/x": False,
    "http://172.32.0.1/x": False,
    "http://auth.example.com/x": False,
    "http://internal.example.com/x": False,
    "http://evil.test.example.com/x": False,
    "HTTP://auth.example.com/x": False,
}


@pytest.mark.parametrize(("text", "allowed"), PLAIN.items(), ids=PLAIN)
def test_http_without_tls_is_only_for_hosts_that_are_not_public(text: str, allowed: bool) -> None:
    assert (http.url_mistake(text) is None) is allowed


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https:///x",
        "ftp://h/x",
        "h/x",
        "https://u@h/x",
        "https://u:p@h/x",
        "https://@h/x",
        "https://h/x#f",
        "https://h/x#",
        "https://h/x?a=b",
        "https://h/x?",
        "https://h:0/x",
        "https://h:99999/x",
        "https://h/../x",
        "https://h/%2e%2E/x",
        "https://h/a b",
        "https://h\\x/",
        "https://hä.example/",
        "https://h/ä",
        "https://[::1/x",
        "https://1.2.3/x",
        "https://-h.example/x",
        "https://h..example/x",
        "https://h/{tenant}",
        " https://h/x",
        "https://h/x\n",
    ],
)
def test_a_url_that_could_mean_two_things_is_refused(text: str) -> None:
    assert http.url_mistake(text) is not None


@given(st.text())
def test_no_text_makes_the_url_check_raise(text: str) -> None:
    assert http.url_mistake(text) is None or isinstance(http.url_mistake("https://" + text), str | None)


@pytest.mark.parametrize("prefix", ["/a", "/a/b", "/a.b", "/~a/-_", "/..a"])
def test_a_prefix_is_plain_segments(prefix: str) -> None:
    assert http.path_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["", "/", "a", "/a/", "//a", "/.", "/..", "/a/./b", "/a%20", "/a?b", "/ä", "/a/.."])
def test_anything_else_is_no_prefix(prefix: str) -> None:
    with pytest.raises(PydanticCustomError):
        http.path_prefix(prefix)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
