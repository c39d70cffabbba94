"""What a verification is to look at, how hard, and for how long. Decides; does no I/O."""

from __future__ import annotations

import fnmatch
from typing import Literal

from msgspec import Struct

from casfs.digest import SHARD_LENGTH, Digest
from casfs.errors import UsageError

Level = Literal["quick", "full", "manifests"]

_WINDOW_DIGITS = 13
_CIRCLE = float(16**13)


class Plan(Struct, frozen=True, kw_only=True):
    """What was asked for. Raises UsageError, from `check`, where it does not fit together."""

    level: Level = "full"
    """``quick``: existence and size of objects; ``full``: their content; ``manifests``: only the
    journals and heads. The manifests are read at each level, and always as a whole."""
    from_disk: bool = False
    """Evict each object from the page cache before it is read."""
    bandwidth: float | None = None
    """The most bytes a second to read."""
    max_age: float | None = None
    """Leave out what was found sound within these seconds."""
    max_duration: float | None = None
    """Stop after these seconds; the next run goes on there."""
    sample: float | None = None
    """Look at this share of the objects (above 0, at most 1), at others in the next run."""
    broadcast: str | None = None
    """Only objects that broadcasts of this name, or matching this glob, need."""
    since: int | None = None
    """Only objects that groups received from this instant on need, nanoseconds UTC."""
    until: int | None = None
    """And before this one."""
    quarantine: bool = False
    """Move damaged objects aside."""
    repair_from: tuple[str, ...] = ()
    """CAS roots that copies of damaged and missing objects may be taken from."""

    def check(self) -> None:
        """Raise UsageError if some of it contradicts the rest."""
        reading = {
            "--from-disk": self.from_disk,
            "--bwlimit": self.bandwidth is not None,
            "--max-age": self.max_age is not None,
            "--max-duration": self.max_duration is not None,
        }
        choosing = {
            "--sample": self.sample is not None,
            "--broadcast": self.broadcast is not None,
            "--since": self.since is not None,
            "--until": self.until is not None,
            "--quarantine": self.quarantine,
            "--repair-from": bool(self.repair_from),
        }
        refused = {"full": {}, "quick": reading, "manifests": reading | choosing}[self.level]
        for name, given in refused.items():
            if given:
                raise UsageError(
                    f"{name} cannot be combined with --{self.level}", advice="leave one of them out"
                )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise UsageError("--since is not before --until", advice="swap them")

    @property
    def remembers(self) -> bool:
        """Whether it means nothing without a state that is kept between runs."""
        return self.max_age is not None or self.max_duration is not None

    @property
    def uses_state(self) -> bool:
        """Whether it adds to what is remembered: only what was read says anything about later."""
        return self.level == "full" or self.sample is not None

    @property
    def selects(self) -> bool:
        """Whether objects are chosen by the groups that need them."""
        return (self.broadcast, self.since, self.until) != (None, None, None)

    @property
    def everything(self) -> bool:
        """Whether no object is left out by choice."""
        return not self.selects and self.sample is None

    @property
    def key(self) -> str:
        """Names the choice of objects: runs with the same key go on where the last one stopped."""
        return f"{self.broadcast!r} {self.since} {self.until} {self.sample}"

    def matches(self, broadcast: str) -> bool:
        """Say whether a broadcast of this name is chosen."""
        pattern = self.broadcast
        return pattern is None or broadcast == pattern or fnmatch.fnmatchcase(broadcast, pattern)

    def sampled(self, digest: Digest, start: float) -> bool:
        """Say whether an object falls into the sample that begins at ``start`` (of 0 to 1).

        The digests lie on a circle, evenly; a sample is an arc of it, and the next run's sample is
        the arc behind it. So 20 samples of 5 % hold every object once.
        """
        if self.sample is None:
            return True
        place = int(digest[SHARD_LENGTH : SHARD_LENGTH + _WINDOW_DIGITS], 16) / _CIRCLE
        return (place - start) % 1.0 < self.sample
