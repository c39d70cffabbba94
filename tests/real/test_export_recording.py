"""`casfs export --format mp4`: ffmpeg decodes from the file what was archived, frame by frame."""

from __future__ import annotations

import base64
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import structs

from casfs.archive import Run
from casfs.cli.program import run
from casfs.digest import Digest, digest_of
from casfs.errors import ConfigError, NotFoundError
from casfs.export.manifest import Span
from casfs.export.recording import export_recording
from tests.fakes.flat_media import Encoding, Media, encode, frames, probe, write
from tests.fakes.store import NOON, Clock, check, flip_bit, group, make_archive
from tests.faults.test_implausible_records import append
from tools.docs.markdown import read_page
from tools.docs.members import members_of

if TYPE_CHECKING:
    from casfs.archive import Archive, Group

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
TRACKS = {1: "video0.m4s", 2: "audio0.m4s"}

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@cache
def media(encoding: Encoding) -> Media:
    return encode(encoding)


def track_of(fragment: bytes) -> str:
    at = fragment.index(b"tfhd") + 8
    return TRACKS[int.from_bytes(fragment[at : at + 4], "big")]


def groups_of(source: Media, *, received: int, epoch: int = 1) -> list[Group]:
    """Return the groups that a recorder would commit, an init first, one a fragment."""
    numbers = dict.fromkeys(TRACKS.values(), 0)
    made = [group(0, source.init, track="init.mp4", epoch=epoch, received=received)]
    for fragment in source.fragments:
        name = track_of(fragment)
        made.append(
            group(
                numbers[name],
                fragment,
                track=name,
                epoch=epoch,
                received=received + numbers[name] * SECOND,
                init=digest_of(source.init),
            )
        )
        numbers[name] += 1
    return made


def record(archive: Archive, *groups: Group) -> None:
    with archive.writer("demo/tv", clock=Clock(NOON + HOUR)) as writer:
        writer.commit(groups)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of six seconds of video and sound."""
    made = make_archive(tmp_path / "archive")
    record(made, *groups_of(media(Encoding()), received=NOON))
    return made


def test_it_decodes_as_what_was_published(archive: Archive, tmp_path: Path) -> None:
    exported = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4"))
    plain = write(tmp_path / "plain.mp4", media(Encoding()).stream)
    (file,) = exported.files
    assert file.path == str(tmp_path / "out.mp4")
    assert exported.complete
    assert not exported.left_out
    assert sorted(file.tracks) == ["audio0.m4s", "video0.m4s"]
    for kind in "va":
        assert frames(tmp_path / "out.mp4", kind) == frames(plain, kind)
    assert float(probe(tmp_path / "out.mp4").format.duration) == pytest.approx(6, abs=0.2)
    assert file.duration == pytest.approx(6, abs=0.2)
    assert os.path.getsize(file.path) == file.bytes


def test_groups_in_runs_are_samples_like_any_others(archive: Archive, tmp_path: Path) -> None:
    groups = groups_of(media(Encoding()), received=NOON)
    runs = make_archive(tmp_path / "runs")
    with runs.writer("demo/tv", clock=Clock(NOON + HOUR)) as writer:
        writer.commit([item for item in groups if item.track == "init.mp4"])
        for track in TRACKS.values():
            of_track = [item for item in groups if item.track == track]
            writer.commit([of_track[0], Run(tuple(of_track[1:-1])), of_track[-1]])
    span = Span("demo/tv", (), NOON + SECOND, NOON + 5 * SECOND)
    for name, source in (("alone.mp4", archive), ("runs.mp4", runs)):
        exported = export_recording(source, span, str(tmp_path / name))
        assert exported.complete
    assert (tmp_path / "runs.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_a_span_of_one_track_is_that_and_no_more(archive: Archive, tmp_path: Path) -> None:
    span = Span("demo/tv", ("video0.m4s",), NOON + 2 * SECOND, NOON + 4 * SECOND)
    (file,) = export_recording(archive, span, str(tmp_path / "out.mp4")).files
    plain = write(tmp_path / "plain.mp4", media(Encoding()).stream)
    assert file.tracks == ["video0.m4s"]
    assert frames(tmp_path / "out.mp4", "v") == frames(plain, "v")[50:100]


def test_a_codec_that_changes_begins_another_file(archive: Archive, tmp_path: Path) -> None:
    other = media(Encoding(audio="libopus", seconds=2))
    record(archive, *groups_of(other, received=NOON + 60 * SECOND, epoch=2))
    exported = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4"))
    assert [os.path.basename(file.path) for file in exported.files] == ["out.mp4", "out-2.mp4"]
    for name, source in (("out.mp4", media(Encoding())), ("out-2.mp4", other)):
        plain = write(tmp_path / "plain.mp4", source.stream)
        assert frames(tmp_path / name, "v") == frames(plain, "v")


def test_what_is_damaged_is_left_out_and_the_file_marked(archive: Archive, tmp_path: Path) -> None:
    digest = second_video_fragment()
    flip_bit(archive.objects.path(digest), 500)
    exported = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4"))
    assert [(item.track, item.sequence) for item in exported.lacking] == [("video0.m4s", "1")]
    assert sorted(os.listdir(tmp_path)) == ["archive", "out.mp4.incomplete"]
    plain = write(tmp_path / "plain.mp4", media(Encoding()).stream)
    decoded = frames(plain, "v")
    assert frames(tmp_path / "out.mp4.incomplete", "v") == decoded[:25] + decoded[50:]


def second_video_fragment() -> Digest:
    video = [item for item in media(Encoding()).fragments if track_of(item) == "video0.m4s"]
    return digest_of(video[1])


def test_a_track_that_its_catalog_strikes_off_is_whole(tmp_path: Path) -> None:
    source = media(Encoding(audio=""))
    container = {"kind": "cmaf", "init": base64.b64encode(source.init).decode()}
    named = {"video0.m4s": {"codec": "avc1.64000c", "container": container}}
    catalogs = [json.dumps({"video": {"renditions": known}}).encode() for known in (named, {})]
    groups = [
        structs.replace(group(number, track="catalog.json"), frames=(catalog,))
        for number, catalog in enumerate(catalogs)
    ]
    for number, fragment in enumerate(source.fragments):
        init = digest_of(catalogs[number >= 4])
        groups.append(group(number, fragment, received=NOON + number * SECOND, init=init))
    archive = make_archive(tmp_path / "archive")
    record(archive, *groups)
    plain = frames(write(tmp_path / "plain.mp4", source.stream), "v")
    exported = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4"))
    assert not exported.left_out
    assert frames(tmp_path / "out.mp4", "v") == plain
    # Also where the catalog that knew it came before the span.
    span = Span("demo/tv", (), NOON + 4 * SECOND)
    assert not export_recording(archive, span, str(tmp_path / "end.mp4")).left_out
    assert frames(tmp_path / "end.mp4", "v") == plain[4 * 25 :]


def test_tracks_without_samples_are_named(archive: Archive, tmp_path: Path) -> None:
    record(archive, group(0, b"\0\0\0\x10free no media", track="odd", received=NOON))
    (left_out,) = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4")).left_out
    assert (left_out.track, left_out.groups) == ("odd", 1)
    with pytest.raises(NotFoundError, match="can be played"):
        export_recording(archive, Span("demo/tv", ("odd",)), str(tmp_path / "odd.mp4"))


def test_what_the_command_prints_is_documented(archive: Archive, tmp_path: Path) -> None:
    record(archive, group(0, b"\0\0\0\x10free no media", track="odd", received=NOON))
    os.unlink(archive.objects.path(second_video_fragment()))
    append(archive, {"received_start": "yesterday"}, broadcast="demo/tv")
    exported = export_recording(archive, Span("demo/tv"), str(tmp_path / "out.mp4"))
    page = read_page((ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
    (table,) = page.tables_in("casfs export --format mp4")
    described = {row[0].strip("`"): set(row[1].split(" or ")) for row in table.rows}
    found = members_of(msgspec.to_builtins(exported))
    assert set(found) == set(described)
    for path, types in found.items():
        assert types <= described[path], path


def test_what_exists_is_never_overwritten(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("keep this")
    with pytest.raises(ConfigError, match="exists"):
        export_recording(archive, Span("demo/tv"), str(target))
    assert target.read_text() == "keep this"
    assert sorted(os.listdir(tmp_path)) == ["archive", "out.mp4"]


def test_the_command_writes_it(
    archive: Archive, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    roots = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    export = ["export", "demo/tv", "--format", "mp4", *roots]
    target = str(tmp_path / "out.mp4")
    assert run([*export, target, "--json"]) == 0
    printed = json.loads(capfdbinary.readouterr().out)
    assert [file["path"] for file in printed["files"]] == [target]
    assert run([*export, target]) == 2
    assert run([*export, f"{target}2", "--link", "hard"]) == 2
    os.unlink(archive.objects.path(second_video_fragment()))
    assert run([*export, f"{target}3"]) == 3
    assert b"lacking   video0.m4s epoch 1 sequence 1" in capfdbinary.readouterr().out
    assert not check(archive).sound
