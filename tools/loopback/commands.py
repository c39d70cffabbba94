"""What a publisher process is told on a line of stdin, and what it answers on one of stdout."""

from __future__ import annotations

import msgspec


class CreateBroadcast(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


class CreateTrack(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str
    max_age: int
    timescale: int | None


class Announce(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


class Unannounce(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


class CreateGroup(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str
    sequence: int | None
    """None: the next one."""
    frames: list[bytes]
    """Base64 on the line."""
    files: list[str]
    """Further frames: the content of each of these files."""
    timestamps: list[int]
    finish: bool


class WriteFrames(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str
    sequence: int
    frames: list[bytes]
    timestamps: list[int]


class FinishGroup(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str
    sequence: int


class AbortGroup(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str
    sequence: int
    code: int


class FinishTrack(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    track: str


class EndBroadcast(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


class SetCatalogSection(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    section: str
    value: msgspec.Raw
    """Any JSON."""


class ReadCatalog(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


class OpenContainer(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    format: str
    """``FMP4``, ``TS``, ``FLV`` or ``MKV``."""


class WriteContainer(msgspec.Struct, frozen=True, tag=True):
    broadcast: str
    data: bytes


class FinishContainer(msgspec.Struct, frozen=True, tag=True):
    broadcast: str


Command = (
    CreateBroadcast
    | CreateTrack
    | Announce
    | Unannounce
    | CreateGroup
    | WriteFrames
    | FinishGroup
    | AbortGroup
    | FinishTrack
    | EndBroadcast
    | SetCatalogSection
    | ReadCatalog
    | OpenContainer
    | WriteContainer
    | FinishContainer
)


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the process answers to each command."""

    sequence: int | None = None
    """The group that was made or read."""
    frames: tuple[bytes, ...] = ()
    """The frames that were read, base64 on the line."""
    error: str = ""
    """Why it could not be done; empty: it was."""
