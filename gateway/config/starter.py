"""The text of a first `config.yaml`, and the list of profiles that it can use.

The repository's `config.yaml` is this text for four vendors; a test compares them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from gateway.config.names import nearest
from gateway.config.read import profile as shipped
from gateway.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEAD = """\
# Gatepass: {count} behind one base URL. Apps call http://<listen>/<route>/<the vendor's own path>.
# Every key: docs/configuration.md. Check it: `gatepass check`. For fewer vendors: `gatepass init {init}`.

listen: ${{GATEPASS_LISTEN:-127.0.0.1:8080}}   # for apps; not on loopback, it needs `clients` or `access: open`
admin: ${{GATEPASS_ADMIN:-127.0.0.1:9090}}     # health, metrics and status, for operators

# clients:                                   # `gatepass keys new onboarding-web` prints a key and its hash
#   - name: onboarding-web
#     key_sha256: …
#     routes: [{first}]

credentials:                                 # a token recipe (profile) and its secrets
"""
ROUTES = """
routes:                                      # upstream, limits and denied paths come from the credential's profile
"""
PLAIN = re.compile(r"\$\{[\w:/.~+-]+\}")
"""References that need no quotes in YAML."""
NUMBERS = {1: "a vendor", 2: "two vendors", 3: "three vendors", 4: "four vendors", 5: "five vendors"}


def profiles() -> Mapping[str, str]:
    """Return the shipped profiles: name → one line of help."""
    return {name: shipped.profile(name).help for name in shipped.names()}


def starter(vendors: Sequence[str], secret_files: str | None = None) -> str:
    """Return the text of a configuration for the profiles named.

    Secrets are read from the environment, or from files in the folder `secret_files`.

    Raises ConfigError for a name that is no profile, and for none at all.
    """
    known = shipped.names()
    unknown = [
        Problem("profiles", 0, name, "no such profile" + nearest(name, known)) for name in vendors if name not in known
    ]
    if unknown or not vendors:
        raise ConfigError(unknown or [Problem("profiles", 0, "", "name at least one of " + ", ".join(known))])
    names = list(dict.fromkeys(vendors))
    head = HEAD.format(count=NUMBERS.get(len(names), f"{len(names)} vendors"), first=names[0], init=" ".join(names[:2]))
    blocks = "".join(_credential(name, secret_files) for name in names)
    return head + blocks + ROUTES + "".join(f"  {name}: {{credential: {name}}}\n" for name in names)


def _credential(name: str, secret_files: str | None) -> str:
    prefix = name.upper().replace("-", "_")
    lines = [f"  {name}:", f"    profile: {name}"]
    for param in shipped.profile(name).params.values():
        if param.required:
            variable = f"{prefix}_{param.name.upper()}"
            source = variable if secret_files is None else f"file:{secret_files.rstrip('/')}/{variable.lower()}"
            reference = f"${{{source}}}"
            value = param.example or (
                reference if PLAIN.fullmatch(reference) else json.dumps(reference, ensure_ascii=False)
            )
            lines.append(f"    {param.name}: {value}")
    return "\n".join(lines) + "\n"
