"""The two directories of an archive: made by ``init``, recognised and matched by all others.

Each root says what it is in ``.casfs/format.json``; both carry the same store id. A root without
that file is never written to: its disk may not be mounted. Whoever finds a feature in ``requires``
that it does not know refuses the archive; unknown members are kept and ignored.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid

import msgspec
from msgspec import Struct

from casfs import __version__
from casfs.durable import make_directory, open_directory, replace_file
from casfs.errors import (
    AlreadyInitialisedError,
    ConfigError,
    ForeignRootError,
    NotInitialisedError,
    UnsupportedFormatError,
    storage_error,
)
from casfs.objects.local import OBJECTS, shard_names

FORMAT_VERSION = 1
"""The layout that this version writes; others are refused."""

OWN = ".casfs"
"""The directory for our own files, in either root."""

RUNS = "runs"
"""The feature of archives that hold records of kind ``run``."""

_KNOWN_FEATURES = frozenset({RUNS})
_HASH = "blake3-256"
_FORMAT_FILE = os.path.join(OWN, "format.json")
_HARMLESS = frozenset({"lost+found", ".zfs", ".snapshots"})


class Roots(Struct, frozen=True):
    """Where an archive lies. Absolute paths."""

    cas: str
    """Holds ``objects/``."""
    manifests: str
    """Holds the broadcasts' journals."""

    @classmethod
    def of(cls, cas: str, manifests: str) -> Roots:
        """Return the roots at these paths; raises ConfigError if one lies within the other."""
        one, other = os.path.realpath(cas), os.path.realpath(manifests)
        if os.path.commonpath([one, other]) in (one, other):
            raise ConfigError(
                f"the CAS root {cas} and the manifest root {manifests} overlap",
                advice="give two directories of which neither lies within the other",
            )
        return cls(cas=one, manifests=other)


class Format(Struct, frozen=True, kw_only=True):
    """What ``format.json`` says."""

    format: int
    role: str
    """``cas`` or ``manifests``."""
    store: str
    """The archive's id, the same in both roots."""
    writer: str
    hash: str = _HASH
    """The function that names objects."""
    shard_depth: int = 1
    """Directories of two hexadecimal digits between ``blake3/`` and the objects."""
    fold_case: bool = False
    """Names of broadcasts and tracks are encoded for a filesystem that folds case."""
    requires: tuple[str, ...] = ()
    """Features that a reader must know."""


def create(roots: Roots) -> Format:
    """Make an archive in two empty (or not yet existing) directories and return its format.

    Only the last component of each path is created. What an interrupted call left is taken up.
    Raises AlreadyInitialisedError if either root is initialised already, NotInitialisedError if one
    is not empty, StorageError.
    """
    found = {root for root in (roots.cas, roots.manifests) if _has_format(root)}
    if found:
        raise _already(roots, found)
    for root in (roots.cas, roots.manifests):
        _check_empty(root)
    store = uuid.uuid4().hex
    writer = f"casfs {__version__}"
    try:
        make_directory(roots.cas)
        make_directory(roots.manifests)
        cas, manifests = os.path.join(roots.cas, OWN), os.path.join(roots.manifests, OWN)
        for path in (
            *(cas, os.path.join(cas, "tmp"), os.path.join(cas, "trash")),
            *(os.path.join(cas, "heads"), manifests),
            *(os.path.join(manifests, "expired"), os.path.join(manifests, "quarantine")),
            *(os.path.join(roots.cas, "objects"), os.path.join(roots.cas, OBJECTS)),
        ):
            make_directory(path)
        for shard in shard_names():
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.join(roots.cas, OBJECTS, shard))
        make_directory(os.path.join(roots.cas, OBJECTS, "ff"))
        described = Format(
            format=FORMAT_VERSION, role="manifests", store=store, writer=writer,
            fold_case=_folds_case(manifests) or _folds_case(cas),
        )  # fmt: skip
        _write(roots.manifests, described)
        _write(roots.cas, Format(format=FORMAT_VERSION, role="cas", store=store, writer=writer))
    except OSError as error:
        raise storage_error(error, "creating the archive in", f"{roots.cas}, {roots.manifests}") \
            from error  # fmt: skip
    return described


def recognise(roots: Roots) -> Format:
    """Return the manifest root's format if both roots are of one archive that we can read.

    Raises NotInitialisedError, ForeignRootError, UnsupportedFormatError, StorageError.
    """
    cas = _read(roots.cas, "cas")
    manifests = _read(roots.manifests, "manifests")
    if cas.store != manifests.store:
        raise ForeignRootError(
            f"the CAS root {roots.cas} (archive {cas.store}) and the manifest root "
            f"{roots.manifests} (archive {manifests.store}) are of different archives",
            advice="check which disks are mounted there; nothing was changed",
        )
    return manifests


def require(roots: Roots, feature: str) -> Format:
    """Have both roots say that a reader must know a feature, and return the new format.

    Durable on return. Raises what `recognise` raises, StorageError.
    """
    try:
        with open_directory(os.path.join(roots.manifests, OWN)) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for root, role in ((roots.cas, "cas"), (roots.manifests, "manifests")):
                described = _read(root, role)
                if feature not in described.requires:
                    _add_feature(root, sorted({*described.requires, feature}))
    except OSError as error:
        raise storage_error(error, "writing format.json in", roots.manifests) from error
    return recognise(roots)


def _already(roots: Roots, found: set[str]) -> AlreadyInitialisedError:
    if len(found) == 2:
        return AlreadyInitialisedError(
            f"there is an archive already in {roots.cas} and {roots.manifests}",
            advice="use it as it is; nothing was changed",
        )
    there = found.pop()
    other = roots.manifests if there == roots.cas else roots.cas
    return AlreadyInitialisedError(
        f"{there} is a root of an archive already, but {other} is not",
        advice=f"mount the disk that belongs at {other}, or name two new directories",
    )


def _has_format(root: str) -> bool:
    try:
        return os.path.lexists(os.path.join(root, _FORMAT_FILE))
    except OSError as error:
        raise storage_error(error, "looking at", root) from error


def _check_empty(root: str) -> None:
    try:
        entries = sorted(set(os.listdir(root)) - _HARMLESS)
    except FileNotFoundError:
        parent = os.path.dirname(root)
        if os.path.isdir(parent):
            return
        raise NotInitialisedError(
            f"the directory {parent} does not exist",
            advice="mount or create it first: only the last part of a root's path is created",
        ) from None
    except OSError as error:
        raise storage_error(error, "listing", root) from error
    if entries and not _is_unfinished(root, entries):
        raise NotInitialisedError(
            f"{root} is not empty: it holds {entries[0]}", advice="name an empty or new directory"
        )


def _is_unfinished(root: str, entries: list[str]) -> bool:
    """Say whether this is what an interrupted ``init`` leaves: our directories, and no data."""
    if not {OWN, "objects"}.issuperset(entries) or OWN not in entries:
        return False
    leftovers = (".new-", "Probe-")
    return all(name.startswith(leftovers) for _, _, names in os.walk(root) for name in names)


def _read(root: str, role: str) -> Format:
    path = os.path.join(root, _FORMAT_FILE)
    name = "CAS root" if role == "cas" else "manifest root"
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError):
        raise NotInitialisedError(
            f"the {name} {root} holds no archive",
            advice="mount its disk, or run casfs init if it is to be a new archive",
        ) from None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    try:
        described = msgspec.json.decode(text, type=Format)
    except msgspec.DecodeError as error:
        raise UnsupportedFormatError(
            f"{path} cannot be understood: {error}",
            advice="restore it from a backup, or use the version of casfs that wrote it",
        ) from error
    if described.role != role:
        raise ForeignRootError(
            f"{root} is a {described.role} root, not a {name}", advice="were the two swapped?"
        )
    unknown = sorted(set(described.requires) - _KNOWN_FEATURES)
    known = (described.format, described.shard_depth, described.hash) == (FORMAT_VERSION, 1, _HASH)
    if not known or unknown:
        wants = ", ".join(unknown) or f"version {described.format}"
        raise UnsupportedFormatError(
            f"{path} asks for a format that casfs {__version__} does not know ({wants})",
            advice="use a newer casfs",
        )
    return described


def _write(root: str, described: Format) -> None:
    replace_file(os.path.join(root, _FORMAT_FILE), msgspec.json.encode(described) + b"\n")


def _add_feature(root: str, features: list[str]) -> None:
    """Write format.json anew with these features; members that we do not know stay."""
    path = os.path.join(root, _FORMAT_FILE)
    with open(path, "rb") as file:
        members = msgspec.json.decode(file.read(), type=dict[str, msgspec.Raw])
    members["requires"] = msgspec.Raw(msgspec.json.encode(features))
    replace_file(path, msgspec.json.encode(members) + b"\n")


def _folds_case(directory: str) -> bool:
    """Say whether the filesystem takes two names that differ by case for one."""
    name = f"Probe-{os.urandom(4).hex()}"
    path = os.path.join(directory, name)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        return os.path.lexists(os.path.join(directory, name.lower()))
    finally:
        os.unlink(path)
