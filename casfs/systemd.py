"""What a service says to systemd: the sd_notify protocol (sd_notify(3)), which is one datagram."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(*assignments: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager `assignments`, such as `READY=1` and `STATUS=recording`.

    Returns whether it was told: without a manager (`NOTIFY_SOCKET` is unset), or with one that
    does not listen, nothing happens, for a service must run without it too. Never blocks.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract socket, which the kernel writes with a NUL
        address = "\0" + address[1:]
    message = "\n".join(assignment.replace("\n", " ") for assignment in assignments)
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        ) as sender:
            sender.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return within how many seconds each `WATCHDOG=1` is due, or None when none is asked for.

    `WATCHDOG_PID` is heeded (sd_watchdog_enabled(3)): a child does not answer for its parent.
    """
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        owner = int(environment.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 and owner == os.getpid() else None
