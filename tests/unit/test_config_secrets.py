"""A secret at a wrong key is still a secret: no message about any key shows what stood there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from gateway.config import load
from gateway.config.reference import Key, keys
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LEAK = "CANARY-9f8e7d"
KEYS = keys()


def configuration(key: Key, value: object) -> dict[str, object]:
    """A configuration whose only content at `key` is `value`, valid around it as far as that goes."""
    root: dict[str, object] = {}
    steps = key.path.replace("[]", ".0").replace("*", "a").split(".")
    inner: object = value
    for step in reversed(steps):
        inner = [inner] if step == "0" else {step: inner}
    root.update(inner if isinstance(inner, dict) else {})
    root.setdefault("credentials", {"a": {"static": {"token": "t"}}})
    root.setdefault("routes", {"a": {"credential": "a", "upstream": "https://h.example"}})
    return root


@pytest.mark.parametrize("shape", ["{}", "Bearer {} x", "https://u:{}@h.example/", "-1{}", "\x00{}"])
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_no_message_shows_what_a_variable_held(key: Key, shape: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(key, "${LEAK}")))
    try:
        told = repr(load([path], environ={"LEAK": shape.format(LEAK)}).credentials)
    except ConfigError as error:
        told = f"{error} {error!r} {error.problems!r} {error.__cause__!r}"
    assert LEAK not in told


@pytest.mark.parametrize("value", [LEAK, [LEAK], {"x": LEAK}], ids=["text", "list", "mapping"])
@pytest.mark.parametrize("key", [k for k in KEYS if k.path.startswith("credentials.")], ids=lambda key: key.path)
def test_no_message_shows_a_literal_value_below_a_credential(key: Key, value: object, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(key, value)))
    try:
        load([path], environ={})
        told = ""
    except ConfigError as error:
        told = f"{error} {error!r} {error.problems!r}"
    assert LEAK not in told


def test_a_validation_error_keeps_no_trace_of_its_input(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "credentials: {a: {static: {token: [CANARY-1]}}}\nroutes: {a: {credential: a, upstream: 'https://h.example'}}"
    )
    with pytest.raises(ConfigError) as caught:
        load([path], environ={})
    chained = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "CANARY" not in "".join(f"{error} {error!r}" for error in chained)
