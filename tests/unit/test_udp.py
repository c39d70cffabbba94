"""The socket: datagrams in batches, with their borders."""

from __future__ import annotations

import socket

import pytest

from ingest.udp import Address, UdpEndpoint, resolve


async def test_datagrams_keep_their_borders_in_batches() -> None:
    """Also where the kernel joins them (UDP_GRO), which it does for equal sizes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        endpoint = UdpEndpoint(Address(socket.AF_INET, peer.getsockname()))
        endpoint.send(b"hello")
        _, where = peer.recvfrom(100)
        sizes = [1200] * 40 + [4, 1200, 1200, 300, 300, 1200, 1252, 1252, 7, 7, 8, 1200]
        sent = [bytes([n]) * size for n, size in enumerate(sizes)]
        for datagram in sent:
            peer.sendto(datagram, where)
        received: list[bytes] = []
        while len(received) < len(sent):
            await endpoint.wait_readable()
            for datagrams in endpoint.receive(256):
                received += datagrams.split()
        endpoint.close()
    assert received == sent


async def test_nothing_there_is_an_empty_batch_and_nobody_there_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        endpoint = UdpEndpoint(Address(socket.AF_INET, peer.getsockname()))
        assert endpoint.receive(256) == []
    endpoint.send(b"hello")
    await endpoint.wait_readable()
    with pytest.raises(ConnectionRefusedError):
        endpoint.receive(256)
    endpoint.close()


async def test_an_address_resolves_to_itself() -> None:
    assert await resolve("127.0.0.1", 443) == [Address(socket.AF_INET, ("127.0.0.1", 443))]
    (address,) = await resolve("::1", 443)
    assert address.family == socket.AF_INET6
