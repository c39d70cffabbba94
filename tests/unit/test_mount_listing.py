"""One open directory: portions, positions, and names that come again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.mount.listing import Listing
from casfs.mount.tree import Attributes, Directory, Entry, Kind, Node, Validity

if TYPE_CHECKING:
    from collections.abc import Iterator


class Named(Node):
    def __init__(self, inode: int, validity: Validity) -> None:
        self._inode = inode
        self._validity = validity

    @property
    def inode(self) -> int:
        return self._inode

    def attributes(self) -> Attributes:
        return Attributes(self._inode, Kind.FILE, 0, 0, self._validity)


class Growing(Directory):
    """A directory that counts how many entries it had to produce."""

    def __init__(self, count: int) -> None:
        super().__init__("/growing")
        self.shown = {n: (f"name-{n}", Validity.LASTING) for n in range(1, count + 1)}
        self.produced = 0

    def modified(self) -> int:
        return 0

    def child(self, name: str) -> Node | None:
        raise NotImplementedError

    def entries(self, after: int = 0) -> Iterator[Entry]:
        for cookie, (name, validity) in sorted(self.shown.items()):
            if cookie > after:
                self.produced += 1
                yield Entry(name, cookie, Named(cookie, validity))


def read_all(listing: Listing, take: int = 7, position: int = 0) -> list[str]:
    """Take a few entries at a time, as the kernel does with its small buffer."""
    names: list[str] = []
    while taken := (listing.buffered(position) or listing.fetch(position))[:take]:
        names += [listed.name for listed in taken]
        position = taken[-1].cookie
    return names


def test_every_entry_is_given_once_and_fetched_once() -> None:
    directory = Growing(10_000)
    assert read_all(Listing(directory)) == [f"name-{n}" for n in range(1, 10_001)]
    assert directory.produced == 10_000


def test_a_reader_who_stops_early_costs_one_portion() -> None:
    directory = Growing(10_000)
    listing = Listing(directory)
    assert len(listing.fetch(0)) == directory.produced < 300


def test_entries_that_arrive_meanwhile_come_at_the_end() -> None:
    directory = Growing(100)
    listing = Listing(directory)
    first = listing.fetch(0)
    directory.shown[101] = ("late", Validity.LASTING)
    assert read_all(listing, position=first[-1].cookie)[-1] == "late"


def test_a_short_directory_is_read_in_one_go() -> None:
    directory = Growing(100)
    listing = Listing(directory)
    assert [listing.ends_at(after) for after in (0, 100)] == [False, False]
    listing.fetch(0)
    assert [listing.ends_at(after) for after in (0, 99, 100)] == [False, False, True]
    long = Listing(Growing(10_000))
    assert not long.ends_at(long.fetch(0)[-1].cookie)


def test_a_listing_that_begins_again_shows_what_is_new() -> None:
    directory = Growing(2)
    listing = Listing(directory)
    assert len(read_all(listing)) == 2
    directory.shown[3] = ("late", Validity.LASTING)
    assert read_all(listing) == ["name-1", "name-2", "late"]


def test_a_reader_may_seek_back_and_forth() -> None:
    listing = Listing(Growing(300))
    everything = read_all(listing)
    assert read_all(listing, position=250) == everything[250:]
    assert read_all(listing, position=10) == everything[10:]
    assert read_all(listing, position=299) == everything[299:]
    assert read_all(listing, position=300) == []


def test_a_name_that_came_again_under_a_later_cookie_is_given_once() -> None:
    directory = Growing(400)
    directory.shown[5] = ("growing.partial", Validity.BRIEF)
    listing = Listing(directory)
    before = [listed.name for listed in listing.fetch(0)]
    del directory.shown[5]
    directory.shown[401] = ("growing.partial", Validity.BRIEF)
    names = before + read_all(listing, position=len(before))
    assert names.count("growing.partial") == 1
    assert len(names) == 400
    # From before its first place, and from the beginning, it is given again.
    assert "growing.partial" in read_all(listing, position=4)
    assert "growing.partial" in read_all(listing)


def test_a_portion_of_nothing_but_repetitions_is_not_the_end() -> None:
    directory = Growing(0)
    directory.shown = {n: (f"p{n}", Validity.BRIEF) for n in range(1, 1300)}
    listing = Listing(directory)
    first = [listed.name for listed in listing.fetch(0)]
    first += [listed.name for listed in listing.fetch(len(first))]
    again = range(1, len(first) + 1)
    directory.shown = {n + 2000: (f"p{n}", Validity.BRIEF) for n in again}
    directory.shown |= {n + 4000: (f"q{n}", Validity.LASTING) for n in range(1, 200)}
    rest = read_all(listing, position=len(first))
    assert len(first) + len(rest) == len({*first, *rest}) == len(first) + 199


def test_a_long_listing_has_its_next_portion_at_hand() -> None:
    directory = Growing(3000)
    listing = Listing(directory)
    position, names = 0, []
    while portion := listing.buffered(position) or listing.fetch(position):
        names += [listed.name for listed in portion]
        position = portion[-1].cookie
        if listing.is_long:
            produced = directory.produced
            listing.fetch_next()
            assert not listing.is_long
            assert listing.buffered(position) or directory.produced == produced
    assert names == [f"name-{n}" for n in range(1, 3001)]
    assert directory.produced == 3000


def test_a_reader_that_turns_back_is_not_given_what_was_fetched_ahead() -> None:
    listing = Listing(Growing(3000))
    position = 0
    while not listing.is_long:
        position = listing.fetch(position)[-1].cookie
    listing.fetch_next()
    listing.buffered(position)
    assert [listed.name for listed in listing.fetch(5)][:2] == ["name-6", "name-7"]
