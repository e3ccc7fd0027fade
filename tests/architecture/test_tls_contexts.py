"""Every TLS context is made in one module, so that no connection misses what another one was taught."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKERS = {"SSLContext", "create_default_context", "_create_unverified_context", "load_cert_chain", "wrap_socket"}


def makers_called(source: str) -> set[str]:
    """Return the functions called in this source that make a TLS context or load a private key."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return MAKERS & set(names)


@pytest.mark.parametrize("path", sorted((ROOT / "gateway").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_module_makes_tls_contexts(path: Path) -> None:
    made = makers_called(path.read_text(encoding="utf-8"))
    assert not made or path == ROOT / "gateway" / "tls.py", f"{path.name} calls {made}; see gateway/tls.py"


def test_the_reader_sees_a_context_however_it_is_made() -> None:
    for source in ("ssl.SSLContext(1)", "create_default_context()", "x.load_cert_chain('a')"):
        assert makers_called(source)
