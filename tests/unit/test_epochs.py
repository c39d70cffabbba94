"""Which epoch a group belongs to: the rules one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.digest import digest_of
from casfs.timestamps import NANOSECONDS
from ingest.epoch_memory import HELD_BACK, OVER, REMEMBERED, Seen
from ingest.epochs import REORDER, EpochTracker, Verdict
from ingest.media_clock import Clock, MediaTime

if TYPE_CHECKING:
    from casfs.digest import Digest

VIDEO, AUDIO = "video0.m4s", "audio0.m4s"


class FakeHistory:
    """What an archive would hold: everything that `Observer` was told to record."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, int, int], Seen] = {}
        self.payloads: dict[Digest, bytes] = {}

    def find(self, track: str, epoch: int, sequence: int) -> Seen | None:
        return self.groups.get((track, epoch, sequence))

    def prefix(self, track: str, epoch: int, sequence: int, size: int) -> Digest | None:
        seen = self.groups.get((track, epoch, sequence))
        payload = self.payloads.get(seen.digest) if seen is not None else None
        return None if payload is None else digest_of(payload[:size])


class Observer:
    """A tracker, and the archive that it decides for."""

    def __init__(self) -> None:
        self.history = FakeHistory()
        self.tracker = EpochTracker(self.history)

    def __call__(
        self,
        sequence: int,
        payload: bytes,
        *,
        track: str = VIDEO,
        complete: bool = True,
        generation: int = 1,
        at: int = 0,
        time: int | None = None,
    ) -> tuple[Verdict, int]:
        media = None if time is None else MediaTime(Clock.PAYLOAD, time * NANOSECONDS)
        seen = Seen(digest_of(payload), len(payload), complete, at * NANOSECONDS, media)
        decision = self.tracker.observe(track, sequence, (payload,), seen, generation=generation)
        if decision.verdict is not Verdict.KNOWN:
            self.history.groups[track, decision.epoch, sequence] = seen
            self.history.payloads[seen.digest] = payload
        return decision.verdict, decision.epoch

    def restart(self, *, remembering: int) -> None:
        """Begin again as a new recorder that reads the newest records back."""
        self.tracker = EpochTracker(self.history)
        for (track, epoch, sequence), seen in [*self.history.groups.items()][-remembering:]:
            self.tracker.restore(track, epoch, sequence, seen)
        for track, epoch, sequence in self.history.groups:
            self.tracker.restore_highest(track, epoch, sequence)


def test_the_same_bytes_again_are_known() -> None:
    observe = Observer()
    assert observe(1, b"one") == (Verdict.NEW, 1)
    assert observe(1, b"one", generation=2) == (Verdict.KNOWN, 1)


def test_other_bytes_under_a_known_sequence_open_an_epoch_for_all_tracks() -> None:
    observe = Observer()
    observe(1, b"one")
    observe(1, b"sound", track=AUDIO)
    assert observe(1, b"other", generation=2) == (Verdict.NEW, 2)
    assert observe(1, b"sound", track=AUDIO, generation=2) == (Verdict.NEW, 2)
    assert observe(1, b"other", generation=2) == (Verdict.KNOWN, 2)


def test_a_longer_copy_of_a_cut_group_is_better() -> None:
    observe = Observer()
    assert observe(1, b"be", complete=False) == (Verdict.NEW, 1)
    assert observe(1, b"begun", complete=False) == (Verdict.BETTER, 1)
    assert observe(1, b"beg", complete=False) == (Verdict.KNOWN, 1)
    assert observe(1, b"begun", complete=True) == (Verdict.BETTER, 1)
    assert observe(1, b"begun", complete=False) == (Verdict.KNOWN, 1)
    assert observe(1, b"begun, not done", complete=True) == (Verdict.NEW, 2)


def test_a_cut_group_of_which_nothing_came_is_the_beginning_of_anything() -> None:
    observe = Observer()
    observe(1, b"", complete=False)
    assert observe(1, b"whole") == (Verdict.BETTER, 1)
    assert observe(1, b"", complete=False) == (Verdict.KNOWN, 1)


def test_a_cut_copy_with_other_bytes_belongs_to_another_publisher() -> None:
    observe = Observer()
    observe(1, b"whole")
    assert observe(1, b"oth", complete=False, generation=2) == (Verdict.NEW, 2)
    assert observe(1, b"once more", generation=3) == (Verdict.NEW, 3)


def test_a_backlog_that_comes_newest_first_in_two_pieces_is_one_epoch() -> None:
    observe = Observer()
    for sequence in (11, 10, 9):
        assert observe(sequence, b"%d" % sequence) == (Verdict.NEW, 1)
    for sequence in (12, 11, 10, 9, 8, 7, 0):
        verdict = Verdict.KNOWN if 9 <= sequence <= 11 else Verdict.NEW
        assert observe(sequence, b"%d" % sequence, generation=2, at=1) == (verdict, 1)


def test_lower_sequences_after_more_time_than_a_relay_holds_back_are_a_new_publisher() -> None:
    observe = Observer()
    seconds = HELD_BACK // NANOSECONDS + 1
    for second in range(0, seconds + 1, 10):
        observe(1000 + second, b"%d" % second, at=second)
    observe(1000 + seconds, b"last", at=seconds)
    # In the same generation a publisher may still fill in what it skipped.
    assert observe(999, b"late", at=seconds) == (Verdict.NEW, 1)
    assert observe(3, b"again", generation=2, at=seconds) == (Verdict.NEW, 2)


def test_what_the_old_publisher_still_had_stays_in_its_epoch() -> None:
    observe = Observer()
    observe(1, b"one")
    observe(5, b"five", track=AUDIO)
    assert observe(1, b"other", generation=2) == (Verdict.NEW, 2)
    assert observe(6, b"six", track=AUDIO, generation=1) == (Verdict.NEW, 1)
    assert observe(6, b"another six", track=AUDIO, generation=2) == (Verdict.NEW, 2)
    assert observe(5, b"five", track=AUDIO, generation=1) == (Verdict.KNOWN, 1)


def test_a_sequence_that_was_forgotten_is_looked_up() -> None:
    observe = Observer()
    for sequence in range(REMEMBERED + 10):
        observe(sequence, b"%d" % sequence)
    assert observe(0, b"0", generation=2) == (Verdict.KNOWN, 1)
    assert observe(1, b"other", generation=2) == (Verdict.NEW, 2)


def test_a_recorder_that_reads_little_back_takes_nothing_known_for_new() -> None:
    observe = Observer()
    for sequence in range(20):
        observe(sequence, b"%d" % sequence)
    observe.restart(remembering=2)
    for sequence in reversed(range(20)):
        assert observe(sequence, b"%d" % sequence, generation=1) == (Verdict.KNOWN, 1)
    observe.restart(remembering=0)
    assert observe(7, b"other") == (Verdict.NEW, 2)


def test_an_epoch_outlives_a_restart_that_reads_no_group_back() -> None:
    observe = Observer()
    observe(1, b"one")
    observe(1, b"other", generation=2)
    observe.restart(remembering=0)
    assert observe.tracker.epoch == 2
    assert observe(1, b"one") == (Verdict.NEW, 3)


def test_what_is_missing_between_two_sequences() -> None:
    observe = Observer()
    for sequence in (3, 4, 8):
        observe(sequence, b"%d" % sequence)
    assert observe.tracker.missing(VIDEO, 1, 10) == [(1, 2), (5, 7), (9, 10)]
    assert observe.tracker.missing(VIDEO, 3, 4) == []
    assert observe.tracker.missing(AUDIO, 3, 4) == [(3, 4)]
    assert observe.tracker.highest(VIDEO) == 8
    assert observe.tracker.highest(AUDIO) is None


def test_of_what_lies_before_all_that_is_remembered_nothing_is_said_to_be_missing() -> None:
    observe = Observer()
    for sequence in range(10):
        observe(sequence, b"%d" % sequence)
    observe.restart(remembering=2)
    observe(12, b"12")
    assert observe.tracker.missing(VIDEO, 0, 12) == [(10, 11)]


def test_media_time_that_goes_back_while_sequences_go_on_is_a_new_publisher() -> None:
    observe = Observer()
    for second in range(3):
        assert observe(second, b"%d" % second, time=1000 + second, at=second) == (Verdict.NEW, 1)
    assert observe(3, b"3", time=0, at=3) == (Verdict.NEW, 2)
    assert observe(4, b"4", time=1, at=4) == (Verdict.NEW, 2)
    assert observe.tracker.reason == "media time went back"


def test_a_little_disorder_of_media_time_is_no_new_publisher() -> None:
    observe = Observer()
    observe(0, b"0", time=1000)
    assert observe(1, b"1", time=1000 - REORDER // NANOSECONDS) == (Verdict.NEW, 1)


def test_one_restart_is_one_epoch_however_many_tracks_see_it() -> None:
    observe = Observer()
    for second in range(5):
        observe(second, b"v%d" % second, time=1000 + second, at=second)
        observe(10 + second, b"a%d" % second, track=AUDIO, time=1000 + second, at=second)
    assert observe(5, b"v5", time=0, at=6) == (Verdict.NEW, 2)
    # The old publisher's last audio was still under way.
    assert observe(15, b"a15", track=AUDIO, time=1005, at=6) == (Verdict.NEW, 1)
    assert observe(17, b"a17", track=AUDIO, time=1, at=7) == (Verdict.NEW, 2)
    assert observe(16, b"a16", track=AUDIO, time=1006, at=7) == (Verdict.NEW, 1)
    assert observe(18, b"a18", track=AUDIO, time=2, at=8) == (Verdict.NEW, 2)
    assert observe(6, b"v6", time=1, at=8) == (Verdict.NEW, 2)


def test_what_a_relay_delivers_again_across_such_a_restart_stays_where_it_was() -> None:
    observe = Observer()
    for sequence in range(5):
        observe(sequence, b"%d" % sequence, time=1000 + sequence)
    for sequence in range(5, 8):
        observe(sequence, b"%d" % sequence, time=sequence)
    for remembering in (None, 8):
        if remembering is not None:
            observe.restart(remembering=remembering)
        for sequence in reversed(range(8)):
            epoch = 1 if sequence < 5 else 2
            assert observe(sequence, b"%d" % sequence, generation=2) == (Verdict.KNOWN, epoch)
    assert observe(8, b"8", time=8, generation=2) == (Verdict.NEW, 2)


def test_a_backlog_that_comes_newest_first_across_such_a_restart_is_told_apart() -> None:
    observe = Observer()
    observe(0, b"0", time=1000)
    for sequence, time, epoch in ((9, 3, 2), (8, 1, 2), (7, 1007, 1), (6, 1006, 1), (10, 5, 2)):
        assert observe(sequence, b"%d" % sequence, time=time) == (Verdict.NEW, epoch)


def test_times_of_different_clocks_say_nothing_about_each_other() -> None:
    observe = Observer()
    observe(0, b"0", time=1000)
    media = MediaTime(Clock.TRANSPORT, 5)
    seen = Seen(digest_of(b"1"), 1, True, 0, media)
    assert observe.tracker.observe(VIDEO, 1, (b"1",), seen, generation=1).epoch == 1


def test_a_track_whose_time_goes_back_again_and_again_tells_no_time() -> None:
    observe = Observer()
    for number in range(100):
        observe(number, b"%d" % number, time=1000 * (number % 2), at=number)
    assert observe.tracker.epoch == 4


def test_a_looped_source_is_not_believed_whichever_track_sees_it_first() -> None:
    observe = Observer()
    tracks = [f"video{number}.m4s" for number in range(5)]
    for second in range(0, 7200, 10):
        first = second // 150 % len(tracks)
        for track in tracks[first:] + tracks[:first]:
            payload = f"{track} {second}".encode()
            observe(second, payload, track=track, time=second % 150, at=second)
    assert observe.tracker.epoch == 4


def test_the_same_sequence_with_other_bytes_behind_such_a_restart_is_another_one() -> None:
    observe = Observer()
    for sequence in range(5):
        observe(sequence, b"%d" % sequence, time=1000 + sequence)
    observe(5, b"5", time=0)
    assert observe(3, b"other", time=3) == (Verdict.NEW, 3)


def test_the_times_of_many_groups_in_any_order_are_remembered_in_part() -> None:
    observe = Observer()
    for number in range(3000, 0, -1):
        observe(number, b"%d" % number, time=100_000 + number)
    assert observe(3001, b"3001", time=0) == (Verdict.NEW, 2)


def test_a_track_that_is_first_heard_of_behind_such_a_restart_belongs_where_its_time_does() -> None:
    observe = Observer()
    observe(0, b"v0", time=1000)
    assert observe(1, b"v1", time=0, at=1) == (Verdict.NEW, 2)
    assert observe(0, b"a0", track=AUDIO, time=1001, at=2) == (Verdict.NEW, 1)
    assert observe(1, b"a1", track=AUDIO, time=1, at=3) == (Verdict.NEW, 2)


def test_a_late_group_of_a_looped_source_stays_in_its_epoch() -> None:
    observe = Observer()
    sequence = 0
    for loop in range(6):
        for second in range(100):
            observe(sequence, b"%d" % sequence, time=second, at=loop * 100 + second)
            sequence += 1
    epoch = observe.tracker.epoch
    observe(sequence, b"the last but one", time=98, at=600)
    assert observe(sequence + 2, b"begun again", time=0, at=601) == (Verdict.NEW, epoch)
    assert observe(sequence + 1, b"late", time=99, at=602) == (Verdict.NEW, epoch)
    assert epoch == 4


def test_an_epoch_that_has_been_over_for_long_is_forgotten() -> None:
    observe = Observer()
    observe(5, b"old", at=1)
    observe(5, b"other", at=2, generation=2)
    assert observe(4, b"late", at=3) == (Verdict.NEW, 1)
    long_since = OVER // NANOSECONDS + 3
    assert observe(6, b"later", at=long_since) == (Verdict.NEW, 2)


def test_nobody_asks_the_archive_for_new_groups_because_of_epochs_of_long_ago() -> None:
    observe = Observer()
    observe(5, b"old", at=1, time=100)
    observe(5, b"other", at=2, time=0)
    observe.restart(remembering=2)
    observe.history.groups.clear()
    observe.history.find = None  # type: ignore[method-assign, assignment]
    observe(6, b"new", at=OVER // NANOSECONDS + 3, time=1)
