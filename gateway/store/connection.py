"""One connection to the store. The only module that sends commands with redis-py.

By default redis-py sends a failed command again, and waits for seconds. Here a command is sent once and has one
time-out, because its caller decides what a lost answer means. A password from a file is read again for each connection,
because the file may have changed.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohappyeyeballs
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.errors import StoreAway, os_reason
from gateway.tls import client_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection

    from gateway.model import Address, StoreConfig
    from gateway.resolver import Resolver
    from gateway.store.script import Script

Argument = bytes | str | int
Call = tuple["Script", "Sequence[str]", "Sequence[Argument]"]
"""A script, the names of its keys, and its arguments."""
LOST = (RedisError, OSError, RuntimeError)
"""What a failed command raises. uvloop raises RuntimeError for a connection that was just closed."""
LONGEST_REASON = 200
_NOISE = re.compile(r"(?:, with args|\.? script: (?:[0-9a-f]{40}, )?on @user_script).*", re.DOTALL)
"""Arguments of the command, and the place in a script."""
ASKING = 2
"""Time-outs of a command within which a Sentinel must answer: half of what opening a connection may take."""
MOST_PASSWORD_BYTES = 65_536


class _OverSocket(Connection):
    """A redis-py connection over a socket that is already connected. It never reconnects by itself."""

    def __init__(self, *, sock: socket.socket, context: ssl.SSLContext | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._arguments: dict[str, Any] | None = {"sock": sock, "ssl": context}
        if context is not None:
            self._arguments = {**self._arguments, "server_hostname": self.host.removesuffix(".")}

    def _connection_arguments(self) -> dict[str, Any]:
        arguments, self._arguments = self._arguments, None
        if arguments is None:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        return arguments


def reason_of(error: BaseException) -> str:
    """Return why a command failed, in one line that holds no arguments of the command."""
    if isinstance(error, StoreAway):
        return str(error)
    code = str(getattr(error, "status_code", "") or "")
    if isinstance(error, ResponseError) or code:
        text = _NOISE.sub("", str(error))
        prefix = f"{code} " if code not in {"", "ERR"} and not text.startswith(code) else ""  # redis-py removed it
        return (prefix + " ".join(text.split()))[:LONGEST_REASON]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError) or "timeout" in type(cause).__name__.lower():
            return "no answer in time"
        if isinstance(cause, OSError):
            return str(getattr(cause, "verify_message", "")) or os_reason(cause)
        if cause.__cause__ is None and cause.__context__ is None:
            break
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


class Wire:
    """One connection, used by one command or pipeline at a time. `Connector.open` makes it."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        """Use an open connection; `timeout` is how many seconds `command` or `calls` may take."""
        self._connection = connection
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<wire {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as this side knows."""
        return bool(self._connection.is_connected)

    async def is_clean(self) -> bool:
        """Return whether it is open and no unexpected bytes have arrived on it."""
        try:
            return self.is_open and not await self._connection.can_read()
        except (RedisError, OSError):
            return False

    async def command(self, *words: Argument) -> Any:
        """Send one command and return its answer. Raises RedisError or OSError, of which TimeoutError is one."""
        async with asyncio.timeout(self._timeout):
            await self._connection.send_command(*words)
            return await self._connection.read_response()

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one pipeline; return their answers in order, and a store's error as an exception object.

        Scripts that the store does not know have not run, so they are sent again with their text.
        Raises RedisError, OSError or RuntimeError if the connection fails.
        """
        async with asyncio.timeout(self._timeout):
            answers = await self._pipeline([_by_hash(call) for call in calls])
            unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            again = await self._pipeline([_by_text(calls[index]) for index in unknown]) if unknown else []
        for index, answer in zip(unknown, again, strict=True):
            answers[index] = answer
        return answers

    async def _pipeline(self, commands: list[list[Argument]]) -> list[Any]:
        await self._connection.send_packed_command(self._connection.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await self._connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to channels. Afterwards call only `message` and `close`."""
        await self._connection.send_command("SUBSCRIBE", *channels)

    async def message(self, within: float) -> list[Any] | None:
        """Return the next message (kind, channel, data …), or None if none arrives `within` so many seconds."""
        answer = await self._connection.read_response(timeout=within)
        return answer if isinstance(answer, list) else None

    async def close(self) -> None:
        """Close the connection at once, without a farewell to the server."""
        await self._connection.disconnect(nowait=True)


def _by_hash(call: Call) -> list[Argument]:
    script, keys, args = call
    return ["EVALSHA", script.sha, len(keys), *keys, *args]


def _by_text(call: Call) -> list[Argument]:
    script, keys, args = call
    return ["EVAL", script.text, len(keys), *keys, *args]


class Connector:
    """Opens connections with one configuration."""

    def __init__(self, config: StoreConfig, resolver: Resolver) -> None:
        self._config = config
        self._resolver = resolver
        self._context: ssl.SSLContext | None = None

    async def open(self) -> Wire:
        """Return an authenticated connection. Raises RedisError, OSError or StoreAway."""
        server = self._config.server
        if server.socket:
            return await self._opened(None, server.database, await self._login())
        address = await self._master() if server.master else server.addresses[0]
        wire = await self._opened(address, server.database, await self._login())
        if server.master:
            await _must_be_master(wire, address)
        return wire

    async def _login(self) -> dict[str, str]:
        config = self._config
        password = config.password.reveal() if config.password is not None else ""
        if config.password_file is not None:
            try:
                data = await asyncio.to_thread(config.password_file.read_bytes)
            except OSError as error:
                raise StoreAway(f"the password's file {config.password_file}: {os_reason(error)}") from error
            password = data[:MOST_PASSWORD_BYTES].decode("utf-8", "surrogateescape").rstrip("\r\n")
        return {"username": config.username, "password": password} if password else {}

    async def _opened(self, address: Address | None, database: int, login: dict[str, str]) -> Wire:
        config = self._config
        settings: dict[str, Any] = {
            "db": database,
            "socket_timeout": None,  # callers set limits; with redis-py's, Python 3.11 can lose a cancellation
            "socket_connect_timeout": config.timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            **{key: value for key, value in login.items() if value},
        }
        if address is None:
            connection: AbstractConnection = UnixDomainSocketConnection(path=config.server.socket, **settings)
        else:
            if config.server.tls and self._context is None:
                self._context = await self._trust()
            place = {"host": address.host, "port": address.port}
            connection = _OverSocket(sock=await self._socket(address), context=self._context, **place, **settings)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Wire(connection, config.timeout)

    async def _trust(self) -> ssl.SSLContext:
        """Return the context with the authorities to trust. Raises StoreAway if their file cannot be used."""
        try:
            return await asyncio.to_thread(client_context, self._config.ca_file)
        except OSError as error:
            if self._config.ca_file is None:
                raise
            reason = "no certificate in it" if isinstance(error, ssl.SSLError) else os_reason(error)
            raise StoreAway(f"store.ca_file {self._config.ca_file}: {reason}") from error

    async def _socket(self, address: Address) -> socket.socket:
        """Return a socket connected to one of the addresses of a name."""
        infos = await self._resolver.look_up(address.host, address.port)
        addresses = [(family, kind, proto, "", where) for family, kind, proto, _, where in infos]
        delay = self._config.timeout / 2
        return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=delay, interleave=1)

    async def _master(self) -> Address:
        """Return the master's address that most Sentinels name. Raises StoreAway if none names one."""
        server = self._config.server
        answers = await asyncio.gather(*(self._ask(each) for each in server.addresses), return_exceptions=True)
        named = Counter(answer for answer in answers if not isinstance(answer, BaseException))
        if not named:
            first = next(answer for answer in answers if isinstance(answer, BaseException))
            raise StoreAway(f"no Sentinel names the server {server.master}: {reason_of(first)}")
        return named.most_common(1)[0][0]

    async def _ask(self, sentinel: Address) -> Address:
        async with asyncio.timeout(ASKING * self._config.timeout):
            wire = await self._opened(sentinel, 0, {})
            try:
                answer = await wire.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._config.server.master)
            finally:
                await wire.close()
        if not isinstance(answer, list):
            raise StoreAway("it does not know that name")
        host, port = (bytes(part).decode() for part in answer)
        return type(sentinel)(host, int(port))


async def _must_be_master(wire: Wire, address: Address) -> None:
    """Raise StoreAway unless the server is the master: after a fail-over, Sentinels may still name the old one."""
    role = (await wire.command("ROLE"))[0]
    if role != b"master":
        await wire.close()
        raise StoreAway(f"{address} is not the master")
