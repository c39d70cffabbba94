"""A WebTransport server without sockets that does what a test tells it to."""

from __future__ import annotations

import datetime as dt
import errno
from typing import TYPE_CHECKING

import trio
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # its own documentation does so
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import pull_quic_header
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingest.backends.interface import Datagrams

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.events import QuicEvent

    from ingest.udp import Address

_CLIENT = ("client", 1)
PROTOCOL_HEADER = (b"wt-protocol", b'"moq-lite-05"')
UNI_PREFIX = bytes.fromhex("405400")
BIDI_PREFIX = bytes.fromhex("404100")


def self_signed() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate for localhost that is valid now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate, key


class FakeRelay:
    """The server's side. It answers CONNECT with ``status`` and ``headers``, and is scripted.

    ``on_request`` runs when the CONNECT request has been answered. What the client sends on streams
    is collected in ``received``, ``ended``, ``resets`` and ``stops``.
    """

    def __init__(
        self,
        *,
        status: int = 200,
        headers: tuple[tuple[bytes, bytes], ...] = (PROTOCOL_HEADER,),
        on_request: Callable[[FakeRelay], None] = lambda _: None,
        before_answer: Callable[[FakeRelay], None] = lambda _: None,
        silent: bool = False,
        http: bool = True,
        webtransport: bool = True,
        alpn: str = "h3",
    ) -> None:
        self._status = status
        self._headers = headers
        self._on_request = on_request
        self._before_answer = before_answer
        self._http = http
        self._webtransport = webtransport
        self._alpn = alpn
        self.silent = silent
        """Whether it takes datagrams and says nothing."""
        self.quic: QuicConnection | None = None
        self.h3: H3Connection | None = None
        self.session: int | None = None
        self.request: dict[bytes, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.termination: ConnectionTerminated | None = None
        self.datagrams_taken = 0
        self.inbox: list[bytes] = []
        """What is on its way to the client."""
        self._refused = False
        self.refuses = False
        """Whether the network says that nobody is there."""
        self.closed = False
        self._readable = trio.Event()

    def connect(self, _address: Address) -> FakeRelay:
        """Stand for a socket; see `ingest.session.open_session`."""
        return self

    # As the client's endpoint

    def receive(self, limit: int) -> list[Datagrams]:
        if self._refused:
            self._refused = False
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        taken, self.inbox = self.inbox[:limit], self.inbox[limit:]
        return [Datagrams(datagram, len(datagram)) for datagram in taken]

    def send(self, datagram: bytes) -> None:
        self.datagrams_taken += 1
        if self.refuses:
            self._refused = True  # as a kernel does: the next call hears of it, once
            self._readable.set()
            return
        if self.silent:
            return
        now = trio.current_time()
        if self.quic is None:
            self._begin(datagram)
        assert self.quic is not None
        self.quic.receive_datagram(datagram, _CLIENT, now)
        self.flush()

    async def wait_readable(self) -> None:
        while not self.inbox and not self._refused:
            timer = None if self.quic is None or self.silent else self.quic.get_timer()
            with trio.move_on_at(float("inf") if timer is None else timer):
                self._readable = trio.Event()
                await self._readable.wait()
                continue
            assert self.quic is not None
            self.quic.handle_timer(trio.current_time())
            self.flush()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.closed = True

    # As the server

    def flush(self) -> None:
        """Take in what has come, and send what is to be sent."""
        assert self.quic is not None
        while (event := self.quic.next_event()) is not None:
            self._handle(event)
        for datagram, _ in self.quic.datagrams_to_send(trio.current_time()):
            if not self.silent:
                self.inbox.append(datagram)
        if self.inbox:
            self._readable.set()

    def open(self, data: bytes, *, uni: bool = True, end: bool = False) -> int:
        """Open a stream and write ``data`` on it, prefix and all."""
        assert self.quic is not None
        stream = self.quic.get_next_available_stream_id(is_unidirectional=uni)
        self.quic.send_stream_data(stream, data, end)
        return stream

    def write(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Write raw bytes on a stream."""
        assert self.quic is not None
        self.quic.send_stream_data(stream, data, end)

    def send_capsule(self, data: bytes, *, end: bool = False) -> None:
        """Write bytes in a DATA frame on the stream of the CONNECT request."""
        assert self.h3 is not None
        assert self.session is not None
        self.h3.send_data(self.session, data, end)

    def _begin(self, datagram: bytes) -> None:
        header = pull_quic_header(Buffer(data=datagram), host_cid_length=8)
        certificate, key = self_signed()
        configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=[self._alpn],
            certificate=certificate,
            private_key=key,
            max_datagram_frame_size=65536,
            idle_timeout=600,
        )
        self.quic = QuicConnection(
            configuration=configuration,
            original_destination_connection_id=header.destination_cid,
        )

    def _handle(self, event: QuicEvent) -> None:
        assert self.quic is not None
        if self.h3 is None and self._http:
            self.h3 = H3Connection(self.quic, enable_webtransport=self._webtransport)
        match event:
            case StreamDataReceived(stream_id=stream) if stream in {0, 2, 6, 10}:
                for answer in self.h3.handle_event(event) if self.h3 else ():
                    if isinstance(answer, HeadersReceived):
                        self._answer(answer)
                    elif (data := getattr(answer, "data", None)) is not None:
                        self._collect(stream, data, ended=event.end_stream)
            case StreamDataReceived(stream_id=stream):
                self._collect(stream, event.data, ended=event.end_stream)
            case StreamReset(stream_id=stream, error_code=code):
                self.resets[stream] = code
            case StopSendingReceived(stream_id=stream, error_code=code):
                self.stops[stream] = code
            case ConnectionTerminated():
                self.termination = event

    def _collect(self, stream: int, data: bytes, *, ended: bool) -> None:
        self.received[stream] = self.received.get(stream, b"") + data
        if ended:
            self.ended.add(stream)

    def _answer(self, request: HeadersReceived) -> None:
        assert self.h3 is not None
        self.session = request.stream_id
        self.request = dict(request.headers)
        self._before_answer(self)
        status = (b":status", str(self._status).encode())
        self.h3.send_headers(self.session, [status, *self._headers])
        self._on_request(self)
