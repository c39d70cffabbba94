"""A directory that somebody reads: long ones are fetched ahead while the kernel takes them in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from casfs.mount.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.mount.tree import Directory, Listed
    from casfs.mount.workers import Workers


class OpenListing:
    """The entries of ``directory`` for one reader; whatever blocks is done by ``workers``."""

    def __init__(self, directory: Directory, workers: Workers) -> None:
        self.directory = directory
        self._listing = Listing(directory)
        self._workers = workers
        self._fetching = trio.Lock()

    async def behind(self, after: int) -> Sequence[Listed]:
        """Return entries whose cookies are above ``after``, in order; none only at the end."""
        if self._listing.ends_at(after):
            return ()
        portion = self._listing.buffered(after)
        if not portion:
            async with self._fetching:
                portion = self._listing.buffered(after) or await self._workers.ask(
                    self._listing.fetch, after
                )
        if self._listing.is_long and not self._fetching.locked():
            self._workers.in_background(self._fetch_next)
        return portion

    async def _fetch_next(self) -> None:
        async with self._fetching:
            if self._listing.is_long:
                await self._workers.ask(self._listing.fetch_next)
