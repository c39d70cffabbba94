"""What recorders and their supervisor last reported: small files, for whoever looks.

``<manifest root>/.casfs/recorders/<broadcast>.json`` is replaced every few seconds by the recorder
of that broadcast, and ``@supervisor.json`` by the supervisor (no encoded name begins with ``@``).
They are written at once or not at all but never synced: they are worth nothing after a crash.
Whether the one who wrote it still runs is known by the lock that it holds, not by its age.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from casfs.durable import open_directory
from casfs.errors import WriterLockedError, storage_error
from casfs.roots import OWN, Roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RECORDERS = os.path.join(OWN, "recorders")
"""The directory of the reports, below the manifest root."""

_SUPERVISOR = "@supervisor"
_REMEMBERED = "@recording"
_MOST_BYTES = 4 << 20
_TEMPORARY = ".new-"

T = TypeVar("T")


class TrackReport(Struct, frozen=True):
    """One track of a recorder, since it was started."""

    status: str
    """``waiting``, ``subscribed``, ``refused``, ``ended``."""
    groups: int
    bytes: int
    incomplete: int
    redelivered: int
    gaps: int
    bitrate: float
    """Payload, bits a second, over the last minute."""
    last_sequence: int | None
    last_group: str | None
    """When the newest group began to come."""


class RecorderReport(Struct, frozen=True, kw_only=True):
    """A recorder, since it was started."""

    broadcast: str
    relay: str
    """Scheme, host and port."""
    protocol: str
    status: str
    pid: int
    host: str
    recorder: str
    """The id that its records carry."""
    since: str
    """When it was started."""
    updated: str
    """When it wrote this."""
    last_group: str | None
    """When the newest group of any track began to come."""
    connections: int
    epoch: int
    groups: int
    bytes: int
    new_bytes: int
    incomplete: int
    redelivered: int
    gaps: int
    pending_groups: int
    bitrate: float
    """Payload, bits a second, over the last minute."""
    new_bitrate: float
    """Of that, what was not in the store before."""
    relay_trouble: str
    disk_trouble: str
    index_trouble: str
    tracks: dict[str, TrackReport]


class SourceReport(Struct, frozen=True, kw_only=True):
    """A directory or relay that is asked what there is."""

    source: str
    listed: int
    refused: int
    """Entries that were not taken."""
    asked: str | None
    """When it last answered."""
    trouble: str


class SupervisedReport(Struct, frozen=True, kw_only=True):
    """A broadcast that a supervisor knows."""

    broadcast: str
    phase: str
    """``waiting``, ``recording`` or ``stopping``."""
    listed: bool
    pid: int | None
    restarts: int
    waiting_for: str


class SupervisorReport(Struct, frozen=True, kw_only=True):
    """A supervisor and all that it knows."""

    pid: int
    host: str
    since: str
    updated: str
    status: str
    room: str
    """``ample``, ``low`` or ``critical``."""
    min_free: int
    """Bytes that were asked for, of the disk that lacks most."""
    sources: list[SourceReport] = field(default_factory=list)
    broadcasts: list[SupervisedReport] = field(default_factory=list)


class Remembered(Struct, frozen=True):
    """A recording that a supervisor's successor is to take up, also if no directory answers."""

    broadcast: str
    relay: str
    tracks: tuple[str, ...] = ()


def write_remembered(roots: Roots, recordings: Sequence[Remembered]) -> None:
    """Replace what a successor is to take up; for our user alone to read. Raises OSError."""
    _replace(roots, _REMEMBERED, list(recordings), mode=0o600)


def read_remembered(roots: Roots) -> list[Remembered]:
    """Return what the supervisor before us recorded last; nothing if that cannot be read."""
    return _read(roots, _REMEMBERED, list[Remembered]) or []


def write_report(roots: Roots, directory: str, report: RecorderReport) -> None:
    """Replace the report of the broadcast in this (encoded) directory; raises OSError."""
    _replace(roots, directory, report)


def write_supervisor_report(roots: Roots, report: SupervisorReport) -> None:
    """Replace the supervisor's report; raises OSError."""
    _replace(roots, _SUPERVISOR, report)


def read_report(roots: Roots, directory: str) -> RecorderReport | None:
    """Return what the recorder of a broadcast last reported; None if nothing that can be read."""
    return _read(roots, directory, RecorderReport)


def read_reports(roots: Roots) -> dict[str, RecorderReport]:
    """Return all recorders' reports by the broadcasts' (encoded) directories, in their order."""
    try:
        names = sorted(os.listdir(os.path.join(roots.manifests, RECORDERS)))
    except OSError:
        return {}
    found: dict[str, RecorderReport] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == ".json" and not name.startswith(("@", ".")):
            report = read_report(roots, stem)
            if report is not None:
                found[stem] = report
    return found


def read_supervisor_report(roots: Roots) -> SupervisorReport | None:
    """Return what the supervisor last reported; None if nothing that can be read."""
    return _read(roots, _SUPERVISOR, SupervisorReport)


def remove_report(roots: Roots, directory: str) -> None:
    """Take a report away, if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(_path(roots, directory))


def remove_supervisor_report(roots: Roots) -> None:
    """Take the supervisor's report away, if it is there."""
    remove_report(roots, _SUPERVISOR)


def is_recorded(roots: Roots, directory: str) -> bool:
    """Say whether anybody holds the lock of the broadcast in this (encoded) directory."""
    return _is_locked(os.path.join(roots.manifests, directory))


def is_supervised(roots: Roots) -> bool:
    """Say whether a supervisor runs."""
    return _is_locked(os.path.join(roots.manifests, RECORDERS))


def sweep_reports(roots: Roots) -> None:
    """Take away the reports of recorders that are gone, and temporaries of those that were killed.

    For the one supervisor alone.
    """
    for directory in read_reports(roots):
        if not is_recorded(roots, directory):
            remove_report(roots, directory)
    place = os.path.join(roots.manifests, RECORDERS)
    with contextlib.suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(_TEMPORARY) and not _runs(name.removeprefix(_TEMPORARY)):
                os.unlink(os.path.join(place, name))


@contextlib.contextmanager
def lock_supervisor(roots: Roots) -> Iterator[None]:
    """Be the one supervisor of an archive; raises WriterLockedError, StorageError."""
    path = os.path.join(roots.manifests, RECORDERS)
    with contextlib.ExitStack() as held:
        try:
            os.makedirs(path, exist_ok=True)
            descriptor = held.enter_context(open_directory(path))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WriterLockedError(
                f"another supervisor runs for the archive at {roots.manifests}",
                advice="give that one all directories, or stop it first",
            ) from None
        except OSError as error:
            raise storage_error(error, "locking", path) from error
        yield


def _is_locked(path: str) -> bool:
    try:
        with open_directory(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _runs(pid: str) -> bool:
    return pid.isdigit() and os.path.exists(f"/proc/{pid}")


def _path(roots: Roots, name: str) -> str:
    return os.path.join(roots.manifests, RECORDERS, f"{name}.json")


def _replace(roots: Roots, name: str, report: object, *, mode: int = 0o644) -> None:
    path = _path(roots, name)
    temporary = os.path.join(os.path.dirname(path), f"{_TEMPORARY}{os.getpid()}")
    data = msgspec.json.encode(report) + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(temporary, flags, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _read(roots: Roots, name: str, kind: type[T]) -> T | None:
    try:
        with open(_path(roots, name), "rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
