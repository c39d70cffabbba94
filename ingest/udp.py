"""A connected UDP socket for one QUIC connection: non-blocking, drained in batches.

Where the kernel has UDP_GRO (Linux 5.0) it hands over dozens of datagrams in one call.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import NamedTuple

import trio

from ingest.backends.interface import Datagrams

_UDP_GRO = 104
"""From linux/udp.h; Python's socket module does not name it."""
_LARGEST_READ = 65535
_BATCH_BYTES = 1 << 20
_ANCILLARY_SPACE = 64
_SO_RCVBUFFORCE = 33
"""From asm-generic/socket.h, likewise."""
_RECEIVE_BUFFER = 8 << 20
"""Bytes we ask the kernel for (it grants up to net.core.rmem_max, and all of it to whoever has
CAP_NET_ADMIN): a second at 64 Mbit/s."""


class Address(NamedTuple):
    """A resolved address."""

    family: socket.AddressFamily
    where: tuple[str, int] | tuple[str, int, int, int]
    """What `socket.socket.connect` takes."""


async def resolve(host: str, port: int) -> list[Address]:
    """Look up the addresses of ``host``, in the order in which to try them.

    Raises:
        OSError: there is no such host, or nobody to ask.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    addresses: list[Address] = []
    for family, _, _, _, where in found:
        # A Python without IPv6 gives pairs of (int, bytes), which nobody can connect to.
        if not isinstance(where[0], str):
            continue
        address = Address(family, where)
        if address not in addresses:
            addresses.append(address)
    return addresses


class UdpEndpoint:
    """A UDP socket that talks to one address. See `ingest.quic.DatagramEndpoint`."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            with contextlib.suppress(OSError):  # an older kernel: one datagram a call
                self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
            self._socket.connect(address.where)
            self._view = memoryview(bytearray(_BATCH_BYTES))
        except BaseException:
            self._socket.close()
            raise

    def receive(self, limit: int) -> list[Datagrams]:
        """Return the datagrams that have arrived, about ``limit`` of them at most.

        Reads are laid end to end, so that those of one size become one piece: the fewer pieces,
        the less a QUIC library has to do for each.
        """
        batch: list[Datagrams] = []
        start = end = size = 0
        while limit > 0 and end + _LARGEST_READ <= _BATCH_BYTES:
            try:
                count, ancillary, _, _ = self._socket.recvmsg_into(
                    [self._view[end : end + _LARGEST_READ]], _ANCILLARY_SPACE
                )
            except BlockingIOError:
                break
            except OSError:
                if end:  # the error belongs to an earlier send; it will come again
                    break
                raise
            if not count:  # an empty datagram is no QUIC packet, but it takes its time
                limit -= 1
                continue
            segment = _segment_size(ancillary) or count
            joined = end > start and (segment == size or (count == segment < size))
            if not joined:
                if end > start:
                    batch.append(Datagrams(bytes(self._view[start:end]), size))
                start, size = end, segment
            end += count
            limit -= -(-count // segment)
            if (end - start) % size:  # the last of a piece may be shorter, no other
                batch.append(Datagrams(bytes(self._view[start:end]), size))
                start = end
        if end > start:
            batch.append(Datagrams(bytes(self._view[start:end]), size))
        return batch

    def send(self, datagram: bytes) -> None:
        """Send one datagram; a full send buffer or one too large for the path loses it."""
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise

    async def wait_readable(self) -> None:
        """Return when something has arrived."""
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        """Release the socket."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


def _segment_size(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the size of the datagrams in one read; 0 when it was a single one."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
            return int(struct.unpack("=H", data[:2])[0])
    return 0
