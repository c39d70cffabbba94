"""What a mount tells about itself, and the tree that shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from casfs import __version__
from casfs.digest import digest_of
from casfs.mount.status import LISTED_DAMAGE, Counters, DamagedObject, GroupIdentity
from casfs.mount.tree import Directory, GeneratedFile, Validity
from casfs.mount.views import ArchiveView, build_tree
from casfs.timestamps import parse_time
from tests.fakes.archive import DiskArchive, MemoryLookup

if TYPE_CHECKING:
    from pathlib import Path

GROUP = GroupIdentity("demo/tv", "0.m4s", 1, str(2**60))


def damage(number: int, reason: str = "hashes to something else") -> DamagedObject:
    digest = digest_of(b"%d" % number)
    return DamagedObject(digest, reason, "2026-11-22T13:00:00.000000000Z", (GROUP,))


def own_files(directory: Path, counters: Counters) -> dict[str, GeneratedFile]:
    view = ArchiveView(MemoryLookup(), DiskArchive(directory).store, archive="abc")
    own = build_tree(view, counters, parse_time("2026-11-22T13:00:00Z")).root.child(".casfs")
    assert isinstance(own, Directory)
    return {e.name: e.node for e in own.entries() if isinstance(e.node, GeneratedFile)}


def test_damage_is_counted_each_time_and_listed_once() -> None:
    counters = Counters()
    assert [counters.refused(damage(1)) for _ in range(3)] == [True, False, False]
    assert counters.refused(damage(1, "cannot be read"))
    assert counters.damaged_opens == 4
    assert len(counters.damaged) == 2


def test_the_list_of_damage_is_bounded_and_keeps_the_latest() -> None:
    counters = Counters()
    for number in range(LISTED_DAMAGE + 5):
        counters.refused(damage(number))
    assert len(counters.damaged) == LISTED_DAMAGE
    assert counters.damaged[-1] == damage(LISTED_DAMAGE + 4)


def test_the_status_has_the_members_that_were_promised(tmp_path: Path) -> None:
    counters = Counters()
    counters.opened(hashed=True)
    counters.opened(hashed=False)
    counters.refused(damage(1))
    assert json.loads(own_files(tmp_path, counters)["status.json"].render()) == {
        "version": __version__,
        "archive": "abc",
        "mounted": "2026-11-22T13:00:00.000000000Z",
        "broadcasts": 0,
        "open_files": 0,
        "verified_opens": 1,
        "remembered_opens": 1,
        "prefetched": 0,
        "read_ahead_bytes": None,
        "damaged_opens": 1,
        "damaged_reads": 0,
        "damaged": [
            {
                "hash": digest_of(b"1"),
                "reason": "hashes to something else",
                "found": "2026-11-22T13:00:00.000000000Z",
                "groups": [
                    {
                        "broadcast": "demo/tv",
                        "track": "0.m4s",
                        "epoch": 1,
                        "sequence": "1152921504606846976",
                    }
                ],
            }
        ],
    }


def test_own_files_have_the_size_of_what_they_show_and_are_asked_for_each_time(
    tmp_path: Path,
) -> None:
    files = own_files(tmp_path, Counters())
    assert files["version"].render() == f"{__version__}\n".encode()
    for file in files.values():
        assert file.attributes().size == len(file.render())
        assert file.attributes().validity is Validity.NONE
