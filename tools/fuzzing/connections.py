"""A whole session, from the datagrams up to its groups, with a server that does anything.

The server is a real one as far as the handshake and the packets' protection go, so that what it
says reaches every layer: HTTP/3, WebTransport and its capsules, the MoQ session. And the network
drops, repeats, swaps and changes datagrams, and has some of its own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio
from hypothesis import strategies as st
from msgspec import Struct
from trio.testing import MockClock

from casfs.errors import RelayError
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from tests.fakes.relay import BIDI_PREFIX, UNI_PREFIX, FakeRelay
from tools.fuzzing.corpus import CAPSULES, mangled, pieces
from tools.fuzzing.sessions import LIMITS

if TYPE_CHECKING:
    from ingest.backends.choice import BackendName
    from ingest.session import Session

_PREFIXES = (UNI_PREFIX, BIDI_PREFIX, b"\0", b"\1", b"\2", b"\3", b"")
_QUEUED = 2 << 20


class Move(Struct, frozen=True):
    """Something that the server or the network does."""

    action: str
    number: int
    data: bytes
    end: bool


def moves(protocol: str) -> st.SearchStrategy[list[Move]]:
    """Return what may happen on a connection that speaks the protocol."""
    said = pieces(protocol) | mangled(st.sampled_from(CAPSULES))
    actions = ["uni"] * 6 + ["bidi", "write", "reset", "stop", "capsule", "datagram"]
    actions += ["raw", "drop", "repeat", "swap", "flip", "wait", "wait"]
    return st.lists(
        st.builds(
            Move,
            action=st.sampled_from(actions),
            number=st.integers(0, 40),
            data=said,
            end=st.booleans(),
        ),
        max_size=20,
    )


def check_connection(protocol: str, backend: BackendName, script: list[Move]) -> None:
    """Play a script; whatever it does, the session lives or ends with one of our errors."""
    trio.run(_play, protocol, backend, script, clock=MockClock(autojump_threshold=0))


async def _play(protocol: str, backend: BackendName, script: list[Move]) -> None:
    name = {"moqt-14": "moq-00"}.get(protocol, protocol)
    relay = FakeRelay(headers=((b"wt-protocol", f'"{name}"'.encode()),))
    options = SessionOptions(limits=LIMITS, window=200_000, queued_bytes=_QUEUED, quic=backend)
    try:
        async with open_session(
            "https://127.0.0.1:9/",
            tls=TlsOptions(insecure=True),
            options=options,
            connect=relay.connect,
        ) as session:
            session.announce("demo")
            session.subscribe("demo/tv", "video0.m4s", priority=1, max_latency=60_000)
            for move in script:
                _act(relay, move)
                await trio.sleep(0.05)
                await _consume(session)
            await trio.sleep(3)
            await _consume(session)
    except RelayError:
        pass


async def _consume(session: Session) -> None:
    statistics = session.statistics()
    assert statistics.buffered_bytes <= LIMITS.buffered_bytes + 4096
    assert statistics.queued_bytes <= _QUEUED + (1 << 20)
    with trio.move_on_after(0.01):
        while True:
            await session.next_events()


def _act(relay: FakeRelay, move: Move) -> None:
    quic = relay.quic
    assert quic is not None
    if relay.termination is not None or relay.session is None:
        return
    if not _disturb(relay, move):
        prefix = _PREFIXES[move.number % len(_PREFIXES)] if move.number > 30 else None
        match move.action:
            case "uni":
                relay.open((UNI_PREFIX if prefix is None else prefix) + move.data, end=move.end)
            case "bidi":
                head = BIDI_PREFIX if prefix is None else prefix
                relay.open(head + move.data, uni=False, end=move.end)
            case "capsule" if relay.h3 is not None and not move.end:
                with contextlib.suppress(RuntimeError):  # the stream was ended by another move
                    relay.send_capsule(move.data)
            case "datagram":
                quic.send_datagram_frame(bytes([move.number]) + move.data)
            case "write" | "reset" | "stop":
                _on_stream(relay, move)
    relay.flush()


def _on_stream(relay: FakeRelay, move: Move) -> None:
    """Do something on a stream that is there; what the library itself forbids is passed over."""
    assert relay.quic is not None
    streams = sorted(relay.quic._streams)  # noqa: SLF001  a server that keeps no rules
    stream = streams[move.number % len(streams)] if streams else 0
    try:
        if move.action == "write":
            relay.write(stream, move.data, end=move.end)
        elif move.action == "reset":
            relay.quic.reset_stream(stream, move.number)
        else:
            relay.quic.stop_stream(stream, move.number)
    except (AssertionError, ValueError, RuntimeError):
        pass


def _disturb(relay: FakeRelay, move: Move) -> bool:
    """Do to the network what a move says; whether it was one of those."""
    inbox, at = relay.inbox, move.number
    relay.flush()
    if move.action == "raw":
        if move.data:  # an endpoint passes on no datagram that is empty
            inbox.insert(0, move.data)
        return True
    if move.action not in {"drop", "repeat", "swap", "flip"}:
        return move.action == "wait"
    # Something to be disturbed.
    relay.open(UNI_PREFIX + move.data, end=True)
    relay.flush()
    if not inbox:
        return True
    at %= len(inbox)
    match move.action:
        case "drop":
            del inbox[at]
        case "repeat":
            inbox.insert(0, inbox[at])
        case "swap":
            inbox.reverse()
        case "flip":
            changed = bytearray(inbox[at])
            changed[at % len(changed)] ^= 1 << (move.number % 8)
            inbox.insert(at, bytes(changed))
    return True
