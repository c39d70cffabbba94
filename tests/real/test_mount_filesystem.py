"""A real FUSE mount, served by a process of its own, seen through the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs import __version__
from casfs.digest import digest_of
from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse, mounts_at, unmount
from casfs.mount.prefetch import FILES_AHEAD
from casfs.mount.status import GroupIdentity, MountStatus
from casfs.timestamps import HOUR, parse_time
from tests.fakes.archive import DiskArchive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.index.rows import GroupRow

ROOT = Path(__file__).parents[2]
RECEIVED = parse_time("2026-11-22T13:00:00.123Z")
HOUR_PATH = "2026-11-22/13"
SOON = 45.0


def _why_not() -> str | None:
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}")


class Mounted:
    """A mount and the process that serves it."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        self._log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def log(self) -> str:
        return "".join(self._log)

    def wait(self) -> int:
        """Wait for the process to end by itself; return its exit code."""
        code = self.process.wait(SOON)
        self._reader.join(SOON)
        return code

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def status(self) -> MountStatus:
        return msgspec.json.decode((self / ".casfs/status.json").read_bytes(), type=MountStatus)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self._log += self.process.stderr


@contextmanager
def serving(directory: Path, mountpoint: Path, *options: str) -> Iterator[Mounted]:
    """Mount; on the way out the process has ended and nothing is mounted, whatever happened."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.serve_mount", directory, mountpoint, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    mounted = Mounted(process, mountpoint)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), (process.wait(SOON), mounted.log)
        yield mounted
    finally:
        with suppress(subprocess.TimeoutExpired):
            mounted.stop()
        process.kill()
        process.wait()
        mounted._reader.join(SOON)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        if mounts_at(os.path.realpath(mountpoint)):
            unmount(os.path.realpath(mountpoint))


@pytest.fixture
def archive(tmp_path: Path) -> DiskArchive:
    """Twenty groups of video, two of them large, and a catalog that is still arriving."""
    (tmp_path / "mnt").mkdir()
    archive = DiskArchive(tmp_path)
    for sequence in range(20):
        size = 9 << 20 if sequence in {3, 7} else 100_000 + sequence
        video(archive, sequence, size)
    archive.add("demo/tv", "catalog.json", b"{}", sequence=0, received=RECEIVED, complete=False)
    return archive


@pytest.fixture
def mounted(archive: DiskArchive, tmp_path: Path) -> Iterator[Mounted]:
    assert archive.content.groups
    with serving(tmp_path, tmp_path / "mnt") as mounted:
        yield mounted


def video(archive: DiskArchive, sequence: int, size: int = 50_000) -> GroupRow:
    payload = (b"%d:" % sequence) * (size // 2)
    return archive.add(
        "demo/tv", "0.m4s", payload[:size], sequence=sequence, received=RECEIVED + sequence * 10**9
    )


def stored_bytes(archive: DiskArchive, group: GroupRow) -> bytes:
    stored = Path(archive.store.path(group.hash)).read_bytes()
    return stored[group.offset : group.offset + group.size]


def path_of(mounted: Mounted, group: GroupRow) -> Path:
    (found,) = (mounted / "broadcasts" / group.broadcast.name / group.track / HOUR_PATH).glob(
        f"e{group.epoch:04d}-{group.sequence:020d}-*"
    )
    return found


def video_groups(archive: DiskArchive) -> list[GroupRow]:
    return [group for group in archive.content.groups if group.track == "0.m4s"]


def flip_a_bit(path: Path, position: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def eventually(condition: Callable[[], bool], within: float = SOON) -> bool:
    """Say whether the condition came true in time; for what no event announces."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def errno_of(action: Callable[[], object]) -> int | None:
    try:
        action()
    except OSError as error:
        return error.errno
    return None


# What is shown


def test_every_group_and_every_object_reads_byte_for_byte(
    archive: DiskArchive, mounted: Mounted
) -> None:
    for group in archive.content.groups:
        content = path_of(mounted, group).read_bytes()
        assert content == stored_bytes(archive, group)
        assert digest_of(content) == group.hash
        raw = mounted / f"objects/{group.hash[:2]}/{group.hash}.bin"
        assert raw.read_bytes() == stored_bytes(archive, group)


def test_a_group_within_an_object_reads_as_its_part(archive: DiskArchive, mounted: Mounted) -> None:
    whole = video_groups(archive)[3]
    part = msgspec.structs.replace(whole, n=100, sequence=100, offset=12_345, size=2_000_001)
    archive.add_rows(part)
    content = path_of(mounted, part).read_bytes()
    assert content == stored_bytes(archive, whole)[12_345 : 12_345 + 2_000_001]


def test_reads_at_any_place_give_the_bytes_of_that_place(
    archive: DiskArchive, mounted: Mounted
) -> None:
    group = video_groups(archive)[7]
    payload = stored_bytes(archive, group)
    with path_of(mounted, group).open("rb", buffering=0) as file:
        for offset in (0, 1, 4095, 4097, 1 << 20, len(payload) - 3, len(payload), len(payload) + 9):
            assert os.pread(file.fileno(), 5000, offset) == payload[offset : offset + 5000]


def test_the_whole_tree_can_be_walked_and_stated(archive: DiskArchive, mounted: Mounted) -> None:
    listed = subprocess.run(
        ["ls", "-lRn", mounted.path], capture_output=True, text=True, timeout=SOON, check=True
    )
    assert not listed.stderr
    (line,) = (line for line in listed.stdout.splitlines() if "00000000000000000007" in line)
    mode, links, uid, gid, size = line.split()[:5]
    assert (mode, links, size) == ("-r--r--r--", "1", str(9 << 20))
    assert (int(uid), int(gid)) == (os.geteuid(), os.getegid())
    files = [p for p in (mounted / "broadcasts").rglob("*") if p.is_file() and not p.is_symlink()]
    assert len(files) == len(archive.content.groups)


def test_a_file_has_the_time_at_which_its_last_byte_came(
    archive: DiskArchive, mounted: Mounted
) -> None:
    group = video_groups(archive)[5]
    status = path_of(mounted, group).stat()
    assert status.st_mtime_ns == status.st_ctime_ns == group.received_end
    assert status.st_size == group.size
    assert status.st_blocks == -(-group.size // 512)
    raw = mounted / f"objects/{group.hash[:2]}/{group.hash}.bin"
    assert raw.stat().st_mtime_ns == os.stat(archive.store.path(group.hash)).st_mtime_ns


def test_directories_list_themselves_and_their_parent(mounted: Mounted) -> None:
    listed = subprocess.run(
        ["ls", "-fi", mounted / "broadcasts/demo"],
        capture_output=True, text=True, timeout=SOON, check=True,
    )  # fmt: skip
    inodes = {name: int(inode) for inode, name in map(str.split, listed.stdout.splitlines())}
    assert inodes["."] == (mounted / "broadcasts/demo").stat().st_ino
    assert inodes[".."] == (mounted / "broadcasts").stat().st_ino
    assert inodes["tv"] == (mounted / "broadcasts/demo/tv").stat().st_ino


def test_extended_attributes_say_what_the_record_says(
    archive: DiskArchive, mounted: Mounted
) -> None:
    group = video_groups(archive)[5]
    path = path_of(mounted, group)
    found = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    assert found == {
        "user.casfs.blake3": group.hash.encode(),
        "user.casfs.broadcast": b"demo/tv",
        "user.casfs.complete": b"true",
        "user.casfs.epoch": b"1",
        "user.casfs.received": b"2026-11-22T13:00:05.123000000Z",
        "user.casfs.sequence": b"5",
        "user.casfs.track": b"0.m4s",
    }
    raw = mounted / f"objects/{group.hash[:2]}/{group.hash}.bin"
    assert os.listxattr(raw) == ["user.casfs.blake3"]
    assert os.listxattr(mounted.path) == []
    for name in ("user.other", "user.casfs.none"):
        assert errno_of(partial(os.getxattr, path, name)) == errno.ENODATA


def test_labels_and_access_lists_are_asked_for_once_not_once_a_file(mounted: Mounted) -> None:
    """`ls -l` asks the next file too if it was told that there is none, but not if it cannot be."""
    for name in ("security.selinux", "system.posix_acl_access", "trusted.any"):
        assert errno_of(partial(os.getxattr, mounted / "broadcasts", name)) == errno.EOPNOTSUPP


def test_the_disk_is_that_of_the_objects(archive: DiskArchive, mounted: Mounted) -> None:
    shown, real = os.statvfs(mounted.path), os.statvfs(archive.root)
    assert (shown.f_blocks, shown.f_frsize, shown.f_files) == (
        real.f_blocks,
        real.f_frsize,
        real.f_files,
    )
    assert shown.f_flag & os.ST_RDONLY
    assert shown.f_namemax == 255


def test_owner_and_permissions_are_those_that_were_asked_for(
    archive: DiskArchive, tmp_path: Path
) -> None:
    with serving(tmp_path, tmp_path / "mnt", "uid=1234", "gid=2345", f"umask={0o027}") as mounted:
        shown = [
            (status.st_uid, status.st_gid, status.st_mode & 0o777)
            for path in (path_of(mounted, video_groups(archive)[0]), mounted / "broadcasts")
            for status in [path.stat()]
        ]
    assert shown == [(1234, 2345, 0o440), (1234, 2345, 0o550)]


def test_nothing_can_be_changed(archive: DiskArchive, mounted: Mounted) -> None:
    file = path_of(mounted, video_groups(archive)[0])
    attempts: list[Callable[[], object]] = [
        lambda: file.open("r+b"),
        lambda: os.truncate(file, 0),
        file.unlink,
        lambda: file.rename(file.with_name("other")),
        lambda: file.chmod(0o644),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.casfs.epoch", b"2"),
        (mounted / "new").touch,
        (mounted / "broadcasts/new").mkdir,
        lambda: (mounted / "link").symlink_to("x"),
        (mounted / "broadcasts/demo").rmdir,
    ]
    assert [errno_of(attempt) for attempt in attempts] == [errno.EROFS] * len(attempts)


def test_what_is_not_there_is_not_found(mounted: Mounted) -> None:
    for name in ("x", "broadcasts/x", "objects/zz", "objects/00/x.bin", "broadcasts/demo/ö"):
        assert errno_of((mounted / name).stat) == errno.ENOENT
    assert errno_of((mounted / ".casfs/version/x").stat) == errno.ENOTDIR


def test_own_files_tell_about_the_mount(mounted: Mounted) -> None:
    assert (mounted / ".casfs/version").read_text() == f"{__version__}\n"
    status = mounted.status()
    assert status.version == __version__
    assert status.archive == "0123456789abcdef"
    assert status.broadcasts == 1
    path = mounted / ".casfs/status.json"
    assert path.stat().st_size == len(path.read_bytes())


# Damage


@pytest.mark.parametrize("sequence", [4, 7], ids=["small", "above 8 MiB"])
def test_one_flipped_bit_is_an_error_and_the_neighbours_read_fine(
    archive: DiskArchive, tmp_path: Path, sequence: int
) -> None:
    groups = video_groups(archive)
    damaged = groups[sequence]
    flip_a_bit(Path(archive.store.path(damaged.hash)), damaged.size - 1)
    with serving(tmp_path, tmp_path / "mnt") as mounted:
        for _ in range(2):
            assert errno_of(path_of(mounted, damaged).read_bytes) == errno.EIO
        raw = mounted / f"objects/{damaged.hash[:2]}/{damaged.hash}.bin"
        assert errno_of(raw.read_bytes) == errno.EIO
        for group in (groups[sequence - 1], groups[sequence + 1]):
            assert path_of(mounted, group).read_bytes() == stored_bytes(archive, group)
        status = mounted.status()
        assert mounted.stop() == 0
    # Of the large one only the damaged block is refused, and the kernel may ask for it in parts.
    assert status.damaged_opens == (3 if sequence == 4 else 0)
    assert (status.damaged_reads >= 3) == (sequence == 7)
    (report,) = status.damaged
    assert report.hash == damaged.hash
    assert report.groups == (GroupIdentity("demo/tv", "0.m4s", 1, str(sequence)),)
    (warning,) = (line for line in mounted.log.splitlines() if line.startswith("WARNING"))
    assert damaged.hash in warning
    assert f"demo/tv 0.m4s epoch 1 group {sequence}" in warning


def test_only_the_damaged_block_of_a_large_object_is_an_error(
    archive: DiskArchive, tmp_path: Path
) -> None:
    damaged = video_groups(archive)[7]
    payload = stored_bytes(archive, damaged)
    flip_a_bit(Path(archive.store.path(damaged.hash)), (8 << 20) + 5)
    with serving(tmp_path, tmp_path / "mnt") as mounted:
        with path_of(mounted, damaged).open("rb") as file:
            assert os.pread(file.fileno(), 4096, 4 << 20) == payload[4 << 20 :][:4096]
            assert errno_of(lambda: os.pread(file.fileno(), 10, (9 << 20) - 10)) == errno.EIO
            assert os.pread(file.fileno(), 10, 0) == payload[:10]
        (report,) = mounted.status().damaged
        mounted.stop()
    assert "between bytes 8388608 and" in report.reason
    (warning,) = (line for line in mounted.log.splitlines() if line.startswith("WARNING"))
    assert f"{damaged.hash} is damaged" in warning
    assert "demo/tv 0.m4s epoch 1 group 7" in warning


def test_damage_is_served_where_nothing_is_to_be_verified(
    archive: DiskArchive, tmp_path: Path
) -> None:
    damaged = video_groups(archive)[4]
    flip_a_bit(Path(archive.store.path(damaged.hash)), 0)
    with serving(tmp_path, tmp_path / "mnt", "never") as mounted:
        assert path_of(mounted, damaged).read_bytes() == stored_bytes(archive, damaged)
        assert mounted.status().verified_opens == 0


def test_damage_that_comes_after_a_good_read_is_found_at_the_next_open(
    archive: DiskArchive, mounted: Mounted
) -> None:
    group = video_groups(archive)[4]
    path = path_of(mounted, group)
    payload = path.read_bytes()
    flip_a_bit(Path(archive.store.path(group.hash)), 0)
    assert errno_of(path.read_bytes) == errno.EIO
    flip_a_bit(Path(archive.store.path(group.hash)), 0)
    assert path.read_bytes() == payload


def test_a_group_whose_object_is_gone_is_an_error(archive: DiskArchive, mounted: Mounted) -> None:
    group = video_groups(archive)[4]
    path = path_of(mounted, group)
    os.unlink(archive.store.path(group.hash))
    assert errno_of(path.read_bytes) == errno.EIO
    raw = mounted / f"objects/{group.hash[:2]}/{group.hash}.bin"
    assert errno_of(raw.read_bytes) == errno.ENOENT


# Ahead of a reader


def test_a_sequential_reader_finds_its_next_object_verified(
    archive: DiskArchive, mounted: Mounted
) -> None:
    groups = video_groups(archive)
    for group in groups[8:10]:
        assert path_of(mounted, group).read_bytes() == stored_bytes(archive, group)
    assert eventually(lambda: mounted.status().prefetched == FILES_AHEAD)
    for group in groups[10:12]:
        assert path_of(mounted, group).read_bytes() == stored_bytes(archive, group)
    assert eventually(lambda: mounted.status().remembered_opens == 2)
    assert mounted.status().verified_opens == 2


def test_damage_ahead_of_a_reader_is_told_when_he_comes_to_it(
    archive: DiskArchive, mounted: Mounted
) -> None:
    groups = video_groups(archive)
    flip_a_bit(Path(archive.store.path(groups[10].hash)), 0)
    for group in groups[8:10]:
        path_of(mounted, group).read_bytes()
    assert mounted.status().damaged == ()
    assert errno_of(path_of(mounted, groups[10]).read_bytes) == errno.EIO
    assert eventually(lambda: bool(mounted.status().damaged))
    assert [damaged.hash for damaged in mounted.status().damaged] == [groups[10].hash]


def test_the_status_tells_how_far_the_kernel_reads_ahead(mounted: Mounted) -> None:
    (mount,) = mounts_at(str(mounted.path.resolve()))
    setting = Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb")
    if not setting.exists():
        pytest.skip("the kernel does not show its read-ahead here")
    assert eventually(lambda: mounted.status().read_ahead_bytes is not None)
    assert mounted.status().read_ahead_bytes == int(setting.read_text()) * 1024


# Live


def test_a_group_appears_within_a_second_and_latest_moves(
    archive: DiskArchive, mounted: Mounted
) -> None:
    track = mounted / "broadcasts/demo/tv/0.m4s"
    hour = track / HOUR_PATH
    name = "e0001-00000000000000000030-130030.123Z.m4s"
    before = os.listdir(hour)
    target = (track / "latest.m4s").readlink()
    assert not (hour / name).exists()
    group = video(archive, 30)
    assert eventually((hour / name).exists, within=1.0)
    assert set(os.listdir(hour)) == {*before, name}
    latest = (track / "latest.m4s").readlink()
    assert (str(target), str(latest)) == (
        f"{HOUR_PATH}/e0001-00000000000000000019-130019.123Z.m4s",
        f"{HOUR_PATH}/{name}",
    )
    assert (track / "latest.m4s").read_bytes() == stored_bytes(archive, group)


def test_a_new_broadcast_date_and_hour_appear_within_a_second(
    archive: DiskArchive, mounted: Mounted
) -> None:
    expected = [
        mounted / "broadcasts/demo/tv/0.m4s/2026-11-22/14",
        mounted / "broadcasts/demo/tv/0.m4s/2026-11-23/13",
        mounted / "broadcasts/demo/tv/radio/1.m4s/latest.m4s",
    ]
    assert not any(path.exists() for path in expected)
    archive.add("demo/tv", "0.m4s", b"14", sequence=50, received=RECEIVED + HOUR)
    archive.add("demo/tv", "0.m4s", b"tomorrow", sequence=51, received=RECEIVED + 24 * HOUR)
    archive.add("demo/tv/radio", "1.m4s", b"radio", sequence=0, received=RECEIVED)
    assert eventually(lambda: all(path.exists() for path in expected), within=1.0)
    assert expected[2].read_bytes() == b"radio"


def test_a_partial_group_that_grows_never_changes_for_whom_has_it_open(
    archive: DiskArchive, mounted: Mounted
) -> None:
    hour = mounted / "broadcasts/demo/tv/catalog.json" / HOUR_PATH
    (arriving,) = hour.iterdir()
    with arriving.open("rb") as file:
        before = os.fstat(file.fileno())
        archive.add(
            "demo/tv", "catalog.json", b"{}{}", sequence=0, received=RECEIVED, complete=False
        )
        assert eventually(lambda: arriving.read_bytes() == b"{}{}", within=1.5)
        assert arriving.stat().st_ino != before.st_ino
        assert file.read() == b"{}"
        assert os.fstat(file.fileno()).st_size == 2
    archive.add("demo/tv", "catalog.json", b"{}{}{}", sequence=0, received=RECEIVED)
    assert eventually(lambda: not arriving.exists(), within=1.5)
    assert [path.read_bytes() for path in hour.iterdir()] == [b"{}{}{}"]


# Listing


class _Stream:
    """A directory stream of the C library: what telldir and seekdir work on."""

    class _Entry(ctypes.Structure):
        _fields_ = (
            ("d_ino", ctypes.c_uint64),
            ("d_off", ctypes.c_int64),
            ("d_reclen", ctypes.c_uint16),
            ("d_type", ctypes.c_uint8),
            ("d_name", ctypes.c_char * 256),
        )

    def __init__(self, path: Path) -> None:
        self._c = ctypes.CDLL(None, use_errno=True)
        self._c.opendir.restype = ctypes.c_void_p
        self._c.readdir64.restype = ctypes.POINTER(self._Entry)
        self._c.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(self._c.opendir(os.fsencode(path)))
        assert self._stream.value

    def read(self) -> str | None:
        entry = self._c.readdir64(self._stream)
        return os.fsdecode(entry.contents.d_name) if entry else None

    def rest(self) -> list[str]:
        return list(iter(self.read, None))

    def tell(self) -> int:
        return int(self._c.telldir(self._stream))

    def seek(self, position: int) -> None:
        self._c.seekdir(self._stream, ctypes.c_long(position))

    def close(self) -> None:
        self._c.closedir(self._stream)


def test_a_directory_stream_seeks_to_every_place_it_told(
    archive: DiskArchive, mounted: Mounted
) -> None:
    rows = [
        msgspec.structs.replace(video_groups(archive)[0], n=1000 + i, sequence=1000 + i)
        for i in range(500)
    ]
    archive.add_rows(*rows)
    stream = _Stream(mounted / "broadcasts/demo/tv/0.m4s" / HOUR_PATH)
    positions, names = [stream.tell()], []
    while (name := stream.read()) is not None:
        names.append(name)
        positions.append(stream.tell())
    assert len(names) == len(set(names)) == 2 + 20 + 500
    for place in (0, 1, 2, 3, 21, 250, 521, 522, 100):
        stream.seek(positions[place])
        assert stream.rest() == names[place:]
    stream.close()


def test_entries_that_arrive_while_a_directory_is_read_come_once_and_last(
    archive: DiskArchive, mounted: Mounted
) -> None:
    first = video_groups(archive)[0]
    archive.add_rows(
        *(msgspec.structs.replace(first, n=1000 + i, sequence=1000 + i) for i in range(300))
    )
    stream = _Stream(mounted / "broadcasts/demo/tv/0.m4s" / HOUR_PATH)
    names = [stream.read() for _ in range(10)]
    archive.add_rows(
        *(msgspec.structs.replace(first, n=2000 + i, sequence=2000 + i) for i in range(300))
    )
    names += stream.rest()
    stream.close()
    assert len(names) == len(set(names)) == 2 + 20 + 300 + 300
    assert [name[6:26] for name in names[-300:] if name] == [f"{2000 + i:020d}" for i in range(300)]


# Coming and going


def test_inode_numbers_survive_a_remount(archive: DiskArchive, tmp_path: Path) -> None:
    def inodes() -> dict[str, int]:
        with serving(tmp_path, tmp_path / "mnt") as mounted:
            return {str(path): path.lstat().st_ino for path in mounted.path.rglob("*")}

    once = inodes()
    assert once == inodes()
    assert len(set(once.values())) == len(once) > 256 + len(archive.content.groups)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_mount(mounted: Mounted, number: signal.Signals) -> None:
    mounted.process.send_signal(number)
    assert mounted.wait() == 0
    assert not mounts_at(str(mounted.path.resolve()))
    assert os.listdir(mounted.path) == []


def test_an_unmount_from_outside_ends_the_process(mounted: Mounted) -> None:
    unmount(str(mounted.path.resolve()))
    assert mounted.wait() == 0


def test_a_mount_in_use_is_taken_away_all_the_same(archive: DiskArchive, mounted: Mounted) -> None:
    path = path_of(mounted, video_groups(archive)[0])
    descriptor = os.open(path, os.O_RDONLY)
    assert os.read(descriptor, 10)
    assert mounted.stop() == 0
    assert not mounts_at(str(mounted.path.resolve()))
    assert os.listdir(mounted.path) == []
    with suppress(OSError):  # the kernel has nobody left to tell of the close
        os.close(descriptor)


def test_a_mount_that_was_killed_is_replaced(archive: DiskArchive, tmp_path: Path) -> None:
    group = video_groups(archive)[0]
    with serving(tmp_path, tmp_path / "mnt") as mounted:
        mounted.process.kill()
        mounted.process.wait()
        assert errno_of(lambda: os.listdir(mounted.path)) == errno.ENOTCONN
        with serving(tmp_path, tmp_path / "mnt") as again:
            assert path_of(again, group).read_bytes() == stored_bytes(archive, group)
            assert again.stop() == 0
        assert "the process that served it is gone" in again.log
        assert not mounts_at(str(mounted.path.resolve()))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "does not exist"),
        ("content.json", "is not a directory"),
        ("cas", "is not empty"),
        ("mnt", "in use: a fuse.casfs filesystem is mounted there"),
    ],
)
def test_a_mount_point_that_cannot_be_used_is_refused_in_one_line(
    mounted: Mounted, tmp_path: Path, place: str, message: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.fakes.serve_mount", tmp_path, tmp_path / place],
        cwd=ROOT, capture_output=True, text=True, timeout=SOON, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert mounted.status().broadcasts == 1


def test_files_opened_and_closed_leave_no_descriptor_behind(
    archive: DiskArchive, mounted: Mounted
) -> None:
    descriptors = Path(f"/proc/{mounted.process.pid}/fd")
    paths = [path_of(mounted, group) for group in video_groups(archive)[:3]]
    for path in paths:
        path.read_bytes()
    before = len(list(descriptors.iterdir()))
    for _ in range(300):
        for path in paths:
            with path.open("rb") as file:
                file.read(1)
    # The kernel tells of a close after it has happened. Objects stay open for the next reader, also
    # those that are read ahead, but each of them once.
    most = before + len(video_groups(archive))
    assert most < before + 300
    assert eventually(lambda: len(list(descriptors.iterdir())) <= most)
    assert eventually(lambda: mounted.status().open_files == 0)
    assert mounted.status().verified_opens <= 3


def test_many_readers_at_once_all_get_their_bytes(archive: DiskArchive, mounted: Mounted) -> None:
    wrong: list[str] = []

    def read_everything(seed: int) -> None:
        groups = video_groups(archive)
        for group in groups[seed:] + groups[:seed]:
            path = path_of(mounted, group)
            if digest_of(path.read_bytes()) != group.hash:
                wrong.append(str(path))

    readers = [threading.Thread(target=read_everything, args=(seed,)) for seed in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(SOON)
    assert not any(reader.is_alive() for reader in readers)
    assert not wrong


def test_a_disk_that_hangs_holds_up_nobody_else_and_not_the_end(
    archive: DiskArchive, mounted: Mounted
) -> None:
    """To open a pipe that nobody writes to takes for ever, as a dead network disk may."""
    hung, other = video_groups(archive)[4:6]
    path = path_of(mounted, hung)
    os.unlink(archive.store.path(hung.hash))
    os.mkfifo(archive.store.path(hung.hash))
    stuck = threading.Thread(target=errno_of, args=(path.read_bytes,), daemon=True)
    stuck.start()
    for _ in range(50):
        assert path_of(mounted, other).read_bytes() == stored_bytes(archive, other)
    assert stuck.is_alive()
    assert mounted.stop() == 0
    stuck.join(SOON)
    assert not stuck.is_alive()


@pytest.mark.skipif(shutil.which("getfattr") is None, reason="getfattr is not installed")
def test_getfattr_shows_the_attributes(archive: DiskArchive, mounted: Mounted) -> None:
    path = path_of(mounted, video_groups(archive)[0])
    shown = subprocess.run(
        ["getfattr", "-d", path.name],
        cwd=path.parent, capture_output=True, text=True, timeout=SOON, check=True,
    )  # fmt: skip
    assert 'user.casfs.sequence="0"' in shown.stdout.splitlines()
