"""An archive below a directory, the supervisor that fills it, and what can be seen of both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, TypeVar

from casfs.archive import Archive
from casfs.digest import Digest, digest_of
from casfs.manifests.chain import JournalReader
from casfs.manifests.layout import BROADCAST_JOURNAL
from casfs.manifests.record import GroupRecord, Line, Record, RunRecord
from casfs.manifests.runs import kept_groups
from casfs.recorders import is_recorded, read_reports
from casfs.roots import Roots, create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.loopback.relay import Relay

R = TypeVar("R", bound=Record)

_GRACE = "30s"

CASFS = shutil.which("casfs", path=os.path.dirname(sys.executable)) or "casfs"


class Installed:
    """The archive and its supervisor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.roots = Roots.of(str(path / "cas"), str(path / "manifests"))
        create(self.roots)
        self.archive = Archive(self.roots)

    @contextlib.contextmanager
    def supervisor(self, directory: str, relay: Relay) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``casfs auto-archive`` for the time of the context; it is gone afterwards."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CASFS_")},
            "CASFS_CAS_ROOT": self.roots.cas,
            "CASFS_MANIFEST_ROOT": self.roots.manifests,
            "CASFS_CONFIG": os.devnull,
        }
        with (self._path / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(CASFS, "auto-archive", "--directory", directory, "--poll-interval=1s"),
                    *("--tls-fingerprint", relay.fingerprint, "--time-sync-wait=0"),
                    *("--min-free=1M", "--log-format=json", "--grace", _GRACE),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            yield process
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def log(self) -> str:
        """Return the end of what the supervisor and its workers have said."""
        return (self._path / "log").read_text()[-4000:]

    def workers(self) -> dict[str, int]:
        """Return the process of each broadcast that is being recorded."""
        return {
            report.broadcast: report.pid
            for directory, report in read_reports(self.roots).items()
            if is_recorded(self.roots, directory) and os.path.exists(f"/proc/{report.pid}")
        }

    def worker(self, broadcast: str) -> int | None:
        """Return the process that records a broadcast."""
        return self.workers().get(broadcast)

    def records(self, kind: type[R], broadcast: str, track: str | None = None) -> list[R]:
        """Return the records of a kind in a journal, read without any index."""
        directory = os.path.join(
            self.roots.manifests,
            self.archive.directory_of(broadcast),
            BROADCAST_JOURNAL if track is None else self.archive.directory_of(track),
        )
        return [
            item.record
            for item in JournalReader(directory)
            if isinstance(item, Line) and isinstance(item.record, kind)
        ]

    def sequences(self, broadcast: str, track: str) -> set[int]:
        """Return the sequence of every whole group of a track."""
        return {int(record.sequence) for record in self.kept(broadcast, track) if record.complete}

    def digests(self, broadcast: str, track: str) -> dict[int, Digest]:
        """Return of every whole group of a track the digest of what its object really holds."""
        return {
            int(record.sequence): digest_of(self._payload(record))
            for record in self.kept(broadcast, track)
            if record.complete
        }

    def kept(self, broadcast: str, track: str) -> list[GroupRecord]:
        """Return the groups of a track, those of runs as if each had a record of its own."""
        return [
            kept.record
            for kind in (GroupRecord, RunRecord)
            for record in self.records(kind, broadcast, track)
            for kept in kept_groups(record)
        ]

    def _payload(self, record: GroupRecord) -> bytes:
        with open(os.path.join(self.roots.cas, record.path), "rb") as file:
            file.seek(record.offset)
            return file.read(record.size)
