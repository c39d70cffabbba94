"""The whole mount: every view in its place.

```
/broadcasts/...     casfs.mount.broadcasts
/objects/...        casfs.mount.objects
/.casfs/version     the version of casfs, one line
/.casfs/status.json casfs.mount.status
```

A further view is a directory in the root, and, if its files have inode numbers of a family of their
own, one more resolver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs import __version__
from casfs.index.lookup import Lookup
from casfs.mount.broadcasts import BroadcastsView
from casfs.mount.inodes import ROOT_PATH, Family
from casfs.mount.objects import ObjectReader, ObjectsView
from casfs.mount.status import Counters, MountStatus, render_status
from casfs.mount.tree import FixedDirectory, GeneratedFile, Tree
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Callable


class ArchiveView(Struct, frozen=True):
    """The archive as a mount sees it. Whoever made it keeps it open while it is mounted."""

    lookup: Lookup
    """What the manifests say."""
    objects: ObjectReader
    """The bytes."""
    archive: str | None = None
    """The archive's id, for ``status.json``."""


def build_tree(view: ArchiveView, counters: Counters, mounted: int) -> Tree:
    """Return the tree of a mount that began at ``mounted``, nanoseconds UTC."""
    broadcasts = BroadcastsView(view.lookup, "/broadcasts")
    modified = broadcasts.root.modified
    objects = ObjectsView(view.objects, "/objects", modified)

    def status() -> bytes:
        return render_status(
            MountStatus(
                version=__version__,
                archive=view.archive,
                mounted=format_time(mounted),
                broadcasts=len(view.lookup.broadcasts()),
                open_files=counters.open_files,
                verified_opens=counters.verified_opens,
                remembered_opens=counters.remembered_opens,
                prefetched=counters.prefetched,
                read_ahead_bytes=counters.read_ahead_bytes,
                damaged_opens=counters.damaged_opens,
                damaged_reads=counters.damaged_reads,
                damaged=tuple(counters.damaged),
            )
        )

    own = FixedDirectory(
        "/.casfs",
        [
            RenderedFile("/.casfs/status.json", status, modified),
            RenderedFile("/.casfs/version", f"{__version__}\n".encode, modified),
        ],
        modified,
    )
    root = FixedDirectory(ROOT_PATH, [broadcasts.root, objects.root, own], modified)
    return Tree(
        root,
        {Family.GROUP: broadcasts.resolve, Family.OBJECT: objects.resolve},
        {Family.GROUP: broadcasts.following},
    )


class RenderedFile(GeneratedFile):
    """A file whose bytes a function gives."""

    def __init__(
        self, path: str, content: Callable[[], bytes], modified: Callable[[], int]
    ) -> None:
        super().__init__(path)
        self._content = content
        self._modified = modified

    def render(self) -> bytes:
        """Return the bytes as they are now."""
        return self._content()

    def modified(self) -> int:
        """Return when the archive last changed."""
        return self._modified()
