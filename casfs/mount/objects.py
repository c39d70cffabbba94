"""The view ``/objects``: the raw store, ``<first two digits>/<digest>.bin``.

It shows whatever the store holds, referenced or not. Nothing is remembered but the last digests
that were looked up; an inode number that has fallen out of that memory is found again by listing
its shard.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from casfs.digest import SHARD_LENGTH, is_digest, parse_digest
from casfs.errors import ObjectNotFoundError
from casfs.mount.inodes import (
    leading_bits,
    object_generation,
    object_inode,
    object_prefix,
)
from casfs.mount.tree import (
    Attributes,
    Directory,
    Entry,
    FixedDirectory,
    Kind,
    ObjectRange,
    StoredFile,
    Validity,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from casfs.digest import Digest
    from casfs.mount.tree import Node

OBJECT_SUFFIX = ".bin"
"""Ends the name of every object file."""

_REMEMBERED_DIGESTS = 65_536


class ObjectReader(Protocol):
    """What the mount asks of an object store; methods may block and come from any thread."""

    @property
    def root(self) -> str:
        """Return the directory whose filesystem holds the objects."""

    def open(self, digest: Digest) -> int:
        """Return a new read-only descriptor; raise ObjectNotFoundError if there is no object."""

    def stat(self, digest: Digest) -> os.stat_result:
        """Return the object's attributes; raise ObjectNotFoundError if there is none."""

    def shard(self, prefix: str) -> Iterable[Digest]:
        """Yield the digests that begin with these two digits, in any order."""


class ObjectsView:
    """The objects of one store as a tree; ``path`` is where its root stands in the mount.

    ``modified`` tells when the archive last changed, nanoseconds UTC: the time of every directory.
    """

    def __init__(self, store: ObjectReader, path: str, modified: Callable[[], int]) -> None:
        self._store = store
        self._known: OrderedDict[int, Digest] = OrderedDict()
        shards = [f"{number:0{SHARD_LENGTH}x}" for number in range(16**SHARD_LENGTH)]
        self.root = FixedDirectory(
            path,
            [ShardDirectory(f"{path}/{shard}", self, shard, modified) for shard in shards],
            modified,
        )

    def digests(self, shard: str) -> Iterable[Digest]:
        """Return the digests of a shard, in any order."""
        return self._store.shard(shard)

    def file(self, digest: Digest) -> ObjectFile | None:
        """Return the file that shows this object; None if the store does not hold it."""
        try:
            status = self._store.stat(digest)
        except ObjectNotFoundError:
            return None
        file = ObjectFile(digest, size=status.st_size, modified=status.st_mtime_ns)
        self._known[file.inode] = digest
        self._known.move_to_end(file.inode)
        if len(self._known) > _REMEMBERED_DIGESTS:
            self._known.popitem(last=False)
        return file

    def resolve(self, inode: int) -> ObjectFile | None:
        """Return the object file with this inode number; None if there is none, or no single one.

        Two objects whose digests share the bits of one inode number (someone must have made them
        so) are told apart only while the kernel's last lookup of either is remembered.
        """
        digest = self._known.get(inode)
        if digest is None:
            prefix = object_prefix(inode)
            found = [d for d in self.digests(prefix[:SHARD_LENGTH]) if d.startswith(prefix)]
            if len(found) != 1:
                return None
            digest = found[0]
        return self.file(digest)


class ShardDirectory(Directory):
    """The objects whose digests begin with the same two digits."""

    def __init__(
        self, path: str, view: ObjectsView, shard: str, modified: Callable[[], int]
    ) -> None:
        super().__init__(path)
        self._view = view
        self._shard = shard
        self._modified = modified

    def modified(self) -> int:
        """Return when the archive last changed."""
        return self._modified()

    def child(self, name: str) -> Node | None:
        """Return the object file, or None if the store does not hold the object."""
        stem = name.removesuffix(OBJECT_SUFFIX)
        if stem == name or not is_digest(stem) or not stem.startswith(self._shard):
            return None
        return self._view.file(parse_digest(stem))

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the objects in the order of their digests."""
        for digest in sorted(self._view.digests(self._shard)):
            # The digits after the shard's own: 60 of the bits by which the listing is ordered.
            cookie = 1 + leading_bits(digest[SHARD_LENGTH:])
            if cookie <= after:
                continue
            file = self._view.file(digest)
            if file is not None:
                yield Entry(digest + OBJECT_SUFFIX, cookie, file)


class ObjectFile(StoredFile):
    """The bytes of one object."""

    def __init__(self, digest: Digest, *, size: int, modified: int) -> None:
        self._digest = digest
        self._size = size
        self._modified = modified
        self._inode = object_inode(digest)

    @property
    def inode(self) -> int:
        """Return the number made of the digest."""
        return self._inode

    @property
    def payload(self) -> ObjectRange:
        """Return the whole object."""
        return ObjectRange(self._digest, 0, self._size)

    def attributes(self) -> Attributes:
        """Return the object's size and its file's modification time."""
        return Attributes(
            inode=self._inode,
            kind=Kind.FILE,
            size=self._size,
            modified=self._modified,
            validity=Validity.LASTING,
            generation=object_generation(self._digest),
        )

    def extended_attributes(self) -> Mapping[str, bytes]:
        """Return the digest."""
        return {"user.casfs.blake3": self._digest.encode()}
