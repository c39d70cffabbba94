"""Cutting a filesystem's power and copying all mounts take turns, whatever runs beside each other.

A filesystem that was shut down can be mounted again once its last mount is gone. A new mount
namespace copies every mount of the machine, and would keep it from going.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = f"casfs-tests-mounts-{os.geteuid()}"


@contextlib.contextmanager
def filesystems_are_cut() -> Iterator[None]:
    """Keep others from copying mounts; wait while one does."""
    with _locked(fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def mounts_are_copied() -> Iterator[None]:
    """Keep others from cutting filesystems; wait while one does."""
    with _locked(fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(operation: int) -> Iterator[None]:
    # One for the machine, not for the checkout: so far reaches what a namespace copies.
    with open(os.path.join(tempfile.gettempdir(), _LOCK), "w") as file:
        fcntl.flock(file, operation)
        yield
