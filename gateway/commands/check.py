"""`check` and `token`: validate the configuration, and fetch a real token per credential.

The tokens are discarded; only their fingerprints are printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from gateway.commands.config import require
from gateway.commands.options import config_option, console, example, no_secrets_option, table
from gateway.errors import GatepassError, StoreAway, TokenError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.model import Config, Credential, StoreConfig, Token

probe_option = click.option(
    "--probe",
    is_flag=True,
    help="Also request the vendor's identity endpoint, where one is configured; prints only its status.",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one credential: a row of the table."""

    credential: str
    status: str
    good: bool
    life: str = "-"
    expiry: str = "-"
    skew: str = "-"
    fingerprint: str = "-"
    probe: str = "-"
    reason: str = ""


@click.command(epilog=example("gatepass check", "gatepass check --offline --show", "gatepass check --probe"))
@config_option
@click.option("--offline", is_flag=True, help="Only validate; connect to nothing.")
@no_secrets_option
@click.option("--show", is_flag=True, help="Print the merged configuration, profiles applied and secrets masked.")
@probe_option
@click.pass_context
def check(
    ctx: click.Context, *, paths: tuple[Path, ...], offline: bool, no_secrets: bool, show: bool, probe: bool
) -> None:
    """Validate the configuration, then fetch a real token for each credential.

    Prints the lifetime of each token, where it comes from, and how far the vendor's clock differs from ours. With a
    shared store, connects to it and prints what it is.
    --no-secrets includes --offline. Exit status 1 when a token was not issued or the store is of no use, 2 when the
    configuration has a mistake.
    """
    from gateway.config import load, merged

    config = load(paths, placeholders=no_secrets)
    if show:
        click.echo(merged(paths, placeholders=no_secrets), nl=False)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(summary(config), err=True)
    if not offline and not no_secrets:
        found = judge_store(config.store) if config.store is not None else 0
        tokens = judge(config.credentials.values(), probe=probe, allow_addresses=config.allow_addresses)
        ctx.exit(max(found, tokens))


@click.command(epilog=example("gatepass token NAME", "gatepass token NAME --probe"))
@config_option
@click.argument("name")
@probe_option
@click.pass_context
def token(ctx: click.Context, paths: tuple[Path, ...], name: str, probe: bool) -> None:
    """Check one credential.

    Fetches a token for the credential NAME, as `check` does for all. The token itself is never printed.
    """
    from gateway.config import load

    config = load(paths)
    require(name, config.credentials, "credential")
    ctx.exit(judge([config.credentials[name]], probe=probe, allow_addresses=config.allow_addresses))


def summary(config: Config) -> str:
    """Return one line that says what was read."""
    counts = [(len(config.routes), "route"), (len(config.credentials), "credential"), (len(config.clients), "client")]
    if config.planes is not None:
        counts.append((len(config.planes.ask) + len(config.planes.push), "plane"))
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    return f"the configuration is valid: {words}"


def judge(credentials: Iterable[Credential], *, probe: bool, allow_addresses: tuple[str, ...] = ()) -> int:
    """Try the credentials at once, print the table, and return the exit status."""
    import asyncio

    async def all_of_them() -> list[Verdict]:
        return await asyncio.gather(
            *(verdict(credential, probe=probe, allow_addresses=allow_addresses) for credential in credentials)
        )

    verdicts = asyncio.run(all_of_them())
    show_verdicts(verdicts, probe=probe)
    return 0 if all(one.good for one in verdicts) else 1


def judge_store(config: StoreConfig) -> int:
    """Connect to the shared store, print what was found, and return the exit status."""
    import asyncio

    from gateway.store.look import look

    try:
        found = asyncio.run(look(config))
    except StoreAway as error:
        click.echo(f"store: {config.server} is of no use: {error}")
        return 1
    counts = ((found.members, "member"), (found.records, "record"))
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    seen = "" if found.complete else " (not all records were looked at)"
    click.echo(f"store: {found.engine} at {config.server}, answers in {found.latency * 1000:.1f} ms, {words}{seen}")
    if found.undecryptable:
        click.echo(
            f"store: {found.undecryptable} of {found.records} records cannot be opened: "
            "compare `store.keys` with those of the other instances"
        )
    return 1 if found.undecryptable else 0


async def verdict(credential: Credential, *, probe: bool, allow_addresses: tuple[str, ...] = ()) -> Verdict:
    """Fetch one token and, if asked, show it to the vendor's identity endpoint."""
    from gateway.clock import SystemClock
    from gateway.tokens import fetch_once, probe_once

    try:
        token, facts = await fetch_once(credential, clock=SystemClock(), allow_addresses=allow_addresses)
    except TokenError as error:
        return Verdict(credential.name, error.code, good=False, reason=error.reason or error.detail)
    answer, good = "-", True
    if probe and credential.probe is not None:
        try:
            status = await probe_once(credential, token, allow_addresses=allow_addresses)
        except GatepassError as error:
            answer, good = str(error), False
        else:
            answer, good = str(status), 200 <= status < 300  # noqa: PLR2004 - the 2xx class, RFC 9110 §15.3
    note = _contradiction(credential, token) if credential.grants else ""
    return Verdict(
        credential.name,
        facts.state,
        good=good,
        life="never ends" if math.isinf(token.life) else f"{token.life:.0f} s",
        expiry=token.expiry_source,
        skew="-" if facts.skew is None else f"{facts.skew:+.1f} s",
        fingerprint=token.fingerprint or token.value.fingerprint,
        probe=answer,
        reason=note,
    )


def _contradiction(credential: Credential, token: Token) -> str:
    """Return where the answer differs from the recipe although the token is usable."""
    response = credential.grants[0].response
    expires = response.expires
    if token.expiry_source == expires.kind:
        return ""
    place = f"at `{expires.path}` (`grant.response.expires`)" if expires.path else "in the token's `exp`"
    used = "the token's own `exp`" if token.expiry_source == "jwt" else f"the fallback of {response.fallback:g} s"
    return f"the answer has no usable lifetime {place}; {used} is used"


def show_verdicts(verdicts: list[Verdict], *, probe: bool) -> None:
    """Print one row per credential; the reason has a line of its own, so that no terminal cuts it."""
    columns = [
        "credential",
        "status",
        "life",
        "expiry from",
        "clock skew",
        "fingerprint",
        *(["probe"] if probe else []),
    ]
    shown = table(*columns)
    for one in verdicts:
        status = f"[{'green' if one.good else 'red'}]{one.status}[/]"
        row = [one.credential, status, one.life, one.expiry, one.skew, one.fingerprint, one.probe]
        shown.add_row(*row[: len(columns)])
    console().print(shown)
    for one in verdicts:
        if one.reason:
            click.echo(f"{one.credential}: {one.reason}")
