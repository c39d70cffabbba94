"""A recorder in the foreground: signals, a time limit, a display, and an honest end."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import trio

from casfs.errors import ConnectError, NotFoundError
from casfs.follower import Follower
from casfs.names import name_bytes
from ingest.display import show_recorder
from ingest.moq.negotiation import offer
from ingest.recorder import Recorder, RecordOptions
from ingest.relay_url import parse_relay_url
from ingest.state import RecorderState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from casfs.archive import Archive

_DURATION = "the duration is over"


def record_in_foreground(
    archive: Archive, options: RecordOptions, *, duration: float | None
) -> RecorderState:
    """Record until SIGINT, SIGTERM or for ``duration`` seconds; return what was done.

    Whatever was received is durable and indexed then. Raises the relay's error if no session came
    about in all that time, NotFoundError if the broadcast never appeared, ArchiveError,
    StorageError, and UsageError before anything is touched.
    """
    origin = parse_relay_url(options.url).origin
    options.tls.check()
    offer(options.session.protocols)
    for name in (options.broadcast, *options.tracks):
        name_bytes(name)
    state = RecorderState(broadcast=options.broadcast, relay=origin)
    with contextlib.closing(Follower(archive)) as mirror:
        with archive.writer(options.broadcast, relay=origin) as writer:
            writer.on_commit = mirror.note
            recorder = Recorder(options, writer, mirror, state)
            try:
                writer.stop_reason = trio.run(_run, recorder, state, duration)
            finally:
                places = writer.places
        mirror.step(places)
        state.index_trouble = mirror.trouble
    if duration is not None and not state.groups and writer.stop_reason == _DURATION:
        _complain_of_nothing(recorder, options, state)
    return state


async def _run(recorder: Recorder, state: RecorderState, duration: float | None) -> str:
    """Run the recorder and return why it ended."""
    reason = "stopped"
    failure: BaseException | None = None

    async def watch_signals(signals: AsyncIterator[int]) -> None:
        nonlocal reason
        async for number in signals:
            reason = signal.Signals(number).name
            recorder.stop()

    async def watch_time(seconds: float) -> None:
        nonlocal reason
        await trio.sleep(seconds)
        reason = _DURATION
        recorder.stop()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_signals, signals)
            nursery.start_soon(show_recorder, state)
            if duration is not None:
                nursery.start_soon(watch_time, duration)
            try:
                await recorder.run()
            except Exception as error:  # noqa: BLE001  raised again below, outside the nursery
                failure = error
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
