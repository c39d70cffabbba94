"""What is on air while a supervisor is watched: groups of media, remembered by their digests."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from casfs.digest import Digest, digest_of
from tools.supervision.media import fragment, init_segment

if TYPE_CHECKING:
    from tools.loopback.publisher import Publisher

TRACK = "video0.m4s"
INIT = "init.mp4"
GROUP_SECONDS = 0.5

_KEPT_SECONDS = 150
"""How long relay and publisher keep a group for those who come back."""


class Player(threading.Thread):
    """Publishes groups on every broadcast that is on air, and remembers them."""

    def __init__(self, publisher: Publisher, bitrate: int) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, dict[int, Digest]] = {}
        """Of each broadcast that ever was, the digest of each group of its media."""
        self.sent_at: dict[str, dict[int, float]] = {}
        """When each of these groups was sent, seconds UTC."""
        self.bytes = 0
        self._publisher = publisher
        self._size = int(bitrate * GROUP_SECONDS / 8)
        self._on_air: list[str] = []
        self._done = threading.Event()
        self._lock = threading.Lock()

    @property
    def on_air(self) -> set[str]:
        """The broadcasts that go on."""
        return set(self._on_air)

    def add(self, name: str) -> None:
        """Put a broadcast on air."""
        with self._lock:
            self._publisher.create_broadcast(name)
            for track in (INIT, TRACK):
                self._publisher.create_track(name, track, max_age=_KEPT_SECONDS)
            self._publisher.announce(name)
            self._publisher.append_group(name, INIT, [init_segment()])
            self.sent[name], self.sent_at[name] = {}, {}
            self._on_air.append(name)

    def rest(self, name: str) -> None:
        """Send no more of a broadcast; what was sent is still to be had."""
        with self._lock:
            self._on_air.remove(name)

    def remove(self, name: str) -> None:
        """End a broadcast that rests."""
        with self._lock:
            self._publisher.end_broadcast(name)

    def run(self) -> None:
        """Publish until `finish`."""
        due = time.monotonic()
        while not self._done.is_set():
            for name in list(self._on_air):
                self._send(name)
            due = max(due + GROUP_SECONDS, time.monotonic())
            self._done.wait(due - time.monotonic())

    def finish(self) -> None:
        """End it."""
        self._done.set()
        self.join()

    def _send(self, name: str) -> None:
        number = len(self.sent[name])
        payload = fragment(number, self._size, int(1000 * GROUP_SECONDS))
        with self._lock:
            if name in self._on_air:
                sequence = self._publisher.append_group(name, TRACK, [payload])
                self.sent_at[name][sequence] = time.time()
                self.sent[name][sequence] = digest_of(payload)
                self.bytes += len(payload)
