"""The rights that `docs/scaling.md` gives the gateway's user in the store."""

from __future__ import annotations

import re

from tests.kit.configuration import ROOT

PASSWORD = "CANARY-acl-password"
RIGHTS = re.search(r"^ *ACL SETUSER gatepass (.*)$", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE)


def rights(namespace: str = "prod") -> list[str]:
    """Return the documented rules for `ACL SETUSER`, with a password and for a namespace."""
    assert RIGHTS is not None
    return RIGHTS[1].replace(">PASSWORD", f">{PASSWORD}").replace("gp1:prod:", f"gp1:{namespace}:").split()


def commands() -> list[str]:
    """Return the commands that the user may send or run in scripts."""
    return [rule[1:] for rule in rights() if rule.startswith("+")]
