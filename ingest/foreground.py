"""A recorder in the foreground: signals, a time limit, a display, and an honest end."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import time
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from casfs.errors import ConnectError, NotFoundError, WriterLockedError
from casfs.follower import Follower
from casfs.names import name_bytes
from ingest.display import show_recorder
from ingest.early_stop import EarlyStop, StoppedEarlyError
from ingest.moq.negotiation import offer
from ingest.notifying import keep_notifying, say_stopping
from ingest.parent import check_stdin, sleep_or_stdin_closed, stdin_closed
from ingest.recorder import Recorder, RecordOptions
from ingest.relay_url import parse_relay_url
from ingest.reporting import Reporter, keep_reporting, log_reports
from ingest.state import RecorderState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from casfs.archive import Archive, BroadcastWriter

_LOG = logging.getLogger(__name__)

_DURATION = "the duration is over"
_ORPHANED = "standard input was closed"
_LOCK_EVERY = 0.25
_INDEX_SECONDS = 30.0
"""What the index may take once the end has begun: its disk may hang, and it can be made anew."""


class ForegroundOptions(Struct, frozen=True):
    """How a recorder runs, and when it ends."""

    duration: float | None = None
    """After so many seconds."""
    wait_for_lock: float = 0.0
    """Seconds for another recorder of the broadcast to end."""
    stop_with_stdin: bool = False
    """When standard input is closed, as it is when whoever started us is gone."""
    log_state: bool = False
    """Log the state once a minute instead of showing it."""


def spare_the_collector() -> None:
    """Have Python look for cycles less often, and never among what is imported.

    A packet makes dozens of objects that count, none of which is in a cycle; the search would cost
    a recorder some per cent of its time.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def record_in_foreground(
    archive: Archive, options: RecordOptions, run: ForegroundOptions
) -> RecorderState:
    """Record until SIGINT, SIGTERM or what ``run`` says; return what was done.

    Whatever was received is durable and indexed then. Raises the relay's error if no session came
    about in all that time, NotFoundError if the broadcast never appeared, ArchiveError,
    StorageError, and UsageError before anything is touched.
    """
    origin = parse_relay_url(options.url).origin
    options.tls.check()
    offer(options.session.protocols)
    for name in (options.broadcast, *options.tracks):
        name_bytes(name)
    if run.stop_with_stdin:
        check_stdin()
    state = RecorderState(broadcast=options.broadcast, relay=origin)
    spare_the_collector()
    try:
        _record(archive, options, run, state)
    except StoppedEarlyError as stop:
        _LOG.warning("ended by %s before it began to record", stop)
    return state


def _record(
    archive: Archive, options: RecordOptions, run: ForegroundOptions, state: RecorderState
) -> None:
    """As `record_in_foreground`; raises StoppedEarlyError as well."""
    early = EarlyStop()
    with contextlib.closing(Follower(archive)) as mirror, early.heed():
        with contextlib.ExitStack() as held:
            writer = _writer(archive, options.broadcast, state.relay, run, held)
            early.looping = True
            if writer is None:
                return
            writer.on_commit = mirror.note
            recorder = Recorder(options, writer, mirror, state)
            try:
                writer.stop_reason = trio.run(_run, recorder, state, writer, mirror, run, early)
            finally:
                early.ending = True
                places = writer.places
        mirror.hurry(_INDEX_SECONDS)
        mirror.step(places)
        state.index_trouble = mirror.trouble
    if run.duration is not None and not state.groups and writer.stop_reason == _DURATION:
        _complain_of_nothing(recorder, options, state)


def _writer(
    archive: Archive,
    broadcast: str,
    relay: str,
    run: ForegroundOptions,
    held: contextlib.ExitStack,
) -> BroadcastWriter | None:
    """Enter the broadcast's writer, waiting for its lock; None if stdin was closed meanwhile."""
    deadline = time.monotonic() + run.wait_for_lock
    while True:
        try:
            return held.enter_context(archive.writer(broadcast, relay=relay))
        except WriterLockedError:
            if time.monotonic() >= deadline:
                raise
        if not run.stop_with_stdin:
            time.sleep(_LOCK_EVERY)
        elif sleep_or_stdin_closed(_LOCK_EVERY):
            return None


async def _run(
    recorder: Recorder,
    state: RecorderState,
    writer: BroadcastWriter,
    mirror: Follower,
    run: ForegroundOptions,
    early: EarlyStop,
) -> str:
    """Run the recorder and return why it ended."""
    reason = "stopped"
    failure: BaseException | None = None

    def end(why: str) -> None:
        nonlocal reason
        reason = why
        mirror.hurry(_INDEX_SECONDS)
        recorder.stop()

    async def watch_signals(signals: AsyncIterator[int]) -> None:
        async for number in signals:
            end(signal.Signals(number).name)

    async def watch_time(seconds: float) -> None:
        await trio.sleep(seconds)
        end(_DURATION)

    async def watch_stdin() -> None:
        await stdin_closed()
        end(_ORPHANED)

    archive = writer.archive
    reporter = Reporter(state, writer.recorder)
    directory = archive.directory_of(writer.broadcast)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_signals, signals)
            if run.log_state:
                nursery.start_soon(log_reports, reporter)
            else:
                nursery.start_soon(show_recorder, state)
            nursery.start_soon(keep_reporting, reporter, archive.roots, directory)
            nursery.start_soon(keep_notifying, lambda: f"{state.status}, {state.groups} groups")
            if run.duration is not None:
                nursery.start_soon(watch_time, run.duration)
            if run.stop_with_stdin:
                nursery.start_soon(watch_stdin)
            if early.noted:
                end(early.noted)
            try:
                await recorder.run()
            except Exception as error:  # noqa: BLE001  raised again below, outside the nursery
                failure = error
            say_stopping()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    state.status = "stopped"
    return reason


def _complain_of_nothing(recorder: Recorder, options: RecordOptions, state: RecorderState) -> None:
    if not state.connections:
        raise recorder.last_error or ConnectError(
            f"no answer from {state.relay} in all that time",
            advice="check host and port, and that UDP gets through",
        )
    if not any(track.redelivered for track in state.tracks.values()):
        seen = "sent nothing of" if state.announced else "never announced"
        raise NotFoundError(
            f"{state.relay} {seen} broadcast {options.broadcast!r}",
            advice="check the name and the path of the URL; no group was recorded",
        )
