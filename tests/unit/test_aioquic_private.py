"""What casfs takes from inside aioquic: the credit that slides, and the relay's certificate."""

from __future__ import annotations

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.stream import QuicStream

from casfs.errors import CertificateError, ConfigError
from ingest.backends.aioquic_private import peer_certificate, slide_receive_window


class _Credit:
    """A connection's receive side, without packets."""

    def __init__(self, window: int) -> None:
        self.connection = QuicConnection(configuration=QuicConfiguration(max_data=window))
        self.limit = slide_receive_window(self.connection, window)

    def arrive(self, number: int, *, in_order: int, highest: int, finished: bool = False) -> None:
        """Have a stream stand where it would stand after such frames."""
        stream = self.connection._streams.setdefault(number, QuicStream(stream_id=number))
        self.limit.used += highest - stream.receiver.highest_offset
        stream.receiver.highest_offset = highest
        stream.receiver._buffer_start = in_order
        stream.receiver.is_finished = finished

    def grant(self) -> int:
        """Return the credit after aioquic asked for more."""
        self.limit.value *= 2
        return self.limit.value


def test_credit_follows_what_was_passed_on() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=600, highest=600)
    assert credit.grant() == 1600
    credit.arrive(3, in_order=1500, highest=1500)
    assert credit.grant() == 2500


def test_credit_is_not_asked_for_in_crumbs() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=400, highest=400)
    assert credit.grant() == 1000


def test_holes_earn_no_credit() -> None:
    """Else one byte at the end of the window would double what we hold, again and again."""
    credit = _Credit(1000)
    for number in range(3, 43, 4):
        credit.arrive(number, in_order=0, highest=100)
    assert credit.grant() == 1000


def test_what_a_reset_leaves_unread_is_given_back() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=0, highest=1000, finished=True)
    assert credit.grant() == 2000


def test_an_aioquic_that_we_do_not_know_is_refused() -> None:
    connection = QuicConnection(configuration=QuicConfiguration())
    del connection._local_max_data
    with pytest.raises(ConfigError, match="cannot be bounded"):
        slide_receive_window(connection, 1000)
    with pytest.raises(CertificateError, match="cannot be read"):
        peer_certificate(connection)
