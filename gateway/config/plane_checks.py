"""Checks that `planes` fits the other sections, and its keys each other. Each adds its findings to `problems`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from gateway.config.names import nearest_or_all
from gateway.model import Address, SocketFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath

    from gateway.config.keys.file import FileSection
    from gateway.config.keys.planes import AskSection, PlanesSection
    from gateway.config.read.tree import Node, Path, Problems

PEER_CREDENTIALS = hasattr(socket, "SO_PEERCRED")
"""Whether this system reports the user who connects to a Unix socket."""


def planes_fit(root: Node, keys: FileSection, problems: Problems, *, complete: bool) -> None:
    """Run all checks of `planes`; unless `complete`, TLS files may be missing."""
    planes = keys.planes
    if planes is None:
        return
    if not planes.ask and not planes.push:
        _add(root, ("planes",), "has neither `ask` nor `push`: no proxy would get a token", problems)
    asked: dict[Path, Iterable[str]] = {("ask", name, "routes"): each.routes for name, each in planes.ask.items()}
    _named(root, "routes", asked, problems)
    pushed: dict[Path, Iterable[str]] = {
        ("push", name, "credentials"): each.credentials for name, each in planes.push.items()
    }
    _named(root, "credentials", pushed, problems)
    _directories_differ(root, planes, problems)
    _pushed_are_warm(root, planes, problems)
    _listener_fits(root, keys, planes, problems, complete=complete)
    _planes_are_told_apart(root, planes.ask, problems)
    if planes.ask and keys.access == "clients" and not root.at(("clients", 0)):
        hint = "add `clients` (`gatepass keys new NAME` makes a key), or set `access: open`"
        _add(root, ("planes", "ask"), f"without clients, only programs on this machine may call: {hint}", problems)


def _named(root: Node, section: str, given: Mapping[Path, Iterable[str]], problems: Problems) -> None:
    """Check that each name exists in its section, and that no list is empty."""
    entries = root.entries.get(section)
    known = {name for name, node in entries.entries.items() if node.value is not None} if entries is not None else set()
    for below, names in given.items():
        if not names:
            _add(root, ("planes", *below), "is empty: the proxy would get no token", problems)
        for index, name in enumerate(names):
            path: Path = ("planes", *below, index)
            node = root.at(path)
            shown = "of this name" if node is None or node.dynamic else repr(name)
            if name not in known:
                what = section.removesuffix("s")
                _add(root, path, f"there is no {what} {shown}{nearest_or_all(name, known)}", problems)


def _directories_differ(root: Node, planes: PlanesSection, problems: Problems) -> None:
    """Check that no two proxies have one folder, because they would remove each other's files."""
    owner: dict[FilePath, str] = {}
    for name, each in planes.push.items():
        if each.directory in owner:
            path: Path = ("planes", "push", name, "directory")
            _add(root, path, f"is already the folder of {owner[each.directory]}", problems)
        owner.setdefault(each.directory, name)


def _pushed_are_warm(root: Node, planes: PlanesSection, problems: Problems) -> None:
    """Check that pushed credentials are always kept warm, because no request would cause a fetch."""
    for name in dict.fromkeys(name for each in planes.push.values() for name in each.credentials):
        path: Path = ("credentials", name, "keep_warm")
        node = root.at(path)
        if node is not None and node.value is not None and node.value != "always":
            _add(root, path, "must be `always`, because planes.push has this credential", problems)


def _listener_fits(root: Node, keys: FileSection, planes: PlanesSection, problems: Problems, *, complete: bool) -> None:
    """Check that `listen` is set if it is used, and that each proxy can be identified there."""
    listen = planes.listen
    reporting = [name for name, each in planes.push.items() if each.uid is not None or each.certificates]
    if listen is None:
        if planes.ask:
            _add(root, ("planes", "ask"), "needs `planes.listen`, where these proxies connect", problems)
        for name in reporting:
            message = "needs `planes.listen`, where this proxy reports refused tokens"
            _add(root, ("planes", "push", name), message, problems)
    elif not planes.ask and not reporting:
        message = "nobody may connect there: add `planes.ask`, or `uid` or `certificates` in `planes.push`"
        _add(root, ("planes", "listen"), message, problems)
    elif isinstance(listen, SocketFile):
        _socket_fits(root, planes, problems)
    else:
        _address_fits(root, keys, planes, problems, complete=complete)


def _address_fits(root: Node, keys: FileSection, planes: PlanesSection, problems: Problems, *, complete: bool) -> None:
    if complete and planes.tls is None:
        hint = "a token must not cross a network in plain text: set `planes.tls`, or listen on a Unix socket"
        _add(root, ("planes", "listen"), hint, problems)
    elif complete and planes.tls is not None and planes.tls.client_ca is None:
        _add(root, ("planes", "tls"), "needs `client_ca`: proxies are authenticated by certificates", problems)
    if isinstance(planes.listen, Address) and planes.listen.port and planes.listen in {*keys.listen, keys.admin}:
        _add(root, ("planes", "listen"), "is the address of another port; give it a port of its own", problems)
    for name, each in planes.ask.items():
        if each.uid is not None:
            _add(root, ("planes", "ask", name, "uid"), "works only on a Unix socket: set `certificates`", problems)
        elif not each.certificates:
            _add(root, ("planes", "ask", name), "needs `certificates`, by which it is authenticated", problems)
    for name, push in planes.push.items():
        if push.uid is not None:
            _add(root, ("planes", "push", name, "uid"), "works only on a Unix socket: set `certificates`", problems)


def _socket_fits(root: Node, planes: PlanesSection, problems: Problems) -> None:
    if not PEER_CREDENTIALS:
        hint = "this system does not report who connects to a Unix socket: listen on an address with `planes.tls`"
        _add(root, ("planes", "listen"), hint, problems)
    if planes.tls is not None:
        _add(root, ("planes", "tls"), "is for an address; `planes.listen` is a Unix socket", problems)
    for name, each in planes.ask.items():
        if each.certificates:
            path: Path = ("planes", "ask", name, "certificates")
            _add(root, path, "is for an address with TLS; on a Unix socket, set `uid`", problems)
        elif each.uid is None:
            _add(root, ("planes", "ask", name), "needs `uid`, the user that the proxy runs as", problems)
    for name, push in planes.push.items():
        if push.certificates:
            message = "is for an address with TLS; on a Unix socket, set `uid`"
            _add(root, ("planes", "push", name, "certificates"), message, problems)


def _planes_are_told_apart(root: Node, ask: Mapping[str, AskSection], problems: Problems) -> None:
    """Check that a user or a certificate's name identifies only one proxy that asks."""
    owner: dict[object, str] = {}
    for name, each in ask.items():
        shown: list[tuple[str, object]] = [("certificates", certificate) for certificate in each.certificates]
        shown += [("uid", each.uid)] if each.uid is not None else []
        for which, value in shown:
            if owner.setdefault(value, name) != name:
                path: Path = ("planes", "ask", name, which)
                _add(root, path, f"also identifies {owner[value]}: give both routes to one of them", problems)


def _add(root: Node, path: Path, message: str, problems: Problems) -> None:
    problems.add(root.mark_at(path), path, message)
