"""One tree of errors, each with the exit code that the command line ends with.

A message says what happened and to which thing; ``advice`` says what to do about it. Both are
shown to the user on one line, never a traceback. The exit codes are part of the interface and
documented in docs/commands.md.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class CasfsError(Exception):
    """What every failure that we understand derives from.

    ``message`` is one line without a final full stop; ``advice``, when given, one imperative
    sentence for the person who reads it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


# 2: wrong usage or configuration


class UsageError(CasfsError):
    """The command cannot be carried out as it was asked for."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is missing, misspelt or out of range."""


class InvalidNameError(UsageError):
    """A broadcast or track name that no archive can hold."""


class MountPointError(UsageError):
    """The mount point does not exist, is no directory, or is in use."""


# 3: damage found


class DamageError(CasfsError):
    """Bytes on disk are not what was written."""

    exit_code = 3


class DamagedObjectError(DamageError):
    """An object's content does not hash to its name."""


# 4: not found


class NotFoundError(CasfsError):
    """What was asked for is not in the archive."""

    exit_code = 4


class ObjectNotFoundError(NotFoundError):
    """No object of that name is in the store."""


# 5: the archive is missing, foreign or locked


class ArchiveError(CasfsError):
    """The archive as a whole cannot be used."""

    exit_code = 5


class NotInitialisedError(ArchiveError):
    """A root holds no archive: never initialised, or its disk is not mounted."""


class AlreadyInitialisedError(ArchiveError):
    """``init`` was asked to make an archive where one is, or beside half of one."""


class ForeignRootError(ArchiveError):
    """The two roots do not belong together, or one is older than the other remembers."""


class UnsupportedFormatError(ArchiveError):
    """The archive needs a feature that this version does not know."""


class WriterLockedError(ArchiveError):
    """Another process records this broadcast."""


class CollectorLockedError(ArchiveError):
    """Another process expires, collects or restores."""


class ClockError(ArchiveError):
    """The clock stands far behind what is already recorded."""


# 6: relay or network


class RelayError(CasfsError):
    """The relay, or the way to it, failed."""

    exit_code = 6


class ConnectError(RelayError):
    """No QUIC connection or WebTransport session came about."""


class CertificateError(ConnectError):
    """The relay's certificate was not accepted."""


class RefusedError(RelayError):
    """The relay refused the session (authorisation, unknown path)."""


class NegotiationError(ConnectError):
    """The relay speaks no protocol that we offered."""


class DirectoryError(RelayError):
    """A stream directory did not answer, or not with a list of broadcasts."""


class ProtocolError(RelayError):
    """The relay sent something that its protocol does not allow, or more than our limits allow."""


class ConnectionLostError(RelayError):
    """A session that stood has ended: timeout, reset or close by the relay."""


# 7: disk full or I/O error


class StorageError(CasfsError):
    """The disk did not do what was asked of it."""

    exit_code = 7


class DiskFullError(StorageError):
    """No space, no inodes or no quota left."""


_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_error(error: OSError, doing: str, path: str) -> StorageError:
    """Translate ``error``, met while ``doing`` something to ``path``, for the user."""
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return DiskFullError(
            f"disk full while {doing} {path}: {reason}",
            advice="free space or inodes on that filesystem; nothing acknowledged was lost",
        )
    return StorageError(
        f"failed {doing} {path}: {reason}",
        advice="check that disk and its permissions (dmesg, df, ls -ld)",
    )
