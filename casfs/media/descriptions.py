"""What a decoder must know before the first sample: sample descriptions, kept verbatim.

A sample description is one entry of an ``stsd`` box (ISO/IEC 14496-12, section 8.5.2), byte for
byte as the publisher wrote it, or as `casfs.media.codecs` makes it from a catalog. Nothing in it
is interpreted here but its four-character code.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Final

from msgspec import Struct

from casfs.digest import Digest, digest_of
from casfs.media.boxes import MalformedMediaError

MAX_ENTRY_BYTES: Final = 1 << 20
"""No sample entry is larger; a larger one is refused."""

_HEAD: Final = struct.Struct(">BII")
_ENTRY_HEADER: Final = 16  # size, type, six reserved bytes, data_reference_index
_DATA_REFERENCE: Final = b"\0\x01"


class Kind(StrEnum):
    """What a track carries."""

    VIDEO = "video"
    AUDIO = "audio"


_KINDS: Final = (Kind.VIDEO, Kind.AUDIO)


class SampleDescription(Struct, frozen=True):
    """How the samples of a table are decoded and shown."""

    kind: Kind
    entry: bytes
    """The sample entry, a whole box."""
    width: int = 0
    """As it is to be shown, in 1/65536 of a pixel (``tkhd``, section 8.3.2); 0 for sound."""
    height: int = 0

    @property
    def codec(self) -> bytes:
        """The entry's four-character code, such as ``b"avc1"``."""
        return self.entry[4:8]

    @property
    def digest(self) -> Digest:
        """What sample tables name this description by: the digest of its stored form."""
        return digest_of(encode_description(self))

    def local_entry(self) -> bytes:
        """Return the entry with its data reference pointing to the file that it stands in."""
        return self.entry[: _ENTRY_HEADER - 2] + _DATA_REFERENCE + self.entry[_ENTRY_HEADER:]


def check_entry(entry: bytes) -> bytes:
    """Return ``entry``.

    Raises:
        MalformedMediaError: it cannot be a sample entry.
    """
    if not _ENTRY_HEADER <= len(entry) <= MAX_ENTRY_BYTES:
        raise MalformedMediaError(f"a sample entry of {len(entry)} bytes")
    return entry


def encode_description(description: SampleDescription) -> bytes:
    """Return the stored form: kind (0 video, 1 audio), width, height, and the entry."""
    kind = _KINDS.index(description.kind)
    return _HEAD.pack(kind, description.width, description.height) + description.entry


def decode_description(data: bytes) -> SampleDescription:
    """Return what `encode_description` was given.

    Raises:
        MalformedMediaError: ``data`` is not a stored description.
    """
    if len(data) < _HEAD.size or data[0] >= len(_KINDS):
        raise MalformedMediaError("not a stored sample description")
    kind, width, height = _HEAD.unpack_from(data)
    return SampleDescription(_KINDS[kind], check_entry(data[_HEAD.size :]), width, height)
