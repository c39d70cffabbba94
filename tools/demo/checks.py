"""What the quickstart shows of a mounted archive: its tree, its hashes, its pictures."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
import msgspec

from tools.demo.steps import StepError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHOWN = 3
"""How many entries of a directory are listed."""

Tracks = tuple[str, ...]


class Stream(msgspec.Struct, frozen=True):
    """A stream as ffprobe reports it."""

    codec_type: str
    codec_name: str = ""
    width: int = 0
    height: int = 0
    sample_rate: str = ""
    nb_read_frames: str = "0"


class Report(msgspec.Struct, frozen=True):
    """What ffprobe writes as JSON."""

    streams: tuple[Stream, ...] = ()


class Hashed(msgspec.Struct, frozen=True):
    """What reading every object through the mount came to."""

    objects: int
    bytes: int
    example: Path


def tree(directory: Path, depth: int, indent: str = "") -> Iterator[str]:
    """Yield lines that show ``directory``, ``depth`` levels deep, a few entries of each."""
    entries = sorted(directory.iterdir())
    for entry in entries[:SHOWN]:
        if entry.is_symlink():
            yield f"{indent}{entry.name} -> {entry.readlink()}"
        elif entry.is_dir():
            yield f"{indent}{entry.name}/"
            if depth > 1:
                yield from tree(entry, depth - 1, indent + "  ")
        else:
            yield f"{indent}{entry.name}  {entry.stat().st_size:,} bytes"
    if len(entries) > SHOWN:
        yield f"{indent}... {len(entries) - SHOWN} more"


def hash_objects(objects: Path) -> Hashed:
    """Read every file below ``objects`` and compare its BLAKE3 with its name.

    Raises:
        StepError: one differs, or there is none.
    """
    total = 0
    files = sorted(objects.glob("*/*.bin"))
    for file in files:
        content = file.read_bytes()
        total += len(content)
        if blake3.blake3(content).hexdigest() != file.stem:
            raise StepError(f"{file} does not hash to its name")
    if not files:
        raise StepError(f"no object below {objects}")
    return Hashed(len(files), total, files[0])


def groups(track: Path) -> list[Path]:
    """Return the complete groups of a mounted track in their order.

    Raises:
        StepError: there is none.
    """
    files = sorted(
        file for file in track.glob("*/*/*") if file.is_file() and file.suffix != ".partial"
    )
    if not files:
        raise StepError(f"no group below {track}")
    return files


def decode(init: Path, media: Sequence[Path]) -> tuple[Stream, ...]:
    """Have ffprobe decode ``init`` followed by ``media`` and return the streams it found.

    Raises:
        StepError: ffprobe reports an error.
    """
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", "-"],
        input=b"".join(file.read_bytes() for file in (init, *media)),
        capture_output=True,
        check=False,
    )
    if probe.returncode or probe.stderr:
        raise StepError(f"ffprobe: {probe.stderr.decode(errors='replace').strip()}")
    return msgspec.json.decode(probe.stdout, type=Report).streams


def describe(stream: Stream) -> str:
    """Say in a few words what a stream is and how many frames were decoded."""
    if stream.codec_type == "video":
        shape = f"{stream.width}x{stream.height}"
    else:
        shape = f"{stream.sample_rate} Hz"
    return (
        f"{stream.codec_type}: {stream.codec_name}, {shape}, {stream.nb_read_frames} frames decoded"
    )
