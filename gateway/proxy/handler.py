"""The hot path: match → admit → token → forward → relay, top to bottom.

With a token in memory and an idle connection in the pool, nothing waits except for the network. Every exchange ends in
`_record`, which adds one entry to the journal; the journal counts and logs it. A failure before the response head is
sent becomes a problem document; after it, the app's connection is aborted, so that the app sees the truncation.
"""

from __future__ import annotations

import asyncio
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.access import EscrowNeeded, SigningKeysNeeded
from gateway.errors import (
    ClientForbidden,
    ClientUnknown,
    Draining,
    ExchangeError,
    InternalError,
    LoopDetected,
    Overloaded,
    RouteNotFound,
    UpstreamMalformed,
    UpstreamReset,
)
from gateway.model.http import CONTINUE, FINAL, SERVER_ERROR, SWITCHING
from gateway.observe import get_logger
from gateway.proxy import admission, app_tokens, forward, relay, tracing
from gateway.proxy.body import NO_BODY
from gateway.proxy.exchange import Exchange
from gateway.proxy.fields import verdicts_nowhere
from gateway.proxy.judge import is_refusal
from gateway.proxy.problem import problem
from gateway.proxy.request import read_for_log, read_request
from gateway.proxy.routing import check_path, split_target
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upload import NO_UPLOAD, ReplayBudget, ended_upload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.observe import Journal, Metrics, Tracer
    from gateway.proxy.body import Body
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.fields import Verdicts
    from gateway.proxy.pool import Pool
    from gateway.proxy.prepared import PreparedRoute, Snapshot
    from gateway.proxy.request import RequestHead
    from gateway.proxy.response import Outbound
    from gateway.proxy.upload import NoUpload, Upload
    from gateway.proxy.upstream import UpstreamConnection

_log = get_logger("gatepass.proxy")
_NO_ROUTE: Final = verdicts_nowhere()
_APP_CLOSED: Final = "the app closed its connection before the answer ended"


class Handler:
    """Runs exchanges against the current snapshot."""

    def __init__(self, snapshot: Snapshot, metrics: Metrics, journal: Journal) -> None:
        self.snapshot = snapshot
        self.metrics = metrics
        self.draining = False
        """Answers carry `Connection: close`."""
        self.closing = False
        """New requests are rejected; running exchanges may end."""
        self._running = 0
        self.tracer: Tracer | None = None
        """Records spans, if `tracing` is configured."""
        self._journal = journal
        self._budget = ReplayBudget(snapshot.replay_budget)
        self._swept: set[Pool] = set()
        metrics.before_reading.append(self._show_pools)

    # ------------------------------------------------------------------------------------------------- the hot path

    async def exchange(self, client: ClientConnection, request: RequestHead) -> bool:
        """Serve one request; return whether the app's connection may be used again."""
        x = Exchange(client, request, self.snapshot)
        if self.tracer is not None:
            x.trace = self.tracer.begin(request.values(b"traceparent"), x.started)
        self._running += 1
        try:
            try:
                prepared, path, rest = self._match(x)
                endpoint = prepared.endpoints.get(rest)
                if endpoint is not None and app_tokens.serves(prepared, endpoint, x):
                    await app_tokens.serve(x, prepared, endpoint, rest, draining=self.draining)
                    return x.keep_alive
                admission.admit(x, prepared, path, rest)
            except (ClientUnknown, RouteNotFound, SigningKeysNeeded, EscrowNeeded) as error:
                self._running -= 1  # a caller who is not admitted yet takes none of `limits.exchanges`
                try:
                    await admission.admit_later(x, error)
                finally:
                    self._running += 1
            in_flight = prepared.metrics.in_flight
            in_flight.value += 1
            try:
                x.tokens = prepared.current_tokens() or await tracing.tokens(x, prepared)
                upload = NO_UPLOAD if x.body is NO_BODY else forward.upload(x, prepared, self._budget)
                x.upload = upload
                while not await self._attempt(x, prepared, upload):
                    await upload.stop()
            finally:
                in_flight.value -= 1
        except ExchangeError as error:
            self._fail(x, error)
        except asyncio.CancelledError:
            x.status, x.code, x.reason = 499, "client_gone", _APP_CLOSED
            raise
        except ConnectionResetError:
            x.status, x.code, x.keep_alive, x.reason = 499, "client_gone", False, _APP_CLOSED
        except Exception as error:  # noqa: BLE001 - a defect ends one exchange, not the gateway
            _log.exception("exchange_crashed", request_id=x.request_id, error=type(error).__name__)
            self._fail(x, InternalError(reason=type(error).__name__))
        finally:
            self._running -= 1
            x.upload.close()
            if x.admission is not None:
                left = x.code == "client_gone" and x.attempts > 0 and x.upload.sent
                x.admission.release(x.vendor_status, left=left)
            self._record(x)
        return x.keep_alive

    def _match(self, x: Exchange) -> tuple[PreparedRoute, str, str]:
        """Find the route, read the head by its tables, and open the body; return the route, the path and its rest."""
        if self.closing:
            raise Draining(retry_after=1.0)
        snapshot = x.snapshot
        if self._running > snapshot.limits.exchanges:
            raise Overloaded(retry_after=1.0)
        path, query = split_target(x.request.target)
        plain = check_path(path)
        try:
            prepared, path, rest = snapshot.match(path, x.request)
        except RouteNotFound:
            self._read_head(x, _NO_ROUTE)
            raise
        x.prepared = prepared
        x.plain = plain and prepared.plain
        self._read_head(x, prepared.verdicts, prepared.via)
        x.target = ((prepared.base_path + rest or "/") + query).encode("ascii")
        return prepared, path, rest

    @staticmethod
    def _read_head(x: Exchange, verdicts: Verdicts, via: bytes = b"") -> None:
        inbound = read_request(x.request, verdicts, x.snapshot.limits)
        x.body = x.client.open_body(inbound)
        x.inbound = inbound
        x.identify()
        if inbound.via and via and via in inbound.via:
            raise LoopDetected(f"The request was sent to {via.decode()} before", reason="its upstream leads back to us")

    async def _attempt(self, x: Exchange, prepared: PreparedRoute, upload: Upload | NoUpload) -> bool:
        """Send the request; relay the answer and return True, or return False if it must be sent again."""
        owner = x.client_name or ""
        upstream = prepared.pool.take(owner, fresh=x.resent) or await tracing.connection(x, prepared)
        try:
            forward.send(x, prepared, upload, upstream)
            head, body = await upstream.response()
            if head.code < FINAL:
                head, body = await self._after_interim(head, body, upstream, upload)
            x.upstream_seconds = monotonic() - x.sent_at
            x.vendor_status = code = head.code
            if prepared.passes_logins and forward.logs_in_connection(x, head):
                upstream.dirty = True
            refused = False
            if code in prepared.signs:
                upstream.watch_silence()
                refused = await is_refusal(x, prepared.signs[code], head, body)
                if refused and await self._has_fresh_tokens(x, prepared, upload):
                    return False
                upload.resume(upstream)
            # From 500 on, a proxy in front of the vendor may have answered, and that checks no token.
            if not refused and code < SERVER_ERROR:
                prepared.accepted(x.tokens)
            await self._relay(x, prepared, upstream, head, body)
        except UpstreamReset:
            if not forward.may_resend(x, upstream, upload):
                raise
            x.resent = True
            return False
        except BaseException:
            upstream.dirty = True
            raise
        finally:
            upstream.dirty = upstream.dirty or not upload.sent
            prepared.pool.release(upstream)
            if x.trace is not None:
                tracing.answered(x.trace, x, prepared)
        return True

    @staticmethod
    async def _after_interim(
        head: Outbound, body: Body, upstream: UpstreamConnection, upload: Upload | NoUpload
    ) -> tuple[Outbound, Body]:
        """Return the final response head. Interim responses are dropped; 100 (Continue) starts the request's body."""
        while head.code < FINAL and head.code != SWITCHING:
            if head.code == CONTINUE:
                upload.go_on()
            head, body = await upstream.response()
        return head, body

    async def _has_fresh_tokens(self, x: Exchange, prepared: PreparedRoute, upload: Upload | NoUpload) -> bool:
        """Replace the refused tokens; return whether the request can be sent again with new ones (`x.tokens`).

        If not, the app gets the vendor's answer; the refused tokens are discarded all the same.
        """
        prepared.metrics.vendor_refusal()
        if x.replayed or not upload.replayable or not forward.may_replay(x, prepared):
            for injector, token in zip(prepared.injectors, x.tokens, strict=True):
                injector.tokens.discard(token)
            prepared.metrics.replayed("refused_again" if x.replayed else "not_replayable")
            x.reason = prepared.metrics.token_refused(x.vendor_status, replayed=x.replayed)
            return False
        await upload.stop()  # else the body could outgrow what is kept while a token is fetched
        again = [await i.tokens.refused(token) for i, token in zip(prepared.injectors, x.tokens, strict=True)]
        if any(again):
            x.tokens = tuple(new or old for new, old in zip(again, x.tokens, strict=True))
        elif prepared.current_tokens() is not None:
            # The refusal was not believed, because the vendor refuses too many tokens: pass its answer on.
            prepared.metrics.replayed("no_token")
            x.reason = prepared.metrics.token_refused(x.vendor_status, replayed=False)
            return False
        else:
            # The old token is gone and no other is there: the app must get that error, not the vendor's 401.
            x.tokens = await prepared.get_tokens()
        prepared.metrics.replayed("sent")
        x.replayed, x.prefetched = True, b""
        return True

    async def _relay(
        self, x: Exchange, prepared: PreparedRoute, upstream: UpstreamConnection, head: Outbound, body: Body
    ) -> None:
        x.status = head.code
        whole = x.upload.whole
        x.keep_alive = whole and x.inbound.keep_alive and not self.draining
        if not whole:
            x.upload.hold_back()
        if head.code != SWITCHING:
            if not relay.begin(x, prepared, upstream, head, body):
                await relay.stream(x, body)
            return
        if not (x.inbound.websocket and prepared.route.websocket):
            raise UpstreamMalformed(reason="101 to a request that asked for no upgrade")
        relay.switching(x, prepared, head)
        x.keep_alive = False
        tunnel = Tunnel(
            x.client,
            upstream,
            prepared.route.timeouts,
            spent=monotonic() - x.started,
            must_end=lambda: admission.reason_to_end(x, self.snapshot),
        )
        try:
            await tunnel.run()
        finally:
            x.upload = ended_upload(x.client, tunnel.up.size)
            x.bytes_out, x.reason = tunnel.down.size, tunnel.reason
        x.client.close()

    # -------------------------------------------------------------------------------------------------- when it fails

    def _fail(self, x: Exchange, error: ExchangeError) -> None:
        """Answer with a problem document, or abort the connection if a response head was already sent."""
        x.reason = _reason(x, error)
        if x.head_sent:
            x.code, x.keep_alive = "aborted", False
            x.client.abort()
            return
        x.status, x.code = error.status, error.code
        if not x.request_id:
            x.inbound = read_for_log(x.request)
            x.identify()
        if isinstance(error, ClientForbidden) and error.client and x.prepared is not None:
            x.client_name = error.client
            x.client_metrics = self.metrics.client(error.client, x.prepared.route.name)
        x.keep_alive = x.inbound.keep_alive and not error.close and not self.draining and x.body.ended
        answer = problem(
            error,
            route=x.prepared.route.name if x.prepared is not None and x.client_name is not None else None,
            request_id=x.request_id,
            close=not x.keep_alive,
            head=x.is_head,
        )
        x.bytes_out = len(answer) - answer.index(b"\r\n\r\n") - 4
        x.client.write(answer)

    def refuse(self, client: ClientConnection, error: ExchangeError) -> None:
        """Answer what is not a request: malformed bytes, an incomplete head, a connection over the limit."""
        request_id = f"{getrandbits(128):032x}"
        client.write(problem(error, route=None, request_id=request_id, close=True, head=False))
        self.metrics.refused(error.code)
        _log.warning(
            "app_connection_rejected",
            code=error.code,
            reason=error.reason or error.detail,
            request_id=request_id,
            remote=client.remote,
        )

    def _record(self, x: Exchange) -> None:
        prepared, allowance, tokens = x.prepared, x.allowance, x.tokens
        key = (
            prepared.metrics if prepared is not None else None,
            allowance.metrics if allowance is not None else x.client_metrics,
            x.request.method,
            x.path,
            x.vendor_status,
            x.status,
            x.code,
            x.attempts,
            tokens[0].fingerprint if tokens else None,
            x.forwarded_from or x.client.remote,
            x.reason,
        )
        self._journal.add(
            (
                key,
                x.request_id,
                x.id_given,
                x.inbound.traceparent if x.trace is None else tracing.end(x.trace, x),
                x.started,
                monotonic(),
                x.upstream_seconds,
                x.upload.size,
                x.bytes_out,
            )
        )

    # ------------------------------------------------------------------------------------------------------ time-outs

    @property
    def sweep_interval(self) -> float:
        """Seconds between two sweeps: a quarter of the shortest time-out, from 20 ms to 1 s."""
        limits = self.snapshot.limits
        shortest = min(limits.header_timeout, limits.keepalive_timeout, limits.body_timeout)
        for prepared in self.snapshot.routes:
            timeouts = prepared.route.timeouts
            shortest = min(shortest, timeouts.first_byte, timeouts.idle, timeouts.total or timeouts.idle)
            shortest = min(shortest, prepared.route.pool.max_age)
        return max(0.02, min(1.0, shortest / 4))

    def sweep(self, now: float) -> None:
        """Apply the time-outs of every pool, including retired pools that are still in use."""
        self._swept = {pool for pool in self._swept if not pool.finished} | {
            prepared.pool for prepared in self.snapshot.routes
        }
        for pool in self._swept:
            pool.sweep(now)

    @property
    def pools(self) -> set[Pool]:
        """Every pool that may hold connections."""
        return self._swept | {prepared.pool for prepared in self.snapshot.routes}

    def _show_pools(self) -> None:
        for prepared in self.snapshot.routes:
            prepared.pool.show()

    # ------------------------------------------------------------------------------------------------------- reloading

    def use(self, snapshot: Snapshot, retired: Iterable[Pool]) -> None:
        """Serve new requests with `snapshot`. Running exchanges keep their own; retired pools accept nothing new."""
        self.snapshot = snapshot
        self._budget.resize(snapshot.replay_budget)
        for pool in retired:
            pool.retire()
            self._swept.add(pool)

    def abort(self) -> None:
        """Abort every connection to a vendor."""
        for pool in self.pools:
            pool.abort()


def _reason(x: Exchange, error: ExchangeError) -> str:
    """Return why the exchange failed, for the log; with the vendor's host if the vendor failed."""
    reason = error.reason or error.detail
    return f"{x.prepared.metrics.upstream}: {reason}" if error.hop == "upstream" and x.prepared is not None else reason
