"""The FUSE adapter: kernel requests on one side, the tree on the other. Only here is pyfuse3 known.

- Whatever may wait for a disk is done by `casfs.mount.workers`: a slow disk delays only whoever
  asked for it.
- Nothing that a request meets ends the mount: what the archive cannot give becomes an errno, and
  what we did not foresee becomes EIO and a traceback in the log.
- The mount is read-only in the kernel, which answers EROFS by itself.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import stat
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pyfuse3
import trio

from casfs.errors import (
    CasfsError,
    DamagedObjectError,
    MountPointError,
    NotFoundError,
    ObjectNotFoundError,
)
from casfs.mount.inodes import Family, family_of
from casfs.mount.nodetable import NodeTable
from casfs.mount.openfiles import OpenBytes, OpenFiles
from casfs.mount.opening import ObjectOpener
from casfs.mount.openlistings import OpenListing
from casfs.mount.prefetch import Prefetcher
from casfs.mount.recent import Place, RecentFiles
from casfs.mount.said import standard_error_to
from casfs.mount.status import Counters
from casfs.mount.tree import (
    Attributes,
    Directory,
    GeneratedFile,
    Kind,
    Link,
    Node,
    Prepared,
    StoredFile,
    Validity,
    VirtualFile,
)
from casfs.mount.verified import Verification
from casfs.mount.views import ArchiveView, build_tree
from casfs.mount.virtual import OpenVirtual, SharedObjects
from casfs.mount.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from casfs.mount.tree import Listed

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_N = TypeVar("_N", bound=Node)

_LASTING = 300.0
_LASTS = Validity.LASTING  # looked up for each entry of a listing
_KERNEL_SECONDS = {Validity.LASTING: _LASTING, Validity.BRIEF: 0.5, Validity.NONE: 0.0}
_TYPES = {Kind.DIRECTORY: stat.S_IFDIR, Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK}
_PERMISSIONS = {Kind.DIRECTORY: 0o555, Kind.FILE: 0o444, Kind.LINK: 0o777}
_BLOCK = 512
_LONGEST_NAME = 255
_USER_ATTRIBUTES = b"user."

# Cookies of a listing as the kernel sees them: the two dot entries stand before the tree's own.
_DOT, _DOT_DOT, _TREE = 1, 2, 2

# How long a rendered file stays the same, so that its size and its bytes belong together.
_RENDERED_SECONDS = 1.0


def _answer(
    handler: Callable[_P, Coroutine[Any, Any, _T]],
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Turn every failure of a request handler into an errno for whoever asked."""

    @functools.wraps(handler)
    async def answering(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except NotFoundError as error:
            raise pyfuse3.FUSEError(errno.ENOENT) from error
        except CasfsError as error:
            cause = error.__cause__
            log.warning("a request failed: %s", error)
            number = cause.errno if isinstance(cause, OSError) else None
            raise pyfuse3.FUSEError(number or errno.EIO) from error
        except OSError as error:
            log.warning("a request failed: %s", error)
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            log.exception("a request failed unexpectedly")
            raise pyfuse3.FUSEError(errno.EIO) from error

    return answering


class Filesystem(pyfuse3.Operations):
    """Answers the kernel's requests from one archive.

    Files belong to ``uid`` and ``gid``, with the permissions that ``umask`` leaves.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        view: ArchiveView,
        *,
        uid: int,
        gid: int,
        umask: int = 0,
        verification: Verification = Verification.OPEN,
    ) -> None:
        super().__init__()
        self._view = view
        self._uid = uid
        self._gid = gid
        self._counters = Counters()
        self._tree = build_tree(view, self._counters, time.time_ns())
        self._table = NodeTable(self._tree.root)
        self._workers = Workers()
        self._opener = ObjectOpener(view, self._counters, self._workers, verification)
        self._objects = SharedObjects(self._opener, view.objects, self._workers)
        self._recent = RecentFiles(time.monotonic)
        self._prefetcher = Prefetcher(self._tree, self._opener, self._workers, self._recent)
        self._files = OpenFiles()
        self._listings: dict[int, OpenListing] = {}
        self._last_listing = 0
        self._rendered: dict[int, tuple[float, bytes]] = {}
        self._permissions = {kind: mode & ~umask for kind, mode in _PERMISSIONS.items()}
        self._listed_file = self._blank(Kind.FILE)

    def close(self) -> None:
        """Give back what is still open; the kernel asks nothing any more."""
        self._files.close_all()
        self._objects.close()
        self._opener.close()
        self._listings.clear()

    def note_read_ahead(self, size: int | None) -> None:
        """Take note of how far the kernel reads ahead, for the status."""
        self._counters.read_ahead_bytes = size

    def summary(self) -> str:
        """Return how the mount fares, in a few words."""
        return self._counters.summary()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let what runs in the background run within the block."""
        async with self._workers.background():
            self._workers.in_background(self._objects.let_go_of_unused)
            yield

    # Names and attributes

    @_answer
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: bytes, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Return the child's attributes, and count the reference that the kernel takes."""
        try:
            place = Place(parent_inode, name.decode("ascii"))
        except UnicodeDecodeError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        known = self._recent.at(place)
        if known is not None:
            return self._entry(known.attributes())
        directory = await self._prepared(await self._directory(parent_inode))
        node, attributes = await self._workers.ask(_child_with_attributes, directory, place.name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if not self._table.admits(node):
            log.warning("two paths share the inode number %d; one stays hidden", node.inode)
            raise pyfuse3.FUSEError(errno.EIO)
        if isinstance(node, GeneratedFile):
            attributes = await self._workers.ask(node.attributes_of, await self._render(node))
        if isinstance(node, VirtualFile):
            await self._prepared(node)
            attributes = await self._workers.ask(node.attributes)
        assert attributes is not None
        if isinstance(node, StoredFile):
            self._recent.note(node, place)
        self._table.reference(node)
        return self._entry(attributes)

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Take back the references that the kernel returns."""
        for inode, count in inode_list:
            self._table.forget(inode, count)
            self._rendered.pop(inode, None)

    @_answer
    async def getattr(
        self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Return the attributes that the node has now."""
        node = await self._node(inode)
        if isinstance(node, GeneratedFile):
            content = await self._render(node)
            return self._entry(await self._workers.ask(node.attributes_of, content))
        if isinstance(node, VirtualFile):
            await self._prepared(node)
        return self._entry(await self._workers.ask(node.attributes))

    @_answer
    async def readlink(self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext) -> bytes:
        """Return where the link points now."""
        node = await self._node(inode)
        if not isinstance(node, Link):
            raise pyfuse3.FUSEError(errno.EINVAL)
        target = await self._workers.ask(node.target)
        if target is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return os.fsencode(target)

    @_answer
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: bytes, _ctx: pyfuse3.RequestContext
    ) -> bytes:
        """Return one of our attributes; there are no others.

        Of other namespaces than ``user`` the mount says that it does not have them: `ls -l` then
        asks for labels and ACLs once, not once a file.
        """
        if not name.startswith(_USER_ATTRIBUTES):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        value = (await self._node(inode)).extended_attributes().get(os.fsdecode(name))
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @_answer
    async def listxattr(
        self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext
    ) -> Sequence[bytes]:
        """Return the names of the node's attributes."""
        return [os.fsencode(name) for name in (await self._node(inode)).extended_attributes()]

    @_answer
    async def statfs(self, _ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Return the figures of the disk that holds the objects."""
        disk = await self._workers.read(os.statvfs, self._view.objects.root)
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = disk.f_bsize
        answer.f_frsize = disk.f_frsize
        answer.f_blocks = disk.f_blocks
        answer.f_bfree = disk.f_bfree
        answer.f_bavail = disk.f_bavail
        answer.f_files = disk.f_files
        answer.f_ffree = disk.f_ffree
        answer.f_favail = disk.f_favail
        answer.f_namemax = _LONGEST_NAME
        return answer

    # Directories

    @_answer
    async def opendir(self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext) -> int:
        """Begin a listing."""
        directory = await self._prepared(await self._directory(inode))
        self._last_listing += 1
        self._listings[self._last_listing] = OpenListing(directory, self._workers)
        return self._last_listing

    @_answer
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Give the entries behind ``start_id``, as many as the kernel has room for."""
        listing = self._listings[fh]
        if not self._give_dots(listing.directory, start_id, token):
            return
        after = max(0, start_id - _TREE)
        while True:
            portion = await listing.behind(after)
            if not portion:
                return
            if not self._give(portion, token):
                return
            after = portion[-1].cookie

    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """End a listing."""
        self._listings.pop(fh, None)

    # Files

    @_answer
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Open a file; what it will show has been verified when this returns."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        node = await self._node(inode)
        if isinstance(node, GeneratedFile):
            handle = self._files.add(OpenBytes(await self._render(node)))
            return pyfuse3.FileInfo(
                fh=pyfuse3.FileHandleT(handle), direct_io=True, keep_cache=False
            )
        if isinstance(node, VirtualFile):
            layout = await self._workers.build(node.layout)
            file = OpenVirtual(node, layout, self._objects, self._workers)
            return pyfuse3.FileInfo(
                fh=pyfuse3.FileHandleT(self._files.add(file)),
                direct_io=node.growing,
                keep_cache=not node.growing,
            )
        if not isinstance(node, StoredFile):
            raise pyfuse3.FUSEError(errno.EISDIR)
        try:
            opened = await self._opener.open(node)
        except (DamagedObjectError, ObjectNotFoundError) as error:
            raise pyfuse3.FUSEError(errno.EIO) from error
        handle = self._files.add(opened)
        self._counters.open_files = len(self._files)
        self._prefetcher.opened(node, known=opened.known)
        # Content never changes beneath an inode number, so pages read earlier are still right.
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), keep_cache=True)

    # pyfuse3 takes any buffer, whatever its annotation says; bytes would be one more copy.
    @_answer
    async def read(  # type: ignore[override]
        self, fh: pyfuse3.FileHandleT, off: int, size: int
    ) -> bytes | bytearray | memoryview:
        """Return the bytes; fewer than asked for only at the end of the file."""
        try:
            return await self._files[fh].read(off, size)
        except DamagedObjectError as error:
            raise pyfuse3.FUSEError(errno.EIO) from error

    @_answer
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a file."""
        self._files.close(fh)
        self._counters.open_files = len(self._files)

    # How the answers come about

    async def _node(self, inode: int) -> Node:
        """Return the node with this number; ESTALE makes the kernel look its path up again."""
        node: Node | None = (
            self._table.get(inode) or self._files.node(inode) or self._recent.numbered(inode)
        )
        if node is not None:
            return node
        family = family_of(inode)
        if family not in {None, Family.PATH}:
            found = await self._workers.ask(self._tree.resolve, family, inode)
            if found is not None:
                self._recent.note(found)
                return found
        raise pyfuse3.FUSEError(errno.ESTALE)

    async def _directory(self, inode: int) -> Directory:
        node = await self._node(inode)
        if not isinstance(node, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    async def _prepared(self, node: _N) -> _N:
        """Return the node when it has found out what it has to."""
        if isinstance(node, Prepared):
            await self._workers.build(node.prepare)
        return node

    async def _render(self, node: GeneratedFile) -> bytes:
        """Return the file's bytes: those that its size was told of, if that is not long ago."""
        now = trio.current_time()
        until, content = self._rendered.get(node.inode, (now, b""))
        if until <= now:
            content = await self._workers.ask(node.render)
            self._rendered[node.inode] = (now + _RENDERED_SECONDS, content)
        return content

    def _give_dots(self, directory: Directory, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """Give ``.`` and ``..``, for which the kernel takes no reference."""
        if start_id >= _DOT_DOT:
            return True
        for name, cookie, inode in (
            (b".", _DOT, directory.inode),
            (b"..", _DOT_DOT, directory.parent_inode),
        ):
            if start_id < cookie:
                attributes = Attributes(
                    inode=inode, kind=Kind.DIRECTORY, size=0, modified=0, validity=Validity.NONE
                )
                if not pyfuse3.readdir_reply(token, name, self._entry(attributes), cookie):
                    return False
        return True

    def _give(self, portion: Sequence[Listed], token: pyfuse3.ReaddirToken) -> bool:
        """Give these entries; return False as soon as the kernel has no more room."""
        reply, fill, file = pyfuse3.readdir_reply, _fill, self._listed_file
        for listed in portion:
            node, attributes = listed.node, listed.attributes
            if node is None:
                # The same object again and again: the reply copies it, and a listing makes many.
                entry = file
                fill(entry, attributes)
            elif self._table.admits(node):
                entry = self._entry(attributes)
            else:
                log.warning("two paths share the inode number %d; one stays hidden", node.inode)
                continue
            if not reply(token, listed.name.encode(), entry, listed.cookie + _TREE):
                return False
            if node is not None:
                self._table.reference(node)
        return True

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = self._blank(attributes.kind)
        _fill(entry, attributes)
        return entry

    def _blank(self, kind: Kind) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_mode = pyfuse3.ModeT(_TYPES[kind] | self._permissions[kind])
        # One link: also for directories, as filesystems do that do not count their children.
        entry.st_nlink = 1
        entry.st_uid = self._uid
        entry.st_gid = self._gid
        return entry


def _fill(entry: pyfuse3.EntryAttributes, attributes: Attributes) -> None:
    """Set what differs between nodes of one kind."""
    entry.st_ino = attributes.inode
    entry.generation = attributes.generation
    entry.st_size = size = attributes.size
    entry.st_blocks = -(-size // _BLOCK)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.modified
    validity = attributes.validity
    seconds = _LASTING if validity is _LASTS else _KERNEL_SECONDS[validity]
    entry.attr_timeout = entry.entry_timeout = seconds


def _child_with_attributes(
    directory: Directory, name: str
) -> tuple[Node | None, Attributes | None]:
    """Return the child and, unless its bytes have to be made for that, its attributes."""
    node = directory.child(name)
    if node is None or isinstance(node, GeneratedFile):
        return node, None
    return node, node.attributes()


def attach(filesystem: Filesystem, path: str, options: frozenset[str]) -> None:
    """Mount; requests wait until `answer_requests` runs. Raises MountPointError if that fails."""
    wanted = {*pyfuse3.default_options, "ro", "fsname=casfs", "subtype=casfs", *options}
    said: list[str] = []
    try:
        with standard_error_to(said):
            pyfuse3.init(filesystem, path, wanted)
    except (RuntimeError, OSError) as error:
        reason = " ".join("".join(said).split()) or str(error)
        raise MountPointError(
            f"{path} cannot be mounted on: {reason}",
            advice="a container needs --device /dev/fuse --cap-add SYS_ADMIN",
        ) from error
    for line in "".join(said).splitlines():
        log.warning("%s", line)


async def answer_requests(filesystem: Filesystem) -> None:
    """Answer the kernel until the mount is taken away or `stop_answering` is called."""
    async with filesystem.working():
        await pyfuse3.main()


def stop_answering() -> None:
    """Let `answer_requests` return."""
    pyfuse3.terminate()


def detach() -> None:
    """Unmount, if that has not been done from outside, and end the session with the kernel."""
    pyfuse3.close(unmount=True)
