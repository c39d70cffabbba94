"""The messages to systemd, received by a real datagram socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from casfs.systemd import notify, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def test_each_assignment_is_a_line_of_one_datagram(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    assert notify("READY=1", "STATUS=two\nlines", environment=environment)
    assert manager.recv(4096) == b"READY=1\nSTATUS=two lines"


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"casfs-test-{os.getpid()}"
        receiver.bind("\0" + name)
        receiver.setblocking(False)
        assert notify("WATCHDOG=1", environment={"NOTIFY_SOCKET": "@" + name})
        assert receiver.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here", "vsock:1:2"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": address})


def test_a_manager_that_does_not_read_never_blocks_the_service(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    while notify("STATUS=" + "x" * 4096, environment=environment):
        pass
    assert manager.recv(8) == b"STATUS=x"


def test_the_watchdog_is_told_in_seconds() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "60000000"}) == 60
    assert watchdog_seconds({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}) == 1e-6


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_is_kept_that_is_not_ours(environment: dict[str, str]) -> None:
    assert watchdog_seconds(environment) is None
