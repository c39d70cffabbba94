"""The node interface: what every view is made of, and what an adapter needs to know.

A directory lists its entries after a cookie and finds one by name; a stored file says which bytes
of which object it shows; a generated file makes its bytes when it is opened; a link has a target.
Views compose these; adapters (FUSE today) walk them. This module does no I/O of its own and knows
no clock: whatever blocks is behind the stores that a view was given, so an adapter calls every
method here from one worker thread at a time.

Three promises hold for every directory: its names are unique; `Directory.child` finds exactly the
names that `Directory.entries` shows; cookies rise along a listing and stay with their names, so a
listing that is resumed shows every name once, whatever was added meanwhile.
"""

from __future__ import annotations

import abc
import enum
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from casfs.digest import Digest
from casfs.mount.inodes import ROOT_PATH, family_of, path_inode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from casfs.media.layout import Extent, Literal
    from casfs.mount.inodes import Family


class Kind(enum.Enum):
    """What a node is to the operating system."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"


class Validity(enum.Enum):
    """How long what was said about a node may be believed without asking again."""

    LASTING = "lasting"
    """It never changes, it can only expire."""
    BRIEF = "brief"
    """It may change, and a second's delay does no harm."""
    NONE = "none"
    """It may be different the next moment."""


class Attributes(Struct, frozen=True, gc=False):
    """What ``stat`` says about a node, as far as the archive knows it."""

    inode: int
    kind: Kind
    size: int
    """Bytes; of a link the length of its target; of a directory 0."""
    modified: int
    """Nanoseconds UTC."""
    validity: Validity
    generation: int = 0
    """Tells apart two nodes that happen to have one inode number."""


class ObjectRange(Struct, frozen=True):
    """Some bytes of an object."""

    digest: Digest
    offset: int
    size: int


class Node(abc.ABC):
    """Anything that has a name in the mount."""

    @property
    @abc.abstractmethod
    def inode(self) -> int:
        """Return the inode number: the same at every mount of the same archive."""

    @abc.abstractmethod
    def attributes(self) -> Attributes:
        """Return what is true of the node now."""

    def extended_attributes(self) -> Mapping[str, bytes]:
        """Return the node's extended attributes, by full name (``user.casfs.blake3``)."""
        return {}


class PathNode(Node):
    """A node whose path makes its inode number."""

    def __init__(self, path: str) -> None:
        self.path = path
        """Absolute in the mount, ``/`` for its root."""
        self._inode = path_inode(path)

    @property
    def inode(self) -> int:
        """Return the number that the path makes."""
        return self._inode

    def path_of(self, name: str) -> str:
        """Return the path of the child with this name."""
        return f"/{name}" if self.path == ROOT_PATH else f"{self.path}/{name}"


class Entry(Struct, frozen=True):
    """A name in a directory."""

    name: str
    cookie: int
    """Positive, rising along the listing, the same in every listing of this directory."""
    node: Node


class Listed(Struct, frozen=True, gc=False):
    """An entry with its attributes at the time that it was listed."""

    name: str
    cookie: int
    """As in `Entry`."""
    attributes: Attributes
    node: PathNode | None = None
    """The node if its number does not lead back to it."""


class Directory(PathNode):
    """A node with children."""

    @property
    def parent_inode(self) -> int:
        """Return the inode number that ``..`` has here; the root is its own parent."""
        return path_inode(self.path.rpartition("/")[0] or ROOT_PATH)

    @abc.abstractmethod
    def modified(self) -> int:
        """Return the time of the last change that the archive knows of, nanoseconds UTC."""

    @abc.abstractmethod
    def child(self, name: str) -> Node | None:
        """Return the child with this name, or None."""

    @abc.abstractmethod
    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries whose cookie is above ``after``, in rising order of cookies."""

    def listing(self, after: int, most: int) -> Sequence[Listed]:
        """Return ``most`` of the same entries with their attributes; fewer only at the end.

        A directory of very many files has a quicker way than to make a node of each.
        """
        return [
            Listed(
                entry.name,
                entry.cookie,
                entry.node.attributes(),
                entry.node if isinstance(entry.node, PathNode) else None,
            )
            for entry in islice(self.entries(after), most)
        ]

    def attributes(self) -> Attributes:
        """Return what is true of the directory now."""
        return Attributes(
            inode=self.inode,
            kind=Kind.DIRECTORY,
            size=0,
            modified=self.modified(),
            validity=Validity.BRIEF,
        )


class Link(PathNode):
    """A symbolic link."""

    @abc.abstractmethod
    def target(self) -> str | None:
        """Return where the link points now, relative to its directory; None once it is gone."""


class GeneratedFile(PathNode):
    """A small file whose bytes are made at the moment that they are asked for."""

    @abc.abstractmethod
    def render(self) -> bytes:
        """Return the bytes as they are now."""

    @abc.abstractmethod
    def modified(self) -> int:
        """Return the time that the file shows, nanoseconds UTC."""

    def attributes_of(self, content: bytes) -> Attributes:
        """Return what is true of the file while it has this content."""
        return Attributes(
            inode=self.inode,
            kind=Kind.FILE,
            size=len(content),
            modified=self.modified(),
            validity=Validity.NONE,
        )

    def attributes(self) -> Attributes:
        """Return what is true of the file if it is opened now."""
        return self.attributes_of(self.render())


class Prepared(Node):
    """A node of which something has to be found out before it is asked, which may take long.

    An adapter calls `prepare` from any thread, several at once if need be, before it looks into a
    directory, and before it tells the attributes of a file or opens it.
    """

    @abc.abstractmethod
    def prepare(self) -> None:
        """Find it out; returns at once when it is known. Raises NotFoundError, StorageError."""


class FileLayout(Protocol):
    """What the bytes of a file are made of: see `casfs.media.layout.Layout`."""

    @property
    def size(self) -> int:
        """Return the bytes of the file."""

    def pieces(self, position: int = 0, length: int | None = None) -> Iterator[Literal | Extent]:
        """Yield what ``length`` bytes from ``position`` consist of, in order."""

    def overlay(self, data: bytearray, position: int) -> None:
        """Write what overlays the file's bytes from ``position`` on into ``data``."""


class VirtualFile(PathNode, Prepared):
    """A file that is made of ranges of objects and of bytes that are in none.

    ``state`` tells what its content follows from: with another one it is another file.
    """

    growing = False
    """Whether more bytes may come behind those that are there."""

    def __init__(self, path: str, state: str) -> None:
        super().__init__(path)
        self._inode = path_inode(f"{path}\0{state}")

    @abc.abstractmethod
    def layout(self) -> FileLayout:
        """Return what the bytes are made of now. May block; from any thread.

        Raises NotFoundError, DamagedObjectError, StorageError.
        """


class StoredFile(Node):
    """A file whose bytes lie in an object."""

    @property
    @abc.abstractmethod
    def payload(self) -> ObjectRange:
        """Return which bytes of which object the file shows."""


class Following(Struct, frozen=True):
    """A file that whoever reads one after the other reads next."""

    file: StoredFile
    name: str | None
    """Its name if it stands in the same directory; None if it stands in another."""


class FixedDirectory(Directory):
    """A directory whose entries are known when it is made and stay the same.

    ``modified`` tells when what lies beneath last changed, nanoseconds UTC.
    """

    def __init__(
        self, path: str, children: Sequence[PathNode], modified: Callable[[], int]
    ) -> None:
        super().__init__(path)
        self._children = {child.path.rpartition("/")[2]: child for child in children}
        self._modified = modified

    def modified(self) -> int:
        """Return the time that the caller's function gives."""
        return self._modified()

    def child(self, name: str) -> Node | None:
        """Return the child with this name, or None."""
        return self._children.get(name)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries in the order that they were given in."""
        for cookie, (name, node) in enumerate(self._children.items(), start=1):
            if cookie > after:
                yield Entry(name, cookie, node)


class Tree:
    """A root, and the way back from an inode number to what it was computed from."""

    def __init__(
        self,
        root: Directory,
        resolvers: Mapping[Family, Callable[[int], StoredFile | None]],
        followers: Mapping[Family, Callable[[StoredFile, int], Sequence[Following]]] | None = None,
    ) -> None:
        self.root = root
        self._resolvers = resolvers
        self._followers = {} if followers is None else followers

    def resolve(self, family: Family, inode: int) -> StoredFile | None:
        """Return the stored file with this inode number; None if there is none now."""
        resolver = self._resolvers.get(family)
        return None if resolver is None else resolver(inode)

    def following(self, file: StoredFile, most: int) -> Sequence[Following]:
        """Return up to ``most`` files that whoever reads one after the other reads next."""
        family = family_of(file.inode)
        follower = None if family is None else self._followers.get(family)
        return () if follower is None else follower(file, most)
