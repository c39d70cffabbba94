"""``casfs auto-archive``: carries out what `ingest.supervision` decides.

One task for each source, one for each worker, one that decides. Workers are processes of their own;
nothing of a broadcast's data passes through here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from typing import TYPE_CHECKING

import trio

from casfs.archive import Archive
from casfs.errors import CasfsError
from casfs.recorders import (
    is_supervised,
    lock_supervisor,
    read_remembered,
    read_report,
    remove_report,
    sweep_reports,
)
from casfs.systemd import notify
from ingest.directory import Listed
from ingest.notifying import keep_notifying, say_stopping
from ingest.plan import Plan, needs_a_start, plan_of
from ingest.sources import SourceState, follow_relay, poll_directory, shown_directory, shown_relay
from ingest.supervision import Phase, Start, Stop, Supervision
from ingest.timesync import wait_for_clock
from ingest.watching import Watch
from ingest.worker import Worker, credentials_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from casfs.config import Loaded
    from casfs.roots import Roots
    from ingest.directory import Listing

_LOG = logging.getLogger(__name__)

_TICK = 1.0
_KILL_AFTER = 80.0
"""Seconds that a worker has for its end."""
_LOCK_PATIENCE = 20.0
_PINNED = "pinned"
_REMEMBERED = "remembered"


def supervise(load: Callable[[], Loaded]) -> None:
    """Record what the sources list until SIGTERM or SIGINT.

    ``load`` returns the settings in force, now and again at each SIGHUP. Raises ConfigError,
    ArchiveError (WriterLockedError if another supervisor runs), StorageError.
    """
    plan = plan_of(load())
    archive = Archive(plan.roots, index_path=plan.workers.index)
    trio.run(_supervise, Supervisor(archive, plan, load))


async def _supervise(supervisor: Supervisor) -> None:
    roots = supervisor.archive.roots
    if not await _wait_for_the_one_before(roots):
        return
    with lock_supervisor(roots):
        sweep_reports(roots)
        await supervisor.run()


async def _wait_for_the_one_before(roots: Roots) -> bool:
    """Wait while another supervisor runs, but not for ever: it may be on its way out.

    False: we were asked to end meanwhile.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            asked = False

            async def watch_signals() -> None:
                nonlocal asked
                number = await anext(aiter(signals))
                asked = True
                _LOG.warning("ended by %s before it began", signal.Signals(number).name)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_signals)
            with trio.move_on_after(_LOCK_PATIENCE):
                while await trio.to_thread.run_sync(is_supervised, roots):  # noqa: ASYNC110  a file
                    await trio.sleep(_TICK)
            nursery.cancel_scope.cancel()
    return not asked


class Supervisor:
    """Sources, workers, and the decisions between them. ``start``: how a worker is started."""

    def __init__(
        self,
        archive: Archive,
        plan: Plan,
        load: Callable[[], Loaded],
        *,
        start: Callable[..., Worker] = Worker,
    ) -> None:
        self.archive = archive
        self.plan = plan
        self.supervision = Supervision(plan.policy)
        self.sources: dict[str, SourceState] = {}
        self.workers: dict[str, Worker] = {}
        self.status = "starting"
        self._begun_with = plan
        self._load = load
        self._start = start
        self._wake = trio.Event()
        self._tasks: dict[str, trio.CancelScope] = {}
        self._keys: dict[str, object] = {}
        self._ending = False

    async def run(self) -> None:
        """Supervise until a signal ends it; then every worker has ended."""
        try:
            async with trio.open_nursery() as nursery:
                with trio.open_signal_receiver(
                    signal.SIGINT, signal.SIGTERM, signal.SIGHUP
                ) as signals:
                    nursery.start_soon(keep_notifying, self.summary)
                    nursery.start_soon(Watch(self).run)
                    nursery.start_soon(self._begin, nursery)
                    await self._watch_signals(signals, nursery)
                    say_stopping()
                    await self._end()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _innermost(group) from None

    def summary(self) -> str:
        """Return one line that says what goes on."""
        phases = [item.phase for item in self.supervision.supervised()]
        parts = [f"{phases.count(Phase.RECORDING)} recording"]
        waiting = phases.count(Phase.WAITING)
        if waiting:
            parts.append(f"{waiting} waiting")
        troubled = sum(bool(state.trouble) for state in self.sources.values())
        if troubled:
            parts.append(f"{troubled} of {len(self.sources)} sources in trouble")
        return f"{self.status}: {', '.join(parts)}"

    # Sources

    async def _begin(self, nursery: trio.Nursery) -> None:
        """Begin where the supervisor before us was ended, as long as no source says otherwise."""
        remembered = [
            Listed(item.broadcast, (item.relay,), item.tracks)
            for item in read_remembered(self.archive.roots)
        ]
        self.status = "waiting for the clock"
        await wait_for_clock(self.plan.time_sync_wait)
        self.status = "running"
        self.supervision.take_listing(_REMEMBERED, remembered, trio.current_time())
        self._set_sources(nursery)
        nursery.start_soon(self._decide_for_ever, nursery)

    def _set_sources(self, nursery: trio.Nursery) -> None:
        """Begin to ask new sources, and those that are asked in another way; end the others."""
        plan = self.plan
        wanted = dict.fromkeys(plan.directories, (plan.fetching,)) | {
            f"announced by {url}": (plan.tls, plan.session) for url in plan.announced_by
        }
        for key in [key for key in self._tasks if self._keys[key] != wanted.get(key)]:
            self._tasks.pop(key).cancel()
            if key not in wanted:
                self.supervision.drop_source(key, trio.current_time())
                del self.sources[key], self._keys[key]
        for key, how in wanted.items():
            if key not in self._tasks:
                self._keys[key] = how
                self._tasks[key] = trio.CancelScope()
                nursery.start_soon(self._run_source, key, self._tasks[key])
        pinned = tuple(Listed(name) for name in plan.broadcasts)
        self.supervision.take_listing(_PINNED, pinned, trio.current_time())
        self._forget_remembered()
        self._wake.set()

    async def _run_source(self, key: str, scope: trio.CancelScope) -> None:
        url = key.removeprefix("announced by ")
        tell = functools.partial(self._take_listing, key)
        with scope:
            if url != key:
                state = self.sources.setdefault(key, SourceState(shown_relay(url)))
                await follow_relay(
                    url,
                    self.plan.tls,
                    self.plan.session,
                    state,
                    tell,
                    credentials=credentials_for(self.plan.workers, url),
                )
            else:
                state = self.sources.setdefault(key, SourceState(shown_directory(url)))
                await poll_directory(url, self.plan.fetching, self._interval, state, tell)

    def _forget_remembered(self) -> None:
        """Once every source has answered, what they list is all there is."""
        if all(key in self.sources and self.sources[key].asked for key in self._tasks):
            self.supervision.drop_source(_REMEMBERED, trio.current_time())

    def _interval(self) -> float:
        return self.plan.poll_interval

    def _take_listing(self, key: str, listing: Listing) -> None:
        self.supervision.take_listing(key, listing.listed, trio.current_time())
        self._forget_remembered()
        self._wake.set()

    # Workers

    def wake(self) -> None:
        """Have decisions made now."""
        self._wake.set()

    async def _decide_for_ever(self, nursery: trio.Nursery) -> None:
        while not self._ending:
            for action in self.supervision.decide(trio.current_time()):
                match action:
                    case Start():
                        nursery.start_soon(self._work, action)
                    case Stop(broadcast=broadcast, reason=reason):
                        _say(broadcast, f"ends: {reason}")
                        nursery.start_soon(self._stop, self.workers.get(broadcast))
            self._wake = trio.Event()
            with trio.move_on_after(_TICK):
                await self._wake.wait()

    async def _work(self, action: Start) -> None:
        """Run one worker to its end."""
        broadcast = action.broadcast
        code = 1
        if self._ending:
            return
        try:
            worker = self._start(self.plan.workers, broadcast, action.relay, action.tracks)
        except (OSError, ValueError) as error:
            _LOG.error("no recorder can be started: %s", error, extra={"broadcast": broadcast})
        else:
            self.workers[broadcast] = worker
            _say(broadcast, f"recorder {worker.pid} started for {shown_relay(action.relay)}")
            try:
                code = await worker.wait()
            finally:
                self.workers.pop(broadcast, None)
            await trio.to_thread.run_sync(self._sweep, broadcast, worker.pid)
            _say(broadcast, f"recorder {worker.pid} ended {_how(code)}")
        self.supervision.worker_ended(broadcast, code, trio.current_time())
        self._wake.set()

    def _sweep(self, broadcast: str, pid: int) -> None:
        """Take away the report that a worker left behind: it was killed."""
        roots, directory = self.archive.roots, self.archive.directory_of(broadcast)
        report = read_report(roots, directory)
        if report is not None and report.pid == pid:
            remove_report(roots, directory)

    async def _stop(self, worker: Worker | None) -> None:
        if worker is None:
            return
        worker.stop()
        with trio.move_on_after(_KILL_AFTER):
            await worker.ended.wait()
            return
        _LOG.error("it does not end, and is killed", extra={"broadcast": worker.broadcast})
        worker.kill()

    async def _end(self) -> None:
        """End every worker in good order."""
        self.status = "stopping"
        self._ending = True
        for scope in self._tasks.values():
            scope.cancel()
        async with trio.open_nursery() as nursery:
            for worker in list(self.workers.values()):
                nursery.start_soon(self._stop, worker)

    # Signals

    async def _watch_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        """Return when the end was asked for."""
        async for number in signals:
            if number != signal.SIGHUP:
                return
            self._reload(nursery)

    def _reload(self, nursery: trio.Nursery) -> None:
        """Read the settings again. Bad ones change nothing; recordings that run go on as they are.

        The roots stay what they were until a new start, and metrics where they were.
        """
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        with contextlib.ExitStack() as finally_:
            finally_.callback(notify, "READY=1")
            try:
                plan = plan_of(self._load())
            except CasfsError as error:
                _LOG.error("the settings stay as they were: %s", error)
                return
            if plan.roots != self.plan.roots:
                _LOG.error(
                    "the settings stay as they were: cas-root and manifest-root change only with a"
                    " new start (systemctl restart), which interrupts every recording"
                )
                return
            for name in needs_a_start(self._begun_with, plan):
                _LOG.warning(
                    "%s: what the settings say now holds after a new start (systemctl restart);"
                    " until then it stays as it was",
                    name,
                )
            self.plan = plan
            self.supervision.configure(plan.policy, trio.current_time())
            if self.status == "running":
                self._set_sources(nursery)
            _LOG.info("the settings were read again")


def _say(broadcast: str, text: str) -> None:
    _LOG.info("%s", text, extra={"broadcast": broadcast})


def _how(code: int) -> str:
    if code < 0:
        return f"by signal {-code}"
    return "in good order" if code == 0 else f"with exit code {code}"


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one failure that matters: a cancellation is only its consequence."""
    _, failures = group.split(trio.Cancelled)
    inner: BaseException = failures if failures is not None else group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
