"""A session with a relay: what the recorder sees of the network.

    async with open_session(url, tls=TlsOptions(), options=SessionOptions()) as session:
        session.announce("")
        session.subscribe("demo/tv", "video0.m4s", priority=50, max_latency=60_000)
        while True:
            for event in await session.next_events():
                ...

One task drives the connection; it belongs to the context and is gone with it. Failures of the
network and of the relay come out as errors of `casfs.errors`, one at a time. Memory is bounded on
the way: what the consumer has not taken yet stops the relay (`SessionOptions.queued_bytes`), what
QUIC holds back is bounded by `SessionOptions.window`, and open groups by `Limits`.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from casfs.errors import ConnectError, RelayError
from ingest.relay_session import Session, SessionOptions, SessionStatistics
from ingest.relay_url import RelayUrl, parse_relay_url
from ingest.udp import Address, UdpEndpoint, resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ingest.quic import DatagramEndpoint
    from ingest.tls import TlsOptions

__all__ = ["Session", "SessionOptions", "SessionStatistics", "open_session"]

_GRACE = 0.25
"""Seconds after the relay's 200 in which it may still refuse before we call the session open.

A relay that refuses says 200 too and closes the session right behind it; one that accepts usually
speaks first (moq-lite-05) and cuts this short.
"""


@asynccontextmanager
async def open_session(
    url: str,
    *,
    tls: TlsOptions,
    options: SessionOptions,
    clock: Callable[[], int] = time.time_ns,
    connect: Callable[[Address], DatagramEndpoint] = UdpEndpoint,
) -> AsyncIterator[Session]:
    """Connect to the relay at ``url``, negotiate, and yield the session.

    ``clock`` gives nanoseconds UTC; ``connect`` makes the socket for an address. On leaving the
    context, in any way, the relay is told and the socket closed, without waiting.

    Raises:
        ConfigError: the URL or the TLS settings cannot be used.
        ConnectError: nobody answers, or not in time.
        CertificateError: the relay's certificate is not accepted.
        NegotiationError: the relay speaks nothing that we offered.
        RefusedError: the relay does not let us in.
        ConnectionLostError: it let us in and ended the session at once.
    """
    relay = parse_relay_url(url)
    tls.check()
    try:
        async with trio.open_nursery() as nursery:
            session = await _connect(
                nursery,
                relay,
                options,
                lambda address, offering: Session(
                    relay,
                    connect(address),
                    tls=tls,
                    options=options,
                    clock=clock,
                    offering=offering,
                ),
            )
            try:
                yield session
            finally:
                session.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        single = _single(group)
        raise single from single.__cause__


async def _connect(
    nursery: trio.Nursery,
    relay: RelayUrl,
    options: SessionOptions,
    make_session: Callable[[Address, bool], Session],
) -> Session:
    """Try one address of the relay after the other; return the first session that opens.

    A relay that wants no protocols to be named is asked a second time, without.
    """
    deadline = trio.current_time() + options.connect_timeout
    addresses = await _resolve(relay, deadline)
    tries = [(address, True) for address in reversed(addresses)]
    failure: RelayError | None = None
    while tries:
        address, offering = tries.pop()
        now = trio.current_time()
        share = (deadline - now) / (len(tries) + 1)
        try:
            session = make_session(address, offering)
        except OSError as error:
            failure = ConnectError(f"cannot connect to {relay.origin}: {error.strerror}")
            continue
        nursery.start_soon(session.run)
        with trio.move_on_at(now + share):
            await session.opened.wait()
        if not session.opened.is_set():
            failure = session.timed_out()
        else:
            with trio.move_on_after(_GRACE):
                await session.settled.wait()
            failure = session.failure
            if failure is None:
                return session
        session.close()
        if session.offer_refused:
            tries = [(address, False)]
        elif session.answered:  # another address is the same relay, and would say the same
            break
    assert failure is not None
    raise failure


async def _resolve(relay: RelayUrl, deadline: float) -> list[Address]:
    addresses: list[Address] = []
    reason = "no answer from the name servers"
    with trio.move_on_at(deadline):
        try:
            addresses = await resolve(relay.host, relay.port)
            reason = "it has no address"
        except OSError as error:
            reason = error.strerror or str(error)
    if not addresses:
        raise ConnectError(
            f"cannot find the host of {relay.origin}: {reason}", advice="check its name"
        )
    return addresses


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one exception that a nursery has wrapped; the group when there are several."""
    _, failures = group.split(trio.Cancelled)
    inner: BaseException = group if failures is None else failures
    while isinstance(inner, BaseExceptionGroup) and (
        len(inner.exceptions) == 1 or failures is None
    ):
        inner = inner.exceptions[0]
    return inner
