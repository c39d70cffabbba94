"""A mount from its beginning to its end: prepared, served, and surely taken away again.

The service manager, if there is one, is told of each of these.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from casfs.errors import MountPointError
from casfs.mount.filesystem import (
    Filesystem,
    answer_requests,
    attach,
    detach,
    stop_answering,
)
from casfs.mount.mountpoint import (
    FILESYSTEM_TYPE,
    is_private,
    mounts_at,
    prepare_mountpoint,
    unmount,
)
from casfs.mount.readahead import raise_read_ahead
from casfs.mount.supervision import keep_telling, tell_ready, tell_stopping
from casfs.mount.verified import Verification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from casfs.mount.views import ArchiveView

log = logging.getLogger(__name__)

_STOP_SECONDS = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PRIVATE = (
    "the mount at %s is visible to this service alone, because it runs in a mount namespace of"
    " its own; take PrivateTmp=, ProtectSystem=, ProtectHome= and their like off its unit"
)


class MountOptions(Struct, frozen=True):
    """How to mount."""

    allow_other: bool = False
    """Other users may read too (root may always grant that; see user_allow_other in fuse.conf)."""
    allow_nonempty: bool = False
    """The mount point may hold files, which the mount hides."""
    uid: int | None = None
    """Whom everything belongs to; None: the user who mounts."""
    gid: int | None = None
    """Which group everything belongs to; None: that of the user who mounts."""
    umask: int = 0
    """Which of the permissions to read (and to enter) are taken away."""
    verification: Verification = Verification.OPEN
    """When content is checked against its hash."""


async def serve(
    view: ArchiveView,
    mountpoint: str,
    options: MountOptions | None = None,
    *,
    on_mounted: Callable[[str], None] | None = None,
) -> None:
    """Mount the archive and serve it until it is unmounted, a signal comes, or cancelled.

    When this returns or raises, nothing is mounted: a mount that is in use is detached from the
    tree of names at once, and whoever still has files open in it gets ENOTCONN. One mount a process
    at a time. SIGINT, SIGTERM and SIGHUP end it if this is the main thread. Calls ``on_mounted``
    with the real path once the mount is there. Raises MountPointError.
    """
    options = MountOptions() if options is None else options
    path = await trio.to_thread.run_sync(
        lambda: prepare_mountpoint(
            mountpoint,
            allow_other=options.allow_other,
            allow_nonempty=options.allow_nonempty,
        )
    )
    _raise_descriptor_limit()
    filesystem = Filesystem(
        view,
        uid=os.geteuid() if options.uid is None else options.uid,
        gid=os.getegid() if options.gid is None else options.gid,
        umask=options.umask,
        verification=options.verification,
    )
    # From before the mount is there until after it is gone: a signal never leaves it behind.
    with _stop_signals() as signals:
        attach(filesystem, path, frozenset({"allow_other"} if options.allow_other else ()))
        try:
            log.info("mounted on %s", path)
            if await trio.to_thread.run_sync(is_private, path):
                log.warning(_PRIVATE, path)
            if on_mounted is not None:
                on_mounted(path)
            tell_ready(path)
            await _answer_until_stopped(filesystem, path, signals)
        finally:
            tell_stopping()
            detach()
            filesystem.close()
            _make_sure_it_is_gone(path)
            log.info("unmounted from %s", path)


def _stop_signals() -> AbstractContextManager[AsyncIterator[int] | None]:
    """Catch the signals that end a mount, where that is possible: in the main thread."""
    if threading.current_thread() is threading.main_thread():
        return trio.open_signal_receiver(*_SIGNALS)
    return nullcontext()


async def _answer_until_stopped(
    filesystem: Filesystem, path: str, signals: AsyncIterator[int] | None
) -> None:
    async with trio.open_nursery() as nursery:
        answering = trio.CancelScope()
        if signals is not None:
            nursery.start_soon(_stop_on_signal, signals, answering)
        nursery.start_soon(keep_telling, lambda: f"mounted: {filesystem.summary()}")
        nursery.start_soon(_read_further_ahead, filesystem, path)
        with answering:
            await answer_requests(filesystem)
        nursery.cancel_scope.cancel()


async def _stop_on_signal(signals: AsyncIterator[int], answering: trio.CancelScope) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        stop_answering()
        # A request that waits for a hung disk does not keep us.
        answering.deadline = trio.current_time() + _STOP_SECONDS


async def _read_further_ahead(filesystem: Filesystem, path: str) -> None:
    filesystem.note_read_ahead(
        await trio.to_thread.run_sync(_raise_read_ahead, path, abandon_on_cancel=True)
    )


def _raise_read_ahead(path: str) -> int | None:
    try:
        os.statvfs(path)  # answered once the kernel has set what it is about to be told otherwise
    except OSError:
        return None
    mounts = mounts_at(path)
    return raise_read_ahead(mounts[-1].device) if mounts else None


def _make_sure_it_is_gone(path: str) -> None:
    if any(mount.filesystem == FILESYSTEM_TYPE for mount in mounts_at(path)):
        try:
            unmount(path)
        except MountPointError as error:
            log.warning("%s", error)


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as we may: each open file of a reader needs one here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
