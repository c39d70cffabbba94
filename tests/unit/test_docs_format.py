"""docs/format.md says what the code does: its members, its names, its bytes, its algorithm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.archive import Run
from casfs.digest import BLOCK_BYTES, digest_of
from casfs.errors import StorageError
from casfs.heads import Heads
from casfs.manifests.record import (
    MAX_LINE_BYTES,
    KnownRecord,
    Line,
    Position,
    Record,
    encode_line,
    parse_line,
)
from casfs.manifests.segment import parse_segment_name
from casfs.names import MAX_NAME_BYTES, encode_name
from casfs.roots import Format
from casfs.timestamps import DAY, parse_time
from casfs.verify.quarantine import QuarantineRecord
from tests.fakes.store import (
    Clock,
    crash,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    read_journal,
    segments,
)
from tools.docs.markdown import Block, Page, read_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.archive import Archive, BroadcastWriter

ROOT = Path(__file__).parents[2]
PAGE: Page = read_page((ROOT / "docs" / "format.md").read_text(encoding="utf-8"))
TEXT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")

KINDS: dict[str, type[Record]] = {
    str(kind.__struct_config__.tag): kind for kind in KnownRecord.__args__
}
LINE_MEMBERS = ("synced", "prev", "sum")

BROADCAST, TRACK = "demo/tv", "video0.m4s"


def members_in(section: str) -> list[str]:
    """Return what the first column of the tables under a heading names."""
    return [row[0].strip("`") for table in PAGE.tables_in(section) for row in table.rows]


def block_in(section: str, language: str) -> Block:
    (block,) = [b for b in PAGE.blocks if (b.section, b.language) == (section, language)]
    return block


# Members


def test_every_member_of_every_record_is_described() -> None:
    assert members_in("Records") == ["kind", *Record.__struct_fields__]
    common = set(Record.__struct_fields__)
    described = {kind: members_in(kind) for kind in KINDS}
    assert described == {
        kind: [name for name in record.__struct_fields__ if name not in common]
        for kind, record in KINDS.items()
    }


def test_every_kind_has_its_section() -> None:
    kinds = {heading for heading in PAGE.headings if f"\n### {heading}\n" in TEXT}
    assert set(KINDS) <= kinds


def test_every_member_of_the_other_files_is_described() -> None:
    assert members_in("format.json") == list(Format.__struct_fields__)
    assert members_in("Heads") == list(Heads.__struct_fields__)
    own = set(QuarantineRecord.__struct_fields__) - set(Record.__struct_fields__)
    assert set(members_in("Quarantine")) == own
    assert members_in("Lines")[:3] == list(LINE_MEMBERS)
    assert members_in("Lines")[3:] == list(Position.__struct_fields__)


@pytest.mark.parametrize(
    ("section", "struct"),
    [*KINDS.items(), ("format.json", Format), ("Heads", Heads), ("Lines", Position)],
)
def test_the_types_in_the_tables_are_those_of_the_code(
    section: str, struct: type[msgspec.Struct]
) -> None:
    described = {
        row[0].strip("`"): row[1].replace(", or ", " or ")
        for heading in ("Records", section)
        for table in PAGE.tables_in(heading)
        for row in table.rows
    }
    properties = msgspec.json.schema_components([struct])[1][struct.__name__]["properties"]
    found = {name: json_type(schema) for name, schema in properties.items()}
    assert found == {name: described[name] for name in found}


def json_type(schema: dict[str, object]) -> str:
    """Say a JSON schema in the words of the page."""
    if "anyOf" in schema:
        options = schema["anyOf"]
        assert isinstance(options, list)
        return " or ".join(sorted(map(json_type, options), key=lambda name: name == "null"))
    if "$ref" in schema:
        return "position" if str(schema["$ref"]).endswith("/Position") else "object"
    if "enum" in schema:
        return "string"
    items = schema.get("items")
    if isinstance(items, dict):
        inner = json_type(items)
        return f"array of arrays{inner[5:]}" if inner.startswith("array") else f"array of {inner}s"
    return str(schema["type"])


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    assert f"above {MAX_NAME_BYTES} bytes" in TEXT
    assert f"longer than {MAX_LINE_BYTES} bytes" in TEXT
    assert f"above {BLOCK_BYTES} bytes" in TEXT


# Names


@pytest.mark.parametrize("row", PAGE.tables_in("Names")[0].rows, ids=lambda row: row[0])
def test_a_name_is_encoded_as_the_table_says(row: tuple[str, str]) -> None:
    words, component = row
    name, _, folds = words.partition(", ")
    if name.startswith("200 times"):
        expected = "a" * 180 + component.rpartition("then `")[2].strip("`")
        name = "a" * 200
    else:
        expected = component.strip("`")
        name = "" if name == "(empty)" else name.strip("`")
    assert encode_name(name, fold_case=bool(folds)) == expected


# The example


def example() -> list[Line]:
    lines: list[Line] = []
    offset = 0
    for text in block_in("An example", "jsonl").text.encode().splitlines(keepends=True):
        line = parse_line(text[:-1], offset)
        assert line is not None
        assert line.end == offset + len(text)
        lines.append(line)
        offset = line.end
    return lines


def test_the_example_is_what_casfs_writes_to_the_byte() -> None:
    written = b""
    previous = None
    for line in example():
        assert isinstance(line.record, Record)
        text, again = encode_line(
            line.record, offset=line.offset, synced=line.synced, prev=previous
        )
        assert again == line
        written += text
        previous = line.sum
    assert written == block_in("An example", "jsonl").text.encode()


def test_the_explanation_of_the_example_is_right() -> None:
    first, second, third = example()
    (said,) = [line for line in TEXT.splitlines() if line.startswith("The lines take the bytes")]
    for line in (first, second, third):
        assert f"{line.offset} to {line.end}" in said
    text = block_in("An example", "jsonl").text.encode()
    assert digest_of(text[:287]) == first.sum
    assert text[:287].endswith(b'"prev":null')
    assert (first.synced, second.synced, third.synced) == (0, 0, 1225)
    assert "first 287 bytes" in TEXT
    assert "`synced` is 1225" in TEXT
    assert digest_of(b"hello world").encode() in text


# An archive on disk


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path / "archive")


def record(archive: Archive, *, track: str = TRACK, groups: int = 5) -> None:
    with archive.writer(BROADCAST, clock=Clock()) as writer:
        writer.commit([group(number, track=track) for number in range(groups)])


def test_nothing_lies_in_the_roots_that_the_page_does_not_show(archive: Archive) -> None:
    record(archive)
    with archive.writer("other", clock=Clock()):
        tree = block_in("The two roots", "").text
        found = {
            os.path.relpath(os.path.join(directory, name), root)
            for root in (archive.roots.cas, archive.roots.manifests)
            for directory, directories, files in os.walk(root)
            for name in (*files, *(name for name in directories if name.startswith(".")))
        }
    kinds = {kind_of(path) for path in found} - {".casfs"}
    assert kinds == {
        ".casfs/format.json",
        ".casfs/heads/<broadcast>.json",
        "objects/blake3/",
        "<broadcast>/@broadcast/<date>.<nnn>.jsonl",
        "<broadcast>/<track>/<date>.<nnn>.jsonl",
    }
    assert all(kind in tree for kind in kinds)


def kind_of(path: str) -> str:
    directory, name = os.path.split(path)
    if parse_segment_name(name) is not None:
        journal = "@broadcast" if directory.endswith("/@broadcast") else "<track>"
        return f"<broadcast>/{journal}/<date>.<nnn>.jsonl"
    if directory == ".casfs/heads":
        return ".casfs/heads/<broadcast>.json"
    return "objects/blake3/" if name.endswith(".bin") else path


def test_an_object_and_its_file_are_as_described(archive: Archive) -> None:
    record(archive, groups=1)
    (path,) = Path(archive.roots.cas, "objects").rglob("*.bin")
    assert path.stat().st_mode & 0o777 == 0o444
    digest = digest_of(path.read_bytes())
    shown = str(path.relative_to(archive.roots.cas))
    assert shown == f"objects/blake3/{digest[:2]}/{digest}.bin"


def test_integers_and_times_in_files_are_as_described(archive: Archive) -> None:
    record(archive)
    lines, _ = read_journal(journal_directory(archive, encode_name(BROADCAST), TRACK))
    for line in lines:
        assert isinstance(line.record, Record)
        assert len(line.record.time) == 30
        assert parse_time(line.record.time) > 0
        assert line.synced <= line.offset


# Reading without casfs


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the commands' environment, with a b3sum of our own if the package is missing."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    directory = tmp_path_factory.mktemp("bin")
    if shutil.which("b3sum") is None:
        script = directory / "b3sum"
        script.write_text(f"#!{sys.executable}\n{B3SUM}")
        script.chmod(0o755)
    return os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


B3SUM = """\
import sys
from blake3 import blake3
names = [name for name in sys.argv[1:] if name != "--no-names"]
for name in names or ["/dev/stdin"]:
    with open(name, "rb") as file:
        digest = blake3(file.read()).hexdigest()
    print(digest if "--no-names" in sys.argv else f"{digest}  {name}")
"""


def run_block(archive: Archive, environment: dict[str, str], words: str) -> bytes:
    """Run the one block of commands that contains these words, and return what it prints."""
    (block,) = [b for b in PAGE.blocks if b.language == "bash" and words in b.text]
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        env=environment | {"CAS": archive.roots.cas, "MANIFESTS": archive.roots.manifests},
        capture_output=True,
        check=True,
    )
    assert not result.stderr
    return result.stdout


@pytest.fixture
def small(archive: Archive) -> Archive:
    """Return an archive in which a group came in pieces, after a newer one, and another twice."""
    first = Clock()
    with archive.writer(BROADCAST, clock=first) as writer:
        writer.commit([group(9), group(10), group(7, b"half", complete=False)])
        writer.commit([group(7, b"half and half"), group(8), group(11, b"", track="silent")])
    first.now += DAY
    with archive.writer(BROADCAST, clock=first) as writer:
        writer.commit([group(2, epoch=2), group(10), group(3, b"cut", epoch=2, complete=False)])
        writer.commit([Run((group(4, epoch=2), group(5, b"", epoch=2), group(12, epoch=2)))])
    return archive


def test_commands_list_the_groups(small: Archive, tools: dict[str, str]) -> None:
    rows = [
        line.split("\t")
        for line in run_block(small, tools, "received_start] | @tsv").decode().splitlines()
    ]
    assert sorted((row[1], int(row[2]), int(row[3])) for row in rows) == sorted(
        [("silent", 1, 11)]
        + [(TRACK, 1, number) for number in (7, 7, 8, 9, 10, 10)]
        + [(TRACK, 2, number) for number in (2, 3, 4, 5, 12)]
    )


def test_commands_concatenate_a_track(small: Archive, tools: dict[str, str]) -> None:
    payload = b"half and half" + b"".join(
        f"{TRACK} {epoch} {number}".encode() for epoch, number in ((1, 8), (1, 9), (1, 10), (2, 2))
    )
    assert run_block(small, tools, "track='demo%2Ftv/video0.m4s'") == (
        payload + b"cut" + f"{TRACK} 2 4{TRACK} 2 12".encode()
    )


def test_commands_find_damaged_objects(small: Archive, tools: dict[str, str]) -> None:
    assert run_block(small, tools, "find . -name '*.bin'") == b""
    bad = small.objects.path(digest_of(b"cut"))
    flip_bit(bad, 1)
    assert os.path.basename(bad).encode() in run_block(small, tools, "find . -name '*.bin'")


def test_commands_find_lines_that_are_not_intact(small: Archive, tools: dict[str, str]) -> None:
    assert run_block(small, tools, "while IFS= read -r line") == b""
    (path, _) = segments(journal_directory(small, encode_name(BROADCAST), TRACK))
    flip_bit(path, os.path.getsize(path) - 200)
    found = run_block(small, tools, "while IFS= read -r line")
    assert found.count(b"not intact: ") == 1


# The program that reads a journal


@pytest.fixture(scope="module")
def read_program(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[list[bytes], str]]:
    path = tmp_path_factory.mktemp("program") / "read_journal.py"
    path.write_text(block_in("Every living record", "python").text)

    def read(directory: str) -> tuple[list[bytes], str]:
        result = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", path, directory],
            capture_output=True,
            check=True,
        )
        return result.stdout.splitlines(), result.stderr.decode()

    return read


def writer_that_fails(archive: Archive, clock: Clock) -> BroadcastWriter:
    """Return a writer in the middle of its work, one of whose syncs has failed."""
    writer = archive.writer(BROADCAST, clock=clock).__enter__()
    writer.commit([group(10), group(11)])
    (journal,) = [j for j in writer._journals.values() if j.directory.endswith(TRACK)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError):
            writer.commit([group(12), group(13)])
    assert journal._descriptor is None
    writer.commit([group(14)])
    return writer


def fail(_: int) -> None:
    raise OSError(5, "the disk is on fire")


def journals(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield journals that have suffered in one way each, by what happened."""
    clock = Clock()
    archive = make_archive(directory / "original")
    for _ in range(3):
        with archive.writer(BROADCAST, clock=clock) as writer:
            for number in range(3):
                writer.commit([group(number + clock.now)])
            writer.commit([Run((group(3 + clock.now), group(4 + clock.now)))])
        clock.now += DAY
    crash(writer_that_fails(archive, clock))
    crash(writer_that_fails(archive, clock))
    original = journal_directory(archive, encode_name(BROADCAST), TRACK)
    names = [os.path.basename(path) for path in segments(original)]
    assert len(names) == 7
    dice = iter(range(1 << 30))

    def copy() -> Path:
        target = directory / f"copy-{next(dice)}"
        shutil.copytree(original, target)
        return target

    yield "nothing", copy()
    for name in names:
        size = os.path.getsize(os.path.join(original, name))
        for offset in range(7, size, size // 5):
            flipped = copy()
            flip_bit(str(flipped / name), offset)
            yield f"a bit of {name} flipped at {offset}", flipped
            cut = copy()
            os.truncate(cut / name, offset)
            yield f"{name} cut at {offset}", cut
            filled = copy()
            (filled / name).write_bytes(
                (filled / name).read_bytes()[:offset] + b"\0" * 100 + b'garbage\n{"half": '
            )
            yield f"{name} overwritten behind {offset}", filled
        gone = copy()
        (gone / name).unlink()
        yield f"{name} missing", gone
        doubled = copy()
        lines = (doubled / name).read_bytes().splitlines(keepends=True)
        (doubled / name).write_bytes(b"".join([*lines[:2], *lines[1:]]))
        yield f"a line of {name} doubled", doubled
        dropped = copy()
        (dropped / name).write_bytes(b"".join([lines[0], *lines[2:]]))
        yield f"a line of {name} dropped", dropped


def test_the_program_reads_what_casfs_reads_whatever_happened(
    tmp_path: Path, read_program: Callable[[str], tuple[list[bytes], str]]
) -> None:
    """The numbered steps of the page are those of the code: an independent reader agrees."""
    looked_at = damaged = 0
    for what, directory in journals(tmp_path):
        lines, faults = read_journal(str(directory))
        texts, complaints = read_program(str(directory))
        read = [line.sum for line in map(parse, texts)]
        expected = [line.sum for line in lines]
        assert bool(complaints) == bool(faults), (what, complaints, faults)
        if faults:
            assert set(read) <= set(expected), what
        else:
            assert read == expected, what
        looked_at += 1
        damaged += bool(faults)
    assert looked_at > 100
    assert 50 < damaged < looked_at


def parse(text: bytes) -> Line:
    line = parse_line(text, 0)
    assert line is not None
    return line


@pytest.mark.parametrize(
    "block", [b for b in PAGE.blocks if b.language == "bash"], ids=lambda b: str(b.line)
)
def test_every_command_of_the_page_is_covered(block: Block) -> None:
    covered = (
        "received_start] | @tsv",
        "track='demo",
        "find . -name '*.bin'",
        "while IFS= read -r",
    )
    assert sum(words in block.text for words in covered) == 1
