"""H.264 as far as a container must know it: NAL units, parameter sets, the ``avcC`` record.

ISO/IEC 14496-10: NAL unit types (table 7-1), byte stream (annex B), sequence parameter set
(7.3.2.1.1). ISO/IEC 14496-15: AVCDecoderConfigurationRecord (5.3.3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.boxes import MalformedMediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

IDR: Final = 5
SEQUENCE_PARAMETERS: Final = 7
PICTURE_PARAMETERS: Final = 8

MAX_NAL_UNITS: Final = 1 << 12
"""NAL units in one sample."""

_START_CODE: Final = b"\0\0\1"
_MAX_PARAMETER_SETS: Final = 31
_MACROBLOCK: Final = 16
_MAX_SIDE: Final = 1 << 14
_MAX_PARAMETER_BYTES: Final = 1 << 10
_PLAIN_PROFILES: Final = frozenset({66, 77, 88})
"""Those whose ``avcC`` says nothing of chroma format and bit depth."""
_CHROMA_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Those whose sequence parameter set does."""
_CHROMA_444: Final = 3
_MAX_GOLOMB_ZEROS: Final = 32


class NalUnit(Struct, frozen=True):
    """One NAL unit of a byte stream."""

    begin: int
    """Of its start code, in bytes from the start of the data."""
    code_length: int
    """Bytes of the start code, 3 or 4."""
    end: int
    kind: int

    @property
    def start(self) -> int:
        """Where the unit itself begins."""
        return self.begin + self.code_length

    @property
    def size(self) -> int:
        """Bytes of the unit itself."""
        return self.end - self.start


def split_byte_stream(data: bytes, start: int, end: int) -> list[NalUnit]:
    """Return the NAL units of ``data`` from ``start`` to ``end``, which is Annex B.

    They follow each other without a gap: a zero byte before a start code of three bytes belongs to
    the code, further ones stay at the end of the unit before, where decoders drop them. Units of
    no bytes are malformed.

    Raises:
        MalformedMediaError: it does not begin with a start code, or has no or too many units.
    """
    places: list[tuple[int, int]] = []
    found = data.find(_START_CODE, start, end)
    while found >= 0:
        long = found > start and data[found - 1] == 0
        if places and found - long <= sum(places[-1]):
            long = False
        places.append((found - long, 3 + long))
        if len(places) > MAX_NAL_UNITS:
            raise MalformedMediaError(f"more than {MAX_NAL_UNITS} NAL units in a frame")
        found = data.find(_START_CODE, found + 3, end)
    if not places or any(data[start : places[0][0]]):
        raise MalformedMediaError("no start code where a byte stream should begin")
    units = []
    ends = [begin for begin, _ in places[1:]] + [end]
    for (begin, length), stop in zip(places, ends, strict=True):
        if begin + length >= stop:
            raise MalformedMediaError("a NAL unit without bytes")
        units.append(NalUnit(begin, length, stop, data[begin + length] & 0x1F))
    return units


def has_idr(data: bytes, start: int, end: int, length_size: int) -> bool:
    """Say whether an IDR slice is among the NAL units from ``start`` to ``end``.

    Each of them stands behind its length, which takes ``length_size`` bytes.
    """
    while start + length_size < end:
        size = int.from_bytes(data[start : start + length_size], "big")
        if data[start + length_size] & 0x1F == IDR:
            return True
        start += length_size + size
    return False


class SequenceParameters(Struct, frozen=True):
    """What a container says of a sequence parameter set."""

    profile: int
    chroma_format: int
    luma_depth: int
    """Bits of a sample, as for ``chroma_depth``."""
    chroma_depth: int
    width: int
    """Pixels, after cropping."""
    height: int


def read_sequence_parameters(unit: bytes) -> SequenceParameters:
    """Read a sequence parameter set, a NAL unit without start code (7.3.2.1.1).

    Raises:
        MalformedMediaError: it ends early or has impossible values.
    """
    bits = _Bits(unit[1:_MAX_PARAMETER_BYTES].replace(b"\0\0\3", b"\0\0"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    chroma_format, luma_depth, chroma_depth, separate_planes = 1, 8, 8, 0
    if profile in _CHROMA_PROFILES:
        chroma_format = bits.golomb()
        separate_planes = bits.take(1) if chroma_format == _CHROMA_444 else 0
        luma_depth, chroma_depth = 8 + bits.golomb(), 8 + bits.golomb()
        bits.take(1)
        if bits.take(1):
            _skip_scaling_lists(bits, 8 if chroma_format != _CHROMA_444 else 12)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        for _ in range(2):
            bits.golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    columns, rows = bits.golomb() + 1, bits.golomb() + 1
    frames_only = bits.take(1)
    if not frames_only:
        bits.take(1)
    bits.take(1)
    left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.take(1) else (0, 0, 0, 0)
    planar = separate_planes or chroma_format in (0, _CHROMA_444)
    unit_x = 1 if planar else 2
    unit_y = (2 - frames_only) * (2 if not planar and chroma_format == 1 else 1)
    width = columns * _MACROBLOCK - (left + right) * unit_x
    height = rows * _MACROBLOCK * (2 - frames_only) - (top + bottom) * unit_y
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE) or chroma_format > _CHROMA_444:
        raise MalformedMediaError(f"a picture of {width}x{height}")
    return SequenceParameters(profile, chroma_format, luma_depth, chroma_depth, width, height)


def configuration_record(sequence: Sequence[bytes], picture: Sequence[bytes]) -> bytes:
    """Return the AVCDecoderConfigurationRecord for parameter sets, with lengths of four bytes.

    Raises:
        MalformedMediaError: there is no set of either kind, or too many or too large ones.
    """
    for sets, least in ((sequence, 4), (picture, 2)):
        if not 0 < len(sets) <= _MAX_PARAMETER_SETS:
            raise MalformedMediaError(f"{len(sets)} parameter sets")
        if not all(least <= len(unit) <= 0xFFFF for unit in sets):
            raise MalformedMediaError("a parameter set of impossible size")
    parameters = read_sequence_parameters(sequence[0])
    parts = [b"\1", sequence[0][1:4], b"\xff", bytes([0xE0 | len(sequence)])]
    parts += [len(unit).to_bytes(2, "big") + unit for unit in sequence]
    parts.append(bytes([len(picture)]))
    parts += [len(unit).to_bytes(2, "big") + unit for unit in picture]
    if parameters.profile not in _PLAIN_PROFILES:
        luma, chroma = (parameters.luma_depth - 8) & 7, (parameters.chroma_depth - 8) & 7
        parts.append(bytes([0xFC | parameters.chroma_format, 0xF8 | luma, 0xF8 | chroma, 0]))
    return b"".join(parts)


def length_size(record: bytes) -> int:
    """Return how many bytes an AVCDecoderConfigurationRecord gives to NAL unit lengths.

    Raises:
        MalformedMediaError: it is none.
    """
    if len(record) < 7 or record[0] != 1:
        raise MalformedMediaError("not an AVCDecoderConfigurationRecord")
    return (record[4] & 3) + 1


def first_sequence_parameters(record: bytes) -> SequenceParameters | None:
    """Return the first sequence parameter set of an AVCDecoderConfigurationRecord, if any.

    Raises:
        MalformedMediaError: it does not hold together.
    """
    if len(record) < 8 or not record[5] & 0x1F:
        return None
    size = int.from_bytes(record[6:8], "big")
    return read_sequence_parameters(record[8 : 8 + size])


def _skip_scaling_lists(bits: _Bits, count: int) -> None:
    for index in range(count):
        if not bits.take(1):
            continue
        last, following = 8, 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.signed_golomb()) % 256
            last = following or last


class _Bits:
    """Reads bits, most significant first, and Exp-Golomb codes (9.1)."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise MalformedMediaError("a parameter set that ends early")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > _MAX_GOLOMB_ZEROS:
                raise MalformedMediaError("a number without end in a parameter set")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        value = self.golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)
