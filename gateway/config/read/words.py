"""Mistakes of YAML in plain words: a value of the wrong type, and a line that is not YAML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaml.error import MarkedYAMLError

MAPPING = "must be a mapping: {key: value}"
LIST = "must be a list: [a, b]"
TEXT = "must be text; put it in quotes"
STARTS = re.compile(r"found character '(.)' that cannot start any token|but found '(\*)'")
ESCAPE = re.compile(r"unknown escape character '(.)'")
CROWDED = re.compile(r"\s*(?:- +)?[\w.-]+:(?!//)[^\s]")
"""A line such as `key:value`, which YAML reads as one word."""
UNCLOSED = re.compile(r"expected ',' or '([\]}])'")
OPENED = {"]": "[", "}": "{"}
UNMATCHED = re.compile(r"expected <block end>, but found '([\]}])'")
REFERENCE_QUOTES = '`${…}` inside braces or brackets must be in quotes: {a: "${X}"}'


def in_words(error: MarkedYAMLError, text: str) -> tuple[int, str]:  # noqa: PLR0911 - one error after the other
    """Return the line of a mistake (1 is the first) and what is wrong with it."""
    problem = error.problem or error.context or "is not YAML"
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return 0, problem
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    began = error.context_mark.line + 1 if error.context_mark else mark.line + 1
    if line[max(0, mark.column - 1) : mark.column + 1] == "${":
        return mark.line + 1, REFERENCE_QUOTES
    if "\\t" in problem and "cannot start" in problem:
        return mark.line + 1, "contains a tab; YAML wants blanks for indentation and between words"
    if problem == "mapping values are not allowed here":
        return _second_colon(lines, mark.line, mark.column)
    if problem == "could not find expected ':'":
        return began, "needs a colon and a blank after the key: `key: value`"
    if "end of stream" in problem and "quoted scalar" in (error.context or ""):
        return began, "a quote is opened here and never closed"
    return mark.line + 1, _by_problem(problem, began)


def _second_colon(lines: list[str], at: int, column: int) -> tuple[int, str]:
    line = lines[at]
    if ": " in line[: max(0, column)].rstrip(":"):
        return at + 1, "a value that contains `: ` must be in quotes"
    above = next((number for number in range(at - 1, -1, -1) if lines[number].strip()), None)
    if above is None:
        return at + 1, "has two colons"
    if CROWDED.match(lines[above]):
        return above + 1, "needs a blank after the colon: `key: value`"
    return at + 1, f"is indented more than line {above + 1}, which has a value already"


def _by_problem(problem: str, began: int) -> str:  # noqa: PLR0911 - one error after the other
    if match := UNCLOSED.search(problem):
        return f"the `{OPENED[match[1]]}` of line {began} is not closed, or a comma is missing"
    if match := UNMATCHED.search(problem):
        return f"has a `{match[1]}` that closes nothing"
    if problem.startswith("expected <block end>"):
        return "is indented like no line above it"
    if match := STARTS.search(problem):
        return f"a value that begins with `{match[1] or match[2]}` must be in quotes"
    if match := ESCAPE.search(problem):
        return f"in double quotes `\\{match[1]}` means nothing; use single quotes"
    if "another document" in problem:
        return "begins a second document; only one is read"
    if "chomping or indentation indicators" in problem:
        return "text after `|` or `>` begins on the next line"
    return problem
