"""The names that the mount gives: group files, dates, hours, and components chosen by others.

Nothing here holds a colon (ffmpeg takes it for a protocol, scp for a host). Each parser takes
exactly what its formatter makes and nothing else, so that a lookup finds what a listing shows.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.names import encode_name
from casfs.timestamps import DAY, NANOSECONDS

if TYPE_CHECKING:
    from casfs.index.rows import GroupRow

HOURS_PER_DAY = 24

PARTIAL_SUFFIX = ".partial"
"""Ends the name of a group that was cut short or is still arriving."""

OTHER_EXTENSION = ".bin"
"""The extension of what we know nothing about."""

_KNOWN_EXTENSIONS = (".m4s", ".mp4", ".json")
_MILLISECOND = NANOSECONDS // 1000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LATEST = "latest"

_GROUP_FILE = re.compile(
    r"e(?P<epoch>[0-9]{4,18})-(?P<sequence>[0-9]{20})"
    r"-(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})\.(?P<millisecond>[0-9]{3})Z"
    r"(?P<extension>\.m4s|\.mp4|\.json|\.bin)(?P<partial>\.partial)?"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HOUR = re.compile(r"[01][0-9]|2[0-3]")
_LOOKS_LIKE_OURS = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{2}([.-].*)?|latest(\..*)?|clip(\..*)?"
)


class GroupFileName(Struct, frozen=True):
    """What the name of a group file says."""

    epoch: int
    sequence: int
    time_of_day: int
    """The first byte's arrival, milliseconds since midnight UTC."""
    extension: str
    """As `extension_of` gives it, with its dot."""
    complete: bool

    def __str__(self) -> str:
        seconds, millisecond = divmod(self.time_of_day, 1000)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        return (
            f"e{self.epoch:04d}-{self.sequence:020d}"
            f"-{hour:02d}{minute:02d}{second:02d}.{millisecond:03d}Z"
            f"{self.extension}{'' if self.complete else PARTIAL_SUFFIX}"
        )


def group_file_name(group: GroupRow) -> GroupFileName:
    """Return the name of the file that shows this group."""
    return GroupFileName(
        epoch=group.epoch,
        sequence=group.sequence,
        time_of_day=group.received_start % DAY // _MILLISECOND,
        extension=extension_of(group.track),
        complete=group.complete,
    )


def parse_group_file_name(text: str) -> GroupFileName | None:
    """Return what a group file's name says; None if it is not the name of one."""
    match = _GROUP_FILE.fullmatch(text)
    if match is None:
        return None
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    name = GroupFileName(
        epoch=int(match["epoch"]),
        sequence=int(match["sequence"]),
        time_of_day=((hour * 60 + minute) * 60 + second) * 1000 + int(match["millisecond"]),
        extension=match["extension"],
        complete=match["partial"] is None,
    )
    # One name a group: no leading zeros beyond the fourth digit, no 61st minute, no 24th hour.
    return name if str(name) == text and name.time_of_day * _MILLISECOND < DAY else None


def extension_of(track: str) -> str:
    """Return the extension of the track's files, with its dot: its own suffix if we know it."""
    for extension in _KNOWN_EXTENSIONS:
        if track.endswith(extension):
            return extension
    return OTHER_EXTENSION


def file_name_endings(track: str) -> tuple[str, str]:
    """Return what follows the label of an incomplete and of a complete group of the track.

    With it, `casfs.index.rows.GroupEntry.label` is the name that `group_file_name` gives.
    """
    extension = extension_of(track)
    return extension + PARTIAL_SUFFIX, extension


def latest_name(track: str) -> str:
    """Return the name of the link to the track's newest group."""
    return _LATEST + extension_of(track)


def format_day(day: int) -> str:
    """Return the UTC date ``day`` days after 1970-01-01 as ``YYYY-MM-DD``."""
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


def parse_day(text: str) -> int | None:
    """Return the days from 1970-01-01 to a date as `format_day` writes it, else None."""
    if _DAY.fullmatch(text) is None:
        return None
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None


def format_hour(hour_of_day: int) -> str:
    """Return an hour of the day, 0 to 23, as two digits."""
    return f"{hour_of_day:02d}"


def parse_hour(text: str) -> int | None:
    """Return the hour of the day that two digits name, else None."""
    return None if _HOUR.fullmatch(text) is None else int(text)


def component_of(name: str) -> str:
    """Return the directory name that stands for a track, or for one part of a broadcast's name.

    Distinct names have distinct components, at most 255 bytes, and none of them looks like a name
    that the mount gives (a date, an hour, ``latest``, ``clip``): there the first character is
    written ``%XX``, which `casfs.names.encode_name` never does to a letter or a digit.
    """
    component = encode_name(name)
    if _LOOKS_LIKE_OURS.fullmatch(component) is None:
        return component
    return f"%{ord(component[0]):02X}{component[1:]}"


def components_of(broadcast: str) -> tuple[str, ...]:
    """Return the directories that lead to a broadcast: its name split at each ``/``.

    An empty part (a leading, doubled or trailing slash, or the empty name) has the component of the
    empty name, so that ``a/b``, ``a//b`` and ``a/b/`` are three directories.
    """
    return tuple(component_of(part) for part in broadcast.split("/"))
