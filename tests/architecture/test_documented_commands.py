"""Every `gatepass ...` that a page shows is a command that exists, with options and arguments that it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "grafana").glob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
    ]
    if "node_modules" not in path.parts and path.name != "CHANGELOG.md"
)
NO_COMMAND = {"a", "in", "is", "with", "user", "admin", "serves"}
"""Words that stand behind the name in other uses of it, as `useradd gatepass`."""
SHELL = re.compile(r"\s(?:[|><&;]|&&|\|\||2>|#|\\$).*")
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
CALL = re.compile(r"(?:^|[\s(;&|])gatepass ([a-z][^\n`]*)")


def calls(page: str) -> set[str]:
    """Return the arguments behind each `gatepass` in blocks and inline code of a page."""
    blocks = "\n".join(BLOCK.findall(page)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if "docker run" not in line and "useradd" not in line]
    lines += INLINE.findall(BLOCK.sub("", page))
    found = {SHELL.sub("", match[1]).strip().rstrip(")…").strip() for line in lines for match in CALL.finditer(line)}
    return {call for call in found if call.split()[0] not in NO_COMMAND and "/" not in call.split()[0]}


DOCUMENTED = sorted(
    {(path.relative_to(ROOT).as_posix(), call) for path in PAGES for call in calls(path.read_text("utf-8"))}
)


def parse(arguments: list[str]) -> None:
    """Parse as the command line does, without running anything. Raises click.UsageError, not for a missing argument."""
    command: click.Command = main
    ctx = click.Context(main, info_name="gatepass")
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            return
        name, *arguments = arguments
        found = command.get_command(ctx, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, ctx = found, click.Context(found, parent=ctx, info_name=name)
    try:
        command.parse_args(ctx, arguments)
    except (click.MissingParameter, click.BadParameter):
        pass  # pages shorten calls, and write placeholders for values
    except click.exceptions.Exit:
        pass


@pytest.mark.parametrize(("page", "call"), DOCUMENTED, ids=lambda value: value)
def test_every_call_on_a_page_exists(page: str, call: str) -> None:
    try:
        parse([word for word in shlex.split(call.replace("’", "'")) if word not in {"…", "..."}])
    except click.UsageError as error:
        pytest.fail(f"{page}: gatepass {call}: {error.format_message()}")


@pytest.mark.parametrize("command", sorted({call.split()[0] for _, call in DOCUMENTED}))
def test_every_command_on_a_page_explains_itself(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage: gatepass" in result.output or "Usage: main" in result.output


def test_the_reader_sees_calls_in_blocks_and_in_text_and_a_call_that_does_not_exist_fails() -> None:
    page = "Run `gatepass check NAME`.\n```sh\nFOO=1 gatepass serve -c a.yaml  # runs\ngatepass nothing\n```\n"
    assert calls(page) == {"check NAME", "serve -c a.yaml", "nothing"}
    for wrong in (["check", "NAME"], ["nothing"], ["serve", "--nothing"]):
        with pytest.raises(click.UsageError):
            parse(wrong)
    assert len(DOCUMENTED) > 30


SAYS = sorted([*PAGES, *(ROOT / "gateway").rglob("*.py"), *(ROOT / "deploy").rglob("*.y*ml"), ROOT / "Makefile"])


@pytest.mark.parametrize("path", SAYS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_is_told_to_install_a_project_of_our_name_from_an_index(path: Path) -> None:
    """Gatepass is not published there; whatever an index has under this name is somebody else's."""
    assert not re.search(r"pip install ['\"]?gatepass\b", path.read_text(encoding="utf-8"))
