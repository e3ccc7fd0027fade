"""`${command:/path arguments}`: a secret that a program prints, as in the `credential_process` of other tools.

Runs one program safely: no shell, a time-out, its own process group, and an environment without the variables that
the configuration reads. The output is text, or a JSON object of which `#member` selects one string. The object's
`Expiration` (ISO 8601, as AWS writes it) decides when the program runs again. The output is never shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.config.read.clean import without_line_ends
from gateway.early import deferred_stop
from gateway.model import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT = 10.0
"""Seconds that a program may take."""
MAX_OUTPUT = 64 * KIB
KEEP = 5.0
"""Seconds for which an output is reused, so that several members of one object run the program once."""
REFRESH = 300.0
"""Seconds after which a program runs again, because its secret may have changed."""
AHEAD = 60.0
"""Seconds before the `Expiration` of a secret at which its program runs again."""
MEMBER = re.compile(r"(?P<line>.*)#(?P<path>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)", re.DOTALL)
OURS = ("LISTEN_", "NOTIFY_", "WATCHDOG_", "GATEPASS_")
"""Prefixes of variables that are meant for the gateway's own process."""


class CommandError(Exception):
    """A program gave no secret; the message says why and never contains the output."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a program, and when to run it again (monotonic instants)."""

    text: str = field(repr=False)
    at: float
    again_at: float


class Commands:
    """The programs of a configuration and their latest outputs, kept from one reading to the next."""

    def __init__(self, *, timeout: float = TIMEOUT, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._now = now
        self._outputs: dict[str, Output] = {}
        self._used: set[str] = set()
        self._hidden: frozenset[str] = frozenset()
        self._running: set[int] = set()
        """Process groups of the programs that run now."""

    def begin(self, variables: frozenset[str]) -> None:
        """Begin a reading; only programs that run in it count in `again_after`.

        `variables` are those that the configuration names, in any file, used or not. From now on no program gets them:
        a variable that an earlier configuration named still holds its secret.
        """
        self._used = set()
        self._hidden |= variables

    @property
    def again_after(self) -> float | None:
        """Return the seconds until a program should run again; None when none is in use."""
        due = [self._outputs[line].again_at for line in self._used if line in self._outputs]
        return max(1.0, min(due) - self._now()) if due else None

    def value(self, reference: str, environ: Mapping[str, str]) -> str:
        """Return the secret that `reference`, the text after `command:`, names. Raises CommandError."""
        member = MEMBER.fullmatch(reference)
        line = member["line"] if member else reference
        self._used.add(line)
        kept = self._outputs.get(line)
        if kept is None or self._now() - kept.at > KEEP or kept.again_at <= self._now():
            kept = self._outputs[line] = self._run(line, environ)
        return _member(kept.text, member["path"]) if member else without_line_ends(kept.text)

    def stop(self) -> None:
        """Kill every program that runs, because the gateway ends. May be called from any thread."""
        for group in tuple(self._running):
            _kill(group)

    def _run(self, line: str, environ: Mapping[str, str]) -> Output:
        try:
            arguments = shlex.split(line)
        except ValueError as error:
            raise CommandError(f"the command line has unbalanced quotes: {error}") from None
        if not arguments or not arguments[0].startswith("/"):
            raise CommandError("a command must begin with the absolute path of its program: ${command:/path arguments}")
        clean = {k: v for k, v in environ.items() if k not in self._hidden and not k.startswith(OURS)}
        text = _output(arguments, clean, self._timeout, self._running)
        now = self._now()
        return Output(text, now, now + _good_for(text))


def _output(arguments: list[str], environ: Mapping[str, str], timeout: float, running: set[int]) -> str:
    """Run the program and return what it printed; `running` holds its process group meanwhile."""
    program = arguments[0]
    try:
        with deferred_stop():
            process = subprocess.Popen(  # noqa: S603 - the operator's own configuration names it
                arguments,
                env=dict(environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # may contain secrets
                start_new_session=True,
            )
            running.add(process.pid)
    except ValueError:
        raise CommandError("the command line contains a NUL character") from None
    except OSError as error:
        raise CommandError(f"{program} cannot be run: {(error.strerror or 'unknown error').lower()}") from None
    with process:
        try:
            raw, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            process.communicate()
            raise CommandError(f"{program} did not finish within {timeout:g} s") from None
        except BaseException:  # a signal ends the gateway while it starts
            _kill(process.pid)
            raise
        finally:
            running.discard(process.pid)
    if process.returncode:
        raise CommandError(f"{program} exited with status {process.returncode}; run it by hand to see why")
    if not raw.strip() or len(raw) > MAX_OUTPUT:
        raise CommandError(f"{program} printed nothing" if not raw.strip() else f"{program} printed more than 64 KiB")
    try:
        return raw.decode("utf-8")
    except ValueError:
        raise CommandError(f"{program} printed something that is not UTF-8") from None


def _kill(group: int) -> None:
    """Kill a whole process group, because a child would keep the pipe open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _member(text: str, path: str) -> str:
    member: Any = _object(text)
    if member is None:
        raise CommandError(f"the output is no JSON object, so it has no member {path}")
    for name in path.split("."):
        member = member.get(name) if isinstance(member, dict) else None
    if not isinstance(member, str) or not member:
        raise CommandError(f"the output has no text at {path}")
    return member


def _good_for(text: str) -> float:
    """Return the seconds until the program should run again."""
    expiration = (_object(text) or {}).get("Expiration")
    if not isinstance(expiration, str):
        return REFRESH
    try:
        at = datetime.fromisoformat(expiration)
    except ValueError:
        return REFRESH
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(1.0, min(REFRESH, left - AHEAD))
