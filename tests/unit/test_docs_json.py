"""docs/json.md names every member that the commands print, with its type, and no other."""

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
from casfs.digest import digest_of
from casfs.mount.status import DamagedObject, GroupIdentity, MountStatus, render_status
from casfs.recorders import (
    SourceReport,
    SupervisedReport,
    SupervisorReport,
    lock_supervisor,
    write_report,
    write_supervisor_report,
)
from casfs.timestamps import HOUR
from tests.fakes.hours import LONG_AGO, hour_group, record_hours
from tests.fakes.reports import report
from tests.fakes.store import (
    NOON,
    Clock,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    object_file,
    segments,
)
from tests.faults.test_implausible_records import append
from tools.docs.__main__ import visible_commands
from tools.docs.markdown import read_page
from tools.docs.members import members_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from casfs.archive import Archive

ROOT = Path(__file__).parents[2]
PAGE = read_page((ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
CASFS = os.path.join(os.path.dirname(sys.executable), "casfs")


def documented(section: str) -> dict[str, set[str]]:
    """Return the members in a section's table, and the types that each may have."""
    (table,) = PAGE.tables_in(section)
    return {row[0].strip("`"): set(row[1].split(" or ")) for row in table.rows}


def check_members(
    section: str,
    *values: object,
    optional: Collection[str] = (),
    named: Collection[str] = (),
) -> None:
    """Compare what was printed with the section: the same members, and no other types.

    ``optional``: objects that may be null as a whole. ``named``: whose members' names are data.
    """
    found: dict[str, set[str]] = {}
    for value in values:
        for path, types in members_of(value, named).items():
            found.setdefault(path, set()).update(types)
    for path in optional:
        assert found.pop(path, {"null"}) == {"null"}
    found = {path: types for path, types in found.items() if not is_null_array(path, types, found)}
    described = documented(section)
    assert set(found) == set(described)
    for path, types in found.items():
        # A number may happen to be whole.
        whole = {"integer"} if "number" in described[path] else set()
        assert types <= described[path] | whole, path


def is_null_array(path: str, types: set[str], found: dict[str, set[str]]) -> bool:
    """Say whether this is an array that was null once."""
    return types == {"null"} and f"{path}[]" in found


def run(archive: Archive, *arguments: str, code: int = 0) -> list[object]:
    """Run a command and return the objects that it prints, one a line."""
    result = subprocess.run(
        [CASFS, *arguments],
        env=os.environ
        | {
            "CASFS_CAS_ROOT": archive.roots.cas,
            "CASFS_MANIFEST_ROOT": archive.roots.manifests,
            "CASFS_CONFIG": "",
            "XDG_CONFIG_HOME": archive.roots.manifests,
        },
        capture_output=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return [msgspec.json.decode(line) for line in result.stdout.splitlines()]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive with groups in two tracks, one of which holds gaps alone."""
    archive = make_archive(tmp_path / "archive")
    with archive.writer("demo", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(6)])
        writer.note_gap("silent", epoch=1, start=0, end=1, reason="disconnected")
    return archive


def test_init(archive: Archive, tmp_path: Path) -> None:
    cas, manifests = str(tmp_path / "new-cas"), str(tmp_path / "new-manifests")
    (said,) = run(archive, "init", "--json", "--cas-root", cas, "--manifest-root", manifests)
    check_members("casfs init", said)


def test_ls(archive: Archive) -> None:
    said = run(archive, "ls", "--json")
    assert len(said) == 2
    check_members("casfs ls", *said)
    assert {"string", "null"} == documented("casfs ls")["first"]


def test_show(archive: Archive) -> None:
    first = group(0, track="init.mp4")
    with archive.writer("demo", clock=Clock(NOON + HOUR)) as writer:
        writer.commit([first])
        writer.commit([group(9, complete=False), group(3, epoch=2, init=digest_of(FIRST))])
        writer.commit([msgspec.structs.replace(group(7), timestamps=(1, 2), timescale=1000)])
        writer.commit([Run((group(20), group(21)))])
    flip_bit(object_file(archive, group(9)), 1)
    show = ("show", "demo", "video0.m4s", "--check", "--json", "--sequence")
    damaged = run(archive, *show, "9", code=3)
    groups = [
        *damaged,
        *run(archive, *show, "3"),
        *run(archive, *show, "7"),
        *run(archive, *show, "21"),
    ]
    (said,) = run(archive, "show", digest_of(FIRST), "--json")
    assert isinstance(said, dict)
    assert set(said) == {"kind", "hash", "path", "object", "references", "findings"}
    assert (said["kind"], said["references"]["init_groups_total"]) == ("object", 1)
    whole = [{**dict_of(value), "references": said["references"]} for value in groups]
    check_members("casfs show", *groups, *whole, optional=("init_object", "record", "run"))


FIRST = b"init.mp4 1 0"


def dict_of(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def test_stats(archive: Archive) -> None:
    check_members("casfs stats", *run(archive, "stats", "--json"))


def test_export_and_import(archive: Archive, tmp_path: Path) -> None:
    export = ("export", "demo", "--track", "video0.m4s", "--json")
    whole = run(archive, *export, str(tmp_path / "whole"))
    os.unlink(object_file(archive, group(3)))
    append(archive, {"received_start": "yesterday"}, broadcast="demo")
    part = run(archive, *export, "--until", "2030-01-01T00:00:00Z", str(tmp_path / "part"), code=3)
    check_members("casfs export", *whole, *part)
    described = {name.partition("[")[0] for name in documented("casfs export")}
    manifest = msgspec.json.decode((tmp_path / "whole" / "export.json").read_bytes())
    assert set(manifest) == described - {"target"}

    other = make_archive(tmp_path / "other")
    (summary,) = run(other, "import", "--json", str(tmp_path / "whole"))
    check_members("casfs import", summary)
    (bad,) = (tmp_path / "whole").rglob(os.path.basename(object_file(archive, group(1))))
    bad.unlink()
    again = make_archive(tmp_path / "again")
    problem, _ = run(again, "import", "--json", str(tmp_path / "whole"), code=3)
    assert dict_of(problem)["problem"] == "missing"
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    said = text.partition("A line for each problem")[2].partition("##")[0]
    assert all(f"`{name}`" in said for name in dict_of(problem))


def test_every_command_that_prints_json_has_a_section() -> None:
    for names, command in visible_commands():
        prints = any("--json" in parameter.opts for parameter in command.params)
        if names[-1] != "wt-archive":
            assert prints == (" ".join(names) in PAGE.headings), names


def test_verify(archive: Archive, tmp_path: Path) -> None:
    for item in (group(1), group(2)):
        flip_bit(object_file(archive, item), 1)
    os.unlink(object_file(archive, group(3)))
    (path,) = segments(journal_directory(archive, "demo", "silent"))
    flip_bit(path, 30)
    (said,) = run(archive, "verify", "--json", code=3)
    assert dict_of(said)["sound"] is False
    other = tmp_path / "other" / "objects" / "blake3"
    for name in (object_file(archive, group(1)), object_file(archive, group(3))):
        shard = other / os.path.basename(os.path.dirname(name))
        shard.mkdir(parents=True)
        (shard / os.path.basename(name)).write_bytes(b"video0.m4s 1 3")
    mend = ("--quarantine", "--repair-from", str(tmp_path / "other"))
    (mended,) = run(archive, "verify", "--json", *mend, code=3)
    (selected,) = run(archive, "verify", "--json", "--sample", "1%", code=3)
    check_members("casfs verify", said, mended, selected)


def test_expire_collect_and_restore(archive: Archive) -> None:
    record_hours(archive, [[hour_group(LONG_AGO + at, b"%d" % at, sequence=at)] for at in range(2)])
    limits = ("--older-than", "1s", "--json")
    check_members("casfs expire", *run(archive, "expire", *limits))
    check_members("casfs expire", *run(archive, "expire", *limits, "--yes"))
    dry = run(archive, "collect", "--json")
    check_members("casfs collect", *dry, *run(archive, "collect", "--json", "--yes"))
    dry = run(archive, "restore", "--all", "--json")
    check_members("casfs restore", *dry, *run(archive, "restore", "--all", "--json", "--yes"))


def test_status(archive: Archive) -> None:
    directory = archive.directory_of("demo")
    with lock_supervisor(archive.roots), archive.writer("demo", clock=Clock(NOON + HOUR)):
        write_report(archive.roots, directory, report("demo", groups=1))
        said = run(archive, "status", "--json")
        write_report(archive.roots, directory, report("demo"))
        write_supervisor_report(
            archive.roots,
            SupervisorReport(
                pid=1,
                host="h",
                since="s",
                updated="u",
                status="s",
                room="ample",
                min_free=5,
                sources=[
                    SourceReport(source="s", listed=1, refused=0, asked=asked, trouble="")
                    for asked in ("2026", None)
                ],
                broadcasts=[
                    SupervisedReport(
                        broadcast=name,
                        phase="waiting",
                        listed=True,
                        pid=None,
                        restarts=1,
                        waiting_for="x",
                    )
                    for name in ("demo", "waiting")
                ],
            ),
        )
        said += run(archive, "status", "--json")
    check_members("casfs status", *said, optional=["supervisor"], named=["recorders[].tracks"])


def test_config_show(archive: Archive) -> None:
    (said,) = run(archive, "config", "show", "--json")
    assert isinstance(said, dict)
    plain = {
        name: shown
        for name, shown in said["settings"].items()
        if not isinstance(shown["value"], list | dict)
    }
    check_members("casfs config show", {**said, "settings": plain}, named=["settings"])


def test_index(archive: Archive) -> None:
    before = run(archive, "index", "status", "--json")
    rebuilt = run(archive, "index", "rebuild", "--json")
    after = run(archive, "index", "status", "--json")
    check_members("casfs index status", *before, *after)
    check_members("casfs index rebuild", *rebuilt)


def test_the_status_of_a_mount() -> None:
    damaged = DamagedObject(
        digest_of(b""), "is gone", "2026", (GroupIdentity("demo", "video0.m4s", 1, "2"),)
    )
    status = MountStatus(
        version="0.1.0",
        archive="5b0c",
        mounted="2026",
        broadcasts=1,
        open_files=1,
        verified_opens=1,
        remembered_opens=1,
        prefetched=0,
        read_ahead_bytes=4194304,
        damaged_opens=1,
        damaged_reads=0,
        damaged=(damaged,),
        recordings_lacking=("demo: audio: 1 groups left out: is gone",),
    )
    check_members("status.json of a mount", msgspec.json.decode(render_status(status)))


def test_the_path_of_a_member_whose_name_is_data() -> None:
    value = {"tracks": {"a": {"gaps": 1}, "b": {"gaps": None}}, "list": [[1.5]], "yes": True}
    assert members_of(value, named=["tracks"]) == {
        "tracks.*.gaps": {"integer", "null"},
        "list[][]": {"number"},
        "yes": {"boolean"},
    }


def test_jq_reads_what_the_help_says(archive: Archive) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in run(archive, "ls", "--json"))
    out = subprocess.run(
        ["jq", "-r", "[.broadcast, .track, .bytes] | @tsv"],
        input=text,
        capture_output=True,
        check=True,
    ).stdout
    assert out.startswith(b"demo\tsilent\t0\n")
