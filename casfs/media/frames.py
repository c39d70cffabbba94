"""Sample tables of tracks whose frames are a small header and the codec's bytes.

- hang ``legacy``: a presentation time in microseconds, as a variable-length integer of QUIC
  (RFC 9000, section 16), then one frame of the codec.
- ``loc`` (draft-ietf-moq-loc-04 as moq-lite carries it): the length of a block of properties, the
  block, one frame of the codec. Even property types have an integer as value, odd ones bytes; the
  types are told as differences. Known: 0x08 timescale, 0x10 timestamp (0x06 in draft-03).

These containers tell presentation times alone. Frames come in decode order, so the decode times of
a group are its presentation times sorted. Times are turned into ticks of the audio's sample rate,
or of 1/90000 s for video, each by itself: where a publisher rounded to microseconds, or to the
90 kHz of a transport stream, this gives back what it had, and nothing drifts.

H.264 without a description is Annex B with its parameter sets in band; AAC without one may have
ADTS headers. Both are found out from the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media import avc
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import CatalogTrack, Container
from casfs.media.codecs import (
    AAC_RATES,
    OPUS_RATE,
    aac_config,
    aac_description,
    avc_description,
    describe,
)
from casfs.media.descriptions import Kind, SampleDescription
from casfs.media.samples import GroupSamples, TableBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

MICROSECONDS: Final = 1_000_000

VIDEO_TIMESCALE: Final = 90_000
"""Of tables of video: the clock of transport streams, in which common frame rates are exact."""

_AAC_SAMPLES: Final = 1024
_DEFAULT_FRAME_RATE: Final = 25.0

_LOC_TIMESCALE: Final = 0x08
_LOC_TIMESTAMP: Final = 0x10
_LOC_TIMESTAMP_DRAFT03: Final = 0x06

_ADTS_HEADER: Final = 7
_ADTS_WITH_SUM: Final = 9
_OPUS_CONFIGURATIONS: Final = (
    *(480, 960, 1920, 2880) * 3,  # SILK
    *(480, 960) * 2,  # hybrid
    *(120, 240, 480, 960) * 4,  # CELT
)
"""Samples at 48 kHz in one frame, by configuration number (RFC 6716, table 2)."""


class _Frame(Struct, frozen=True):
    """One frame without its header."""

    start: int
    end: int
    time: int
    timescale: int


class _Sample(Struct, frozen=True):
    """One frame as players are to see it."""

    start: int
    size: int
    ticks: int
    sync: bool = True
    nal_units: list[tuple[int, int]] | None = None


def samples_of_frames(
    payload: bytes, frame_sizes: Sequence[int], track: CatalogTrack
) -> GroupSamples:
    """Return the table of a group, or of a run of groups, of ``track``.

    ``frame_sizes`` are the bytes of each frame; a last one that the payload does not hold as a
    whole is left out. Nothing is raised: a payload without a table gives a reason.
    """
    reasons: list[str] = []
    try:
        frames = _read_frames(payload, frame_sizes, track.container, reasons)
        return _derive(payload, frames, track, reasons)
    except MalformedMediaError as error:
        return GroupSamples(reason="; ".join([*reasons, str(error)]))


def _derive(
    payload: bytes, frames: list[_Frame], track: CatalogTrack, reasons: list[str]
) -> GroupSamples:
    family = track.codec.split(".")[0].lower()
    if family in ("avc1", "avc3") and not track.description:
        timescale = VIDEO_TIMESCALE
        description, samples = _annex_b(payload, frames, track)
    elif family == "mp4a" and not track.description and _adts(payload, frames[0]):
        timescale = AAC_RATES[payload[frames[0].start + 2] >> 2 & 0xF]
        description, samples = _strip_adts(payload, frames, timescale)
    else:
        description = describe(track)
        timescale = _timescale(track)
        samples = _plain(payload, frames, track, timescale)
    builder = TableBuilder(len(payload), 0, timescale)
    digest = description.digest
    times = sorted(sample.ticks for sample in samples)
    last = _last_duration(payload, samples, times, track, timescale)
    for sample, time in zip(samples, times, strict=True):
        builder.add(
            digest,
            offset=sample.start,
            size=sample.size,
            decode_time=time,
            duration=last,
            composition_offset=sample.ticks - time,
            sync=sample.sync,
            nal_units=sample.nal_units,
        )
    return GroupSamples(tuple(builder.finish()), (description,), "; ".join(reasons))


def _timescale(track: CatalogTrack) -> int:
    if track.kind is Kind.VIDEO:
        return VIDEO_TIMESCALE
    return OPUS_RATE if track.codec.lower() == "opus" else track.sample_rate


def _ticks(frame: _Frame, timescale: int) -> int:
    """Return the frame's time in ticks, rounded to the nearest."""
    return (2 * frame.time * timescale + frame.timescale) // (2 * frame.timescale)


def _last_duration(
    payload: bytes, samples: list[_Sample], times: list[int], track: CatalogTrack, timescale: int
) -> int:
    """Return for how long the last sample is shown: nobody says, so as its codec or neighbours."""
    family = track.codec.split(".")[0].lower()
    if family == "mp4a":
        return _AAC_SAMPLES
    if family == "opus":
        return _opus_duration(payload, samples[-1])
    if len(times) > 1 and times[-1] > times[0]:
        return (times[-1] - times[0]) // (len(times) - 1)
    return int(timescale / (track.frame_rate or _DEFAULT_FRAME_RATE))


def _opus_duration(payload: bytes, sample: _Sample) -> int:
    """RFC 6716, section 3.1: the first byte says how long a frame is and how many there are."""
    first = payload[sample.start]
    count = (1, 2, 2, 0)[first & 3]
    if not count:
        count = payload[sample.start + 1] & 0x3F if sample.size > 1 else 1
    return _OPUS_CONFIGURATIONS[first >> 3] * max(count, 1)


# Codecs


def _plain(
    payload: bytes, frames: list[_Frame], track: CatalogTrack, timescale: int
) -> list[_Sample]:
    """Frames that are samples as they are."""
    is_avc = track.description and track.codec.lower().startswith("avc")
    lengths = avc.length_size(track.description) if is_avc and track.description else 0
    samples = []
    for number, frame in enumerate(frames):
        # A group begins where decoding can; other codecs tell no more without being decoded.
        sync = track.kind is Kind.AUDIO or number == 0
        sync = sync or (lengths > 0 and avc.has_idr(payload, frame.start, frame.end, lengths))
        samples.append(
            _Sample(frame.start, frame.end - frame.start, _ticks(frame, timescale), sync)
        )
    return samples


def _annex_b(
    payload: bytes, frames: list[_Frame], track: CatalogTrack
) -> tuple[SampleDescription, list[_Sample]]:
    """Frames of a byte stream; their parameter sets give the description."""
    sequence: dict[bytes, None] = {}
    picture: dict[bytes, None] = {}
    samples = []
    for number, frame in enumerate(frames):
        units = avc.split_byte_stream(payload, frame.start, frame.end)
        for unit in units:
            if unit.kind in (avc.SEQUENCE_PARAMETERS, avc.PICTURE_PARAMETERS):
                sets = sequence if unit.kind == avc.SEQUENCE_PARAMETERS else picture
                sets.setdefault(payload[unit.start : unit.end].rstrip(b"\0"))
        start = units[0].begin
        samples.append(
            _Sample(
                start,
                frame.end - start,
                _ticks(frame, VIDEO_TIMESCALE),
                number == 0 or any(unit.kind == avc.IDR for unit in units),
                [(unit.code_length, unit.size) for unit in units],
            )
        )
    if not sequence or not picture:
        raise MalformedMediaError("H.264 with neither a description nor parameter sets in band")
    record = avc.configuration_record(list(sequence), list(picture))
    described = avc_description(record, in_band=True, width=track.width, height=track.height)
    return described, samples


def _adts(payload: bytes, frame: _Frame) -> bool:
    """Whether ``frame`` begins with an ADTS header (ISO/IEC 14496-3, 1.A.2.2) that is its own."""
    head = payload[frame.start : min(frame.end, frame.start + _ADTS_HEADER)]
    if len(head) < _ADTS_HEADER or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size == frame.end - frame.start and head[2] >> 2 & 0xF < len(AAC_RATES)


def _strip_adts(
    payload: bytes, frames: list[_Frame], rate: int
) -> tuple[SampleDescription, list[_Sample]]:
    samples = []
    for frame in frames:
        if not _adts(payload, frame):
            raise MalformedMediaError("AAC of which some frames have ADTS headers")
        header = _ADTS_HEADER if payload[frame.start + 1] & 1 else _ADTS_WITH_SUM
        start = frame.start + header
        samples.append(_Sample(start, max(frame.end - start, 0), _ticks(frame, rate)))
    first = payload[frames[0].start : frames[0].start + _ADTS_HEADER]
    channels = (first[2] & 1) << 2 | first[3] >> 6
    channels = 8 if channels == 7 else channels
    config = aac_config((first[2] >> 6) + 1, rate, channels)
    return aac_description(config, rate, channels), samples


# Containers


def _read_frames(
    payload: bytes, frame_sizes: Sequence[int], container: Container, reasons: list[str]
) -> list[_Frame]:
    if container not in (Container.LEGACY, Container.LOC):
        raise MalformedMediaError(f"frames in a container that is not known: {container}")
    read = _read_legacy if container is Container.LEGACY else _read_loc
    frames: list[_Frame] = []
    position = 0
    for size in frame_sizes:
        end = position + size
        if size < 0 or end > len(payload):
            reasons.append("the last frame is cut short")
            break
        frame = read(payload, position, end)
        if frame.start < frame.end:
            frames.append(frame)
        position = end
    if not frames:
        raise MalformedMediaError("no frames")
    return frames


def read_frame_time(frame: bytes, container: Container) -> tuple[int, int]:
    """Return the time before a frame and its units a second; raises `MalformedMediaError`."""
    if container not in (Container.LEGACY, Container.LOC):
        raise MalformedMediaError(f"frames in a container that is not known: {container}")
    read = _read_legacy if container is Container.LEGACY else _read_loc
    found = read(frame, 0, len(frame))
    return found.time, found.timescale


def _read_legacy(payload: bytes, start: int, end: int) -> _Frame:
    time, start = _read_varint(payload, start, end)
    return _Frame(start, end, time, MICROSECONDS)


def _read_loc(payload: bytes, start: int, end: int) -> _Frame:
    length, start = _read_varint(payload, start, end)
    behind = start + length
    if behind > end:
        raise MalformedMediaError("LOC properties beyond the end of their frame")
    time: int | None = None
    timescale, kind = MICROSECONDS, 0
    while start < behind:
        step, start = _read_varint(payload, start, behind)
        kind += step
        value, start = _read_varint(payload, start, behind)
        if kind % 2:
            start += value
        elif kind in (_LOC_TIMESTAMP, _LOC_TIMESTAMP_DRAFT03):
            time = value
        elif kind == _LOC_TIMESCALE:
            timescale = value
    if time is None or start != behind or timescale == 0:
        raise MalformedMediaError("LOC properties without a time")
    return _Frame(behind, end, time, timescale)


def _read_varint(payload: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the integer at ``start`` and the offset behind it (RFC 9000, section 16)."""
    length = 1 << (payload[start] >> 6) if start < end else 1
    if start + length > end:
        raise MalformedMediaError("a frame that ends within its header")
    value = int.from_bytes(payload[start : start + length], "big")
    return value & (1 << 8 * length - 2) - 1, start + length
