"""What recordings leave out, track by track, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable


class LeftOut(Struct, frozen=True):
    """Groups of which nothing can be played."""

    track: str
    reason: str
    lacking: bool
    """The object is damaged or missing: what is left out may come back."""


class Lacks:
    """Of each track how many groups were left out, and why the first of them was."""

    def __init__(self, left_out: Iterable[LeftOut] = ()) -> None:
        self._tracks: dict[str, tuple[int, str]] = {}
        self.add(left_out)

    def add(self, left_out: Iterable[LeftOut]) -> None:
        """Count these too."""
        for item in left_out:
            count, first = self._tracks.get(item.track, (0, item.reason))
            self._tracks[item.track] = (count + 1, first)

    @property
    def kinds(self) -> frozenset[str]:
        """Return what is worth saying once: each track and its reason, whatever the count."""
        return frozenset(f"{track}: {first}" for track, (_, first) in self._tracks.items())

    def __str__(self) -> str:
        """Return all of it in a line; empty if nothing was left out."""
        return "; ".join(
            f"{track}: {count} groups left out: {first}"
            for track, (count, first) in self._tracks.items()
        )
