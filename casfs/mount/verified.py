"""Opening objects such that a first read never returns anything but what was stored.

An object is hashed as a whole when it is opened, before its first byte is served, and remembered as
sound by the identity of its file: device, inode number, change time and size. A file that was
written to since has another change time and is hashed again. Of a large object whose blocks' hashes
are known, each block is hashed before the first byte of it is served, instead. All of this blocks
and belongs into a worker thread; any number of threads may open at once.
"""

from __future__ import annotations

import contextlib
import enum
import os
import resource
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import BLOCK_BYTES, digest_of
from casfs.errors import DamagedObjectError, storage_error
from casfs.mount.contents import VerifiedContents
from casfs.mount.tree import ObjectRange
from casfs.objects.local import hash_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.digest import Digest
    from casfs.mount.objects import ObjectReader

REMEMBERED_SECONDS = 300.0
"""How long after its last use an object counts as sound without being read again."""

REMEMBERED_FILES = 16_384
"""How many files are remembered; the one that was not used for longest goes first."""


REMEMBERED_LARGE_FILES = 1024
"""Of how many large files it is remembered which of their blocks are sound."""


KEPT_FILES = 4096
"""How many of the objects that were opened last stay open, at most."""

KEPT_SECONDS = 60.0
"""How long after its last use, at most, while others are opened."""


class Verification(enum.Enum):
    """When the mount checks content against its hash."""

    OPEN = "open"
    """Before the first byte is served: at open, or block by block in a large object."""
    NEVER = "never"
    """Not at all: for disks that do it themselves. Damage is served as it is."""


class FileIdentity(Struct, frozen=True):
    """What tells a file, and any change of it, from every other."""

    device: int
    inode: int
    changed: int
    """Change time, nanoseconds."""
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """Return the identity of the file that has this status."""
        return cls(status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)


class SoundFiles:
    """The files that were hashed and found sound lately. Safe to use from several threads."""

    def __init__(
        self, capacity: int = REMEMBERED_FILES, lifetime: float = REMEMBERED_SECONDS
    ) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._last_use: OrderedDict[FileIdentity, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._last_use)

    def recall(self, file: FileIdentity, now: float) -> bool:
        """Say whether the file is known to be sound; if so, this counts as a use."""
        with self._lock:
            last_use = self._last_use.pop(file, None)
            if last_use is None or now - last_use > self._lifetime:
                return False
            self._last_use[file] = now
            return True

    def remember(self, file: FileIdentity, now: float) -> None:
        """Note that the file was found sound."""
        with self._lock:
            self._last_use[file] = now
            self._last_use.move_to_end(file)
            if len(self._last_use) > self._capacity:
                self._last_use.popitem(last=False)


class CheckedBlocks:
    """Which blocks of one large object were found sound. Safe to use from several threads."""

    def __init__(self, digest: Digest, hashes: Sequence[Digest], sound: set[int]) -> None:
        self._digest = digest
        self._hashes = hashes
        self._sound = sound

    def unchecked(self, offset: int, size: int) -> Sequence[int]:
        """Return the blocks that these bytes of the object lie in and that were not checked."""
        last = (offset + size - 1) // BLOCK_BYTES
        blocks = range(offset // BLOCK_BYTES, min(last, len(self._hashes) - 1) + 1)
        return [block for block in blocks if block not in self._sound]

    def check(self, descriptor: int, block: int) -> None:
        """Read and hash a block; raises DamagedObjectError unless it is what was stored."""
        start = block * BLOCK_BYTES
        try:
            actual, _ = hash_descriptor(descriptor, start, start + BLOCK_BYTES)
        except OSError as error:
            raise _damaged(
                self._digest, f"cannot be read at byte {start}: {error.strerror}"
            ) from error
        if actual != self._hashes[block]:
            raise _damaged(
                self._digest, f"is damaged between bytes {start} and {start + BLOCK_BYTES}"
            )
        self._sound.add(block)


class OpenedObject(Struct, frozen=True):
    """An object that was found sound. Whoever gets it closes ``descriptor``."""

    descriptor: int
    hashed: bool
    """False if the object was remembered, and not read."""
    blocks: CheckedBlocks | None = None
    """What has to be checked before it is read; None: the whole object is sound."""
    contents: VerifiedContents | None = None
    """Where its bytes may be at hand."""


class _Kept(Struct):
    """An object that stays open for whoever opens it next."""

    descriptor: int
    file: FileIdentity
    last_use: float


class VerifiedObjects:
    """Opens the objects of ``store``; ``clock`` gives seconds that never run backwards."""

    def __init__(
        self,
        store: ObjectReader,
        *,
        verification: Verification = Verification.OPEN,
        sound: SoundFiles | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sound = SoundFiles() if sound is None else sound
        self._clock = clock
        self._verification = verification
        self._sound_blocks: OrderedDict[FileIdentity, set[int]] = OrderedDict()
        self._kept: OrderedDict[Digest, _Kept] = OrderedDict()
        # Readers have the other three quarters of the descriptors.
        self._most_kept = min(KEPT_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._contents = VerifiedContents()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close what is kept open; nothing may be opened any more."""
        self._contents.clear()
        with self._lock:
            while self._kept:
                self._drop_oldest()

    def open_again(self, wanted: ObjectRange) -> OpenedObject | None:
        """Open an object that was opened a moment ago and did not change since; else return None.

        Looks at the file's attributes alone, which on a local disk takes no waiting.
        """
        with self._lock:
            kept = self._kept.get(wanted.digest)
            if kept is None:
                return None
            status = os.fstat(kept.descriptor)
            now = self._clock()
            if (
                FileIdentity.of(status) != kept.file
                or status.st_nlink == 0
                or wanted.offset + wanted.size > kept.file.size
                or not self._may_be_believed(kept.file, now)
            ):
                return None
            kept.last_use = now
            self._kept.move_to_end(wanted.digest)
            return OpenedObject(os.dup(kept.descriptor), hashed=False, contents=self._contents)

    def _may_be_believed(self, file: FileIdentity, now: float) -> bool:
        return self._verification is Verification.NEVER or self._sound.recall(file, now)

    def _keep(self, digest: Digest, descriptor: int, file: FileIdentity) -> None:
        with self._lock:
            now = self._clock()
            before = self._kept.pop(digest, None)
            if before is not None:
                os.close(before.descriptor)
            # Where descriptors run out the reader has this one, and it is not kept.
            with contextlib.suppress(OSError):
                self._kept[digest] = _Kept(os.dup(descriptor), file, now)
            while self._kept and (
                len(self._kept) > self._most_kept or now - self._oldest().last_use > KEPT_SECONDS
            ):
                self._drop_oldest()

    def _oldest(self) -> _Kept:
        return next(iter(self._kept.values()))

    def _drop_oldest(self) -> None:
        os.close(self._kept.popitem(last=False)[1].descriptor)

    def wants_blocks(self, wanted: ObjectRange) -> bool:
        """Say whether the hashes of its blocks would spare an open the reading of all of it."""
        return self._verification is Verification.OPEN and wanted.offset + wanted.size > BLOCK_BYTES

    def open(self, wanted: ObjectRange, blocks: Sequence[Digest] = ()) -> OpenedObject:
        """Open the object that holds these bytes and make sure of its content.

        With ``blocks``, the hash of each of its blocks, that is left to `CheckedBlocks`.

        Raises DamagedObjectError if the content does not hash to the name, cannot be read, or ends
        before the range does; ObjectNotFoundError; StorageError if the file cannot be opened.
        """
        return self.make_sure(self._store.open(wanted.digest), wanted, blocks)

    def announce(self, wanted: ObjectRange) -> int:
        """Have the disk begin to read what `make_sure` will be asked of, and return a descriptor.

        Raises ObjectNotFoundError, StorageError.
        """
        descriptor = self._store.open(wanted.digest)
        with contextlib.suppress(OSError):  # advice: not every filesystem takes it
            size = min(wanted.size, BLOCK_BYTES)
            os.posix_fadvise(descriptor, wanted.offset, size, os.POSIX_FADV_WILLNEED)
        return descriptor

    def make_sure(
        self, descriptor: int, wanted: ObjectRange, blocks: Sequence[Digest] = ()
    ) -> OpenedObject:
        """Do the same with an object that is open already; its descriptor is closed on failure."""
        try:
            return self._make_sure(descriptor, wanted, blocks)
        except BaseException:
            os.close(descriptor)
            raise

    def open_small(self, digest: Digest) -> tuple[ObjectRange, OpenedObject] | None:
        """Open a whole object; None if it is so large that its blocks had better be checked.

        Raises what `open` raises.
        """
        descriptor = self._store.open(digest)
        try:
            wanted = ObjectRange(digest, 0, os.fstat(descriptor).st_size)
            if not self.wants_blocks(wanted):
                return wanted, self._make_sure(descriptor, wanted, ())
        except OSError as error:
            os.close(descriptor)
            raise storage_error(error, "looking at object", digest) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _make_sure(
        self, descriptor: int, wanted: ObjectRange, blocks: Sequence[Digest]
    ) -> OpenedObject:
        """Return what is known of the object now; raise if it is not sound."""
        digest = wanted.digest
        try:
            file = FileIdentity.of(os.fstat(descriptor))
        except OSError as error:
            raise storage_error(error, "looking at object", digest) from error
        hashed, checked = False, None
        if self._verification is Verification.OPEN and not self._sound.recall(file, self._clock()):
            if blocks:
                checked = self._checked_blocks(digest, file, blocks)
            else:
                hashed = self._hash(descriptor, digest, file)
        if wanted.offset + wanted.size > file.size:
            raise _damaged(
                digest,
                f"has {file.size} bytes, and {wanted.size} at {wanted.offset} are recorded",
            )
        if checked is None:
            self._keep(digest, descriptor, file)
        return OpenedObject(descriptor, hashed, checked, self._contents)

    def _hash(self, descriptor: int, digest: Digest, file: FileIdentity) -> bool:
        try:
            content = _whole(descriptor, file.size) if file.size <= BLOCK_BYTES else None
            actual = hash_descriptor(descriptor)[0] if content is None else digest_of(content)
        except OSError as error:
            raise _damaged(digest, f"cannot be read: {error.strerror}") from error
        if actual != digest:
            raise _damaged(digest, f"hashes to {actual}")
        if content is not None:
            self._contents.hold(digest, content)
        self._sound.remember(file, self._clock())
        return True

    def _checked_blocks(
        self, digest: Digest, file: FileIdentity, blocks: Sequence[Digest]
    ) -> CheckedBlocks:
        if -(-file.size // BLOCK_BYTES) != len(blocks):
            raise _damaged(digest, f"has {file.size} bytes instead of {len(blocks)} blocks")
        with self._lock:
            sound = self._sound_blocks.setdefault(file, set())
            self._sound_blocks.move_to_end(file)
            if len(self._sound_blocks) > REMEMBERED_LARGE_FILES:
                self._sound_blocks.popitem(last=False)
        return CheckedBlocks(digest, blocks, sound)


def _whole(descriptor: int, size: int) -> bytes | None:
    """Return the file's bytes if it has exactly so many and they can be read at once."""
    content = os.pread(descriptor, size + 1, 0)
    return content if len(content) == size else None


def _damaged(digest: str, reason: str) -> DamagedObjectError:
    return DamagedObjectError(f"object {digest} {reason}", advice="run casfs verify")
