"""Objects are opened only if they are what their name says."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import DamagedObjectError, ObjectNotFoundError
from casfs.mount import verified
from casfs.mount.contents import VerifiedContents
from casfs.mount.tree import ObjectRange
from casfs.mount.verified import FileIdentity, SoundFiles, Verification, VerifiedObjects
from tests.fakes.archive import DiskArchive

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.digest import Digest

PAYLOAD = b"payload" * 100_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Opening:
    """A store with one object, and what opening it says."""

    def __init__(self, directory: Path) -> None:
        self.archive = DiskArchive(directory)
        self.clock = Clock()
        self.objects = VerifiedObjects(self.archive.store, clock=self.clock)
        self.digest = self.archive.put(PAYLOAD)
        self.path = self.archive.store.path(self.digest)

    def hashes(self, digest: Digest | None = None, offset: int = 0, size: int = 7) -> bool:
        """Open; return whether the object was read for that. Raises what the open raises."""
        wanted = ObjectRange(self.digest if digest is None else digest, offset, size)
        opened = self.objects.open(wanted)
        os.close(opened.descriptor)
        return opened.hashed

    def flip_a_bit(self, position: int) -> None:
        os.chmod(self.path, 0o644)
        with open(self.path, "r+b") as file:
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ 1]))


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    return Opening(tmp_path)


def test_an_object_is_hashed_at_its_first_open_and_remembered(opening: Opening) -> None:
    assert [opening.hashes() for _ in range(3)] == [True, False, False]


def test_an_object_is_hashed_again_when_it_was_not_used_for_a_while(opening: Opening) -> None:
    opening.hashes()
    opening.clock.now += 200
    assert not opening.hashes()
    opening.clock.now += 200
    assert not opening.hashes()
    opening.clock.now += 301
    assert opening.hashes()


@pytest.mark.parametrize("position", [0, 350_000, len(PAYLOAD) - 1])
def test_one_flipped_bit_is_damage_also_in_an_object_known_to_be_sound(
    opening: Opening, position: int
) -> None:
    opening.hashes()
    opening.flip_a_bit(position)
    for _ in range(2):
        with pytest.raises(DamagedObjectError, match=f"object {opening.digest} hashes to"):
            opening.hashes()


def test_an_object_that_was_mended_opens_again(opening: Opening) -> None:
    opening.flip_a_bit(5)
    with pytest.raises(DamagedObjectError):
        opening.hashes()
    opening.flip_a_bit(5)
    assert opening.hashes()


def test_a_cut_object_is_damage(opening: Opening) -> None:
    os.truncate(opening.path, 1000)
    with pytest.raises(DamagedObjectError):
        opening.hashes()


def test_a_range_beyond_the_object_is_damage(opening: Opening) -> None:
    assert opening.hashes(offset=len(PAYLOAD) - 7, size=7)
    with pytest.raises(DamagedObjectError, match="8 at 699993 are recorded"):
        opening.hashes(offset=len(PAYLOAD) - 7, size=8)


def test_a_missing_object_is_not_there(opening: Opening) -> None:
    with pytest.raises(ObjectNotFoundError):
        opening.hashes(digest=digest_of(b"never stored"))


def test_an_object_opened_a_moment_ago_opens_without_a_look_at_its_path(opening: Opening) -> None:
    wanted = ObjectRange(opening.digest, 0, 7)
    assert opening.objects.open_again(wanted) is None
    opening.hashes()
    again = opening.objects.open_again(wanted)
    assert again is not None
    assert os.pread(again.descriptor, 7, 0) == PAYLOAD[:7]
    os.close(again.descriptor)
    opening.objects.close()
    assert opening.objects.open_again(wanted) is None


@pytest.mark.parametrize("change", ["damaged", "gone", "forgotten", "too short"])
def test_an_object_that_changed_since_is_not_simply_opened_again(
    opening: Opening, change: str
) -> None:
    opening.hashes()
    wanted = ObjectRange(opening.digest, 0, len(PAYLOAD))
    if change == "damaged":
        opening.flip_a_bit(0)
    elif change == "gone":
        os.unlink(opening.path)
    elif change == "forgotten":
        opening.clock.now += 301
    else:
        wanted = ObjectRange(opening.digest, 0, len(PAYLOAD) + 1)
    assert opening.objects.open_again(wanted) is None
    opening.objects.close()


def test_no_more_objects_stay_open_than_are_to(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "KEPT_FILES", 3)
    opening.objects = VerifiedObjects(opening.archive.store, clock=opening.clock)
    digests = [opening.archive.put(b"%d" % number) for number in range(10)]
    before = len(os.listdir("/proc/self/fd"))
    for digest in digests:
        opening.hashes(digest, size=1)
    assert len(os.listdir("/proc/self/fd")) == before + 3
    opening.clock.now += 61
    opening.hashes(digests[0], size=1)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    opening.objects.close()


def test_an_object_opens_with_the_last_descriptor(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used_up(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", used_up)
    assert opening.hashes()
    assert opening.objects.open_again(ObjectRange(opening.digest, 0, 7)) is None


def test_no_descriptor_is_left_behind_by_a_refused_open(opening: Opening) -> None:
    opening.flip_a_bit(0)
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        with pytest.raises(DamagedObjectError):
            opening.hashes()
    assert os.listdir("/proc/self/fd") == before


def test_the_bytes_that_were_hashed_are_at_hand_until_they_were_read(opening: Opening) -> None:
    opened = opening.objects.open(ObjectRange(opening.digest, 0, len(PAYLOAD)))
    opening.flip_a_bit(0)
    assert opened.contents is not None
    assert opened.contents.size == len(PAYLOAD)
    first = opened.contents.part(opening.digest, 0, 10)
    rest = opened.contents.part(opening.digest, 10, len(PAYLOAD))
    assert first is not None
    assert rest is not None
    assert bytes(first) + bytes(rest) == PAYLOAD
    assert opened.contents.size == 0
    assert opened.contents.part(opening.digest, 0, 10) is None
    os.close(opened.descriptor)


def test_no_more_bytes_are_at_hand_than_may_be() -> None:
    contents = VerifiedContents(10)
    one, two, three = (digest_of(b"%d" % number) for number in range(3))
    contents.hold(one, b"12345")
    contents.hold(two, b"12345")
    contents.hold(two, b"12345")
    assert contents.size == 10
    contents.hold(three, b"1")
    assert contents.size == 6
    assert contents.part(one, 0, 1) is None
    contents.hold(one, b"12345678901")
    assert contents.size == 0


def test_the_memory_is_bounded_and_drops_what_was_used_longest_ago() -> None:
    sound = SoundFiles(capacity=2, lifetime=10)
    one, two, three = (FileIdentity(0, inode, 0, 0) for inode in range(3))
    sound.remember(one, 0)
    sound.remember(two, 0)
    assert sound.recall(one, 1)
    sound.remember(three, 1)
    assert len(sound) == 2
    assert not sound.recall(two, 1)
    assert sound.recall(one, 1)
    assert sound.recall(three, 1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Blocks of 100,000 bytes, so that the payload has seven."""
    monkeypatch.setattr(verified, "BLOCK_BYTES", 100_000)
    return [digest_of(PAYLOAD[start : start + 100_000]) for start in range(0, 700_000, 100_000)]


def test_a_large_object_is_checked_block_by_block(
    opening: Opening, small_blocks: list[Digest]
) -> None:
    opening.flip_a_bit(250_000)
    wanted = ObjectRange(opening.digest, 0, len(PAYLOAD))
    assert opening.objects.wants_blocks(wanted)
    opened = opening.objects.open(wanted, small_blocks)
    assert not opened.hashed
    assert opened.blocks is not None
    assert list(opened.blocks.unchecked(99_999, 100_002)) == [0, 1, 2]
    opened.blocks.check(opened.descriptor, 1)
    with pytest.raises(DamagedObjectError, match="damaged between bytes 200000 and 300000"):
        opened.blocks.check(opened.descriptor, 2)
    assert list(opened.blocks.unchecked(0, len(PAYLOAD))) == [0, 2, 3, 4, 5, 6]
    os.close(opened.descriptor)


def test_sound_blocks_are_remembered_until_the_file_changes(
    opening: Opening, small_blocks: list[Digest]
) -> None:
    wanted = ObjectRange(opening.digest, 0, len(PAYLOAD))

    def unchecked(check: int | None = None) -> list[int]:
        opened = opening.objects.open(wanted, small_blocks)
        assert opened.blocks is not None
        if check is not None:
            opened.blocks.check(opened.descriptor, check)
        found = list(opened.blocks.unchecked(0, 300_000))
        os.close(opened.descriptor)
        return found

    assert unchecked(check=1) == [0, 2]
    assert unchecked() == [0, 2]
    opening.flip_a_bit(150_000)
    assert unchecked() == [0, 1, 2]


def test_an_object_with_more_or_fewer_blocks_than_recorded_is_damage(
    opening: Opening, small_blocks: list[Digest]
) -> None:
    with pytest.raises(DamagedObjectError, match="instead of 6 blocks"):
        opening.objects.open(ObjectRange(opening.digest, 0, 7), small_blocks[:6])


def test_nothing_is_read_at_an_open_that_is_not_to_verify(opening: Opening) -> None:
    objects = VerifiedObjects(opening.archive.store, verification=Verification.NEVER)
    opening.flip_a_bit(0)
    opened = objects.open(ObjectRange(opening.digest, 0, 7))
    assert (opened.hashed, opened.blocks) == (False, None)
    os.close(opened.descriptor)
    with pytest.raises(DamagedObjectError, match="are recorded"):
        objects.open(ObjectRange(opening.digest, 0, len(PAYLOAD) + 1))
