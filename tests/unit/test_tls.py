"""TLS contexts: the same care wherever one is made."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from pathlib import Path

MAKERS = {
    "the data port": "tls.server_context(model.ServerTLS(pair[0], pair[1]))",
    "an upstream": "tls.UpstreamContexts().get("
    "model.Upstream('https', 'v.test', 443, client_certificate=model.ClientCertificate(*pair, '')))",
    "a token endpoint": "tls.client_context(None, model.ClientCertificate(*pair, ''))",
    "the check of a configuration": "tls.check_pair(*pair)",
}


@pytest.mark.parametrize("made", MAKERS.values(), ids=MAKERS)
def test_a_key_with_a_passphrase_fails_and_asks_nobody_for_it(made: str, tmp_path: Path) -> None:
    """In a process with a terminal OpenSSL would prompt, and the gateway would stand still until somebody types."""
    leaf = trustme.CA().issue_cert("v.test")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"CANARY-passphrase"))
    (tmp_path / "key.pem").write_bytes(locked)
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    source = f"""
import os, pathlib, pty, sys
from gateway import model, tls
pair = pathlib.Path(sys.argv[1], "cert.pem"), pathlib.Path(sys.argv[1], "key.pem")
child, terminal = pty.fork()
if child:
    said = b""
    while True:
        try:
            said += os.read(terminal, 1000)
        except OSError:
            break
        if b"pass phrase" in said:
            sys.exit("asked for the passphrase")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and said.decode())
try:
    {made}
except OSError:
    sys.exit(0)
sys.exit("loaded")
"""
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
