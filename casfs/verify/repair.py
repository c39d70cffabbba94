"""Takes good copies of objects from other stores: a copy counts once its bytes were hashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from casfs.digest import Digest, Hasher
from casfs.errors import CasfsError, NotInitialisedError, ObjectNotFoundError
from casfs.objects.commit import LocalCommitter
from casfs.objects.local import OBJECTS, LocalStore
from casfs.objects.store import Payload
from casfs.verify.report import RepairedObject, UnmendedObject

_READ_BYTES = 1 << 20


class _Copy(Struct, frozen=True):
    parts: Sequence[bytes]
    size: int


class Repairer:
    """Mends objects of the store below ``root`` from the stores below ``sources``, the first first.

    A context manager, which holds a committer open. Raises NotInitialisedError if a source is no
    store, StorageError if ``root`` cannot be written to.
    """

    def __init__(self, root: str, sources: Sequence[str]) -> None:
        for source in sources:
            if not os.path.isdir(os.path.join(source, OBJECTS)):
                raise NotInitialisedError(
                    f"{source} holds no objects to repair from",
                    advice="name a CAS root, or the directory of an export",
                )
            if os.path.realpath(source) == os.path.realpath(root):
                raise NotInitialisedError(
                    f"{source} is the store that is to be repaired", advice="name another one"
                )
        self._sources = [LocalStore(source) for source in sources]
        self._committer = LocalCommitter(root)

    def __enter__(self) -> Self:
        self._committer.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._committer.__exit__(*details)

    def mend(self, digest: Digest, needed: int | None) -> RepairedObject | UnmendedObject:
        """Put a good copy under the object's name, durably; records need so many bytes of it."""
        reasons: list[str] = []
        for source in self._sources:
            found = _copy(source, digest)
            if isinstance(found, str):
                reasons.append(f"{found} in {source.root}")
                continue
            if needed is not None and found.size < needed:
                reasons.append(f"too short for its records in {source.root}")
                continue
            try:
                with self._committer.batch() as batch:
                    batch.put([Payload(found.parts, digest)])
            except CasfsError as error:
                return UnmendedObject(digest, error.message)
            return RepairedObject(digest, source.root)
        return UnmendedObject(digest, "; ".join(reasons))


def _copy(store: LocalStore, digest: Digest) -> _Copy | str:
    """Return the object's bytes, or why they are of no use."""
    try:
        descriptor = store.open(digest)
    except ObjectNotFoundError:
        return "missing"
    except CasfsError as error:
        return error.message
    parts: list[bytes] = []
    hasher = Hasher()
    try:
        while chunk := os.pread(descriptor, _READ_BYTES, hasher.size):
            hasher.update(chunk)
            parts.append(chunk)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    finally:
        os.close(descriptor)
    return _Copy(parts, hasher.size) if hasher.digest() == digest else "damaged"
