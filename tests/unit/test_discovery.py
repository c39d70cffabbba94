"""What a relay announces: as a list that is complete, and as changes that are each told once."""

from __future__ import annotations

import io
import sys
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import trio
import trio.testing

from casfs.cli import broadcasts
from casfs.errors import (
    CertificateError,
    ConnectError,
    ConnectionLostError,
    NegotiationError,
    RefusedError,
)
from ingest.discovery import (
    Change,
    Directory,
    DiscoverOptions,
    Settling,
    follow_broadcasts,
    list_broadcasts,
)
from ingest.moq.events import AnnouncementsEnded, BroadcastAnnounced, BroadcastEnded
from tests.fakes.session import FakeRelay
from tests.unit.test_docs_json import check_members

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from casfs.errors import RelayError
    from ingest.record_options import Connect
    from tests.fakes.session import FakeSession

OPTIONS = DiscoverOptions(url="https://relay.example/?jwt=secret", prefix="demo")
QUIET = Settling().quiet
AT_MOST = Settling().at_most


def announced(name: str, generation: int = 1) -> BroadcastAnnounced:
    return BroadcastAnnounced(name, generation)


def came(name: str) -> Change:
    return Change(name, announced=True, time=7)


def gone(name: str) -> Change:
    return Change(name, announced=False, time=7)


# The list


async def listed(relay: FakeRelay) -> list[str]:
    found = await list_broadcasts(OPTIONS, connect=cast("Connect", relay), clock=lambda: 7)
    assert all(change.announced for change in found)
    return [change.broadcast for change in found]


async def test_a_relay_that_announces_nothing_has_an_empty_list(autojump_clock: MockClock) -> None:
    relay = FakeRelay()
    start = trio.current_time()
    assert await listed(relay) == []
    assert trio.current_time() - start == pytest.approx(QUIET)
    session = await relay.session()
    assert session.announced == ["demo"]
    assert session.closed.is_set()


async def test_the_list_is_complete_when_nothing_has_come_for_a_while(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay()

    async def script() -> None:
        session = await relay.session()
        session.tell(announced("demo/c"), announced("demo/b"))
        await trio.sleep(0.9 * QUIET)
        session.tell(announced("demo/a"), BroadcastEnded("demo/b"))
        await trio.sleep(0.9 * QUIET)
        session.tell(announced("demo/c", 2))
        await trio.sleep(1.1 * QUIET)
        session.tell(announced("demo/too late"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        assert await listed(relay) == ["demo/a", "demo/c"]


async def test_a_relay_that_never_rests_is_listed_as_far_as_it_came(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay()
    names = [f"{number:03}" for number in range(100)]

    async def script() -> None:
        session = await relay.session()
        for name in names:
            session.tell(announced(name))
            await trio.sleep(0.5 * QUIET)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        start = trio.current_time()
        found = await listed(relay)
        assert trio.current_time() - start == pytest.approx(AT_MOST)
        nursery.cancel_scope.cancel()
    assert 2 < len(found) < 50
    assert found == names[: len(found)]


async def test_a_relay_that_fails_has_no_list(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectError):
        await listed(FakeRelay(ConnectError("no answer")))
    relay = FakeRelay()

    async def script() -> None:
        session = await relay.session()
        session.tell(announced("demo/a"))
        session.lose(ConnectionLostError("gone"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(ConnectionLostError):
            await listed(relay)


# What comes and goes


class Follower:
    """Follows a relay, and keeps what is told."""

    def __init__(self, relay: FakeRelay) -> None:
        self.relay = relay
        self._told: list[Change] = []

    async def run(self) -> None:
        await follow_broadcasts(
            OPTIONS, self._told.append, connect=cast("Connect", self.relay), clock=lambda: 7
        )

    def told(self) -> list[Change]:
        told, self._told[:] = list(self._told), []
        return told


@asynccontextmanager
async def following(*failures: RelayError) -> AsyncIterator[Follower]:
    follower = Follower(FakeRelay(*failures))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        yield follower
        nursery.cancel_scope.cancel()


async def after(
    session: FakeSession, *events: BroadcastAnnounced | BroadcastEnded | AnnouncementsEnded
) -> None:
    """Tell events and wait until they have been taken."""
    session.tell(*events)
    await trio.testing.wait_all_tasks_blocked()


async def test_each_broadcast_that_comes_or_goes_is_told_at_once(
    autojump_clock: MockClock,
) -> None:
    async with following() as follower:
        session = await follower.relay.session()
        assert session.announced == ["demo"]
        await after(session, announced("a"), announced("b"))
        assert follower.told() == [came("a"), came("b")]
        await trio.sleep(3600)
        await after(session, BroadcastEnded("a"), announced("c"), announced("a", 2))
        assert follower.told() == [gone("a"), came("c"), came("a")]


async def test_another_publisher_of_a_broadcast_is_no_news(autojump_clock: MockClock) -> None:
    async with following() as follower:
        session = await follower.relay.session()
        await after(session, announced("a"), announced("a", 2), BroadcastEnded("unknown"))
        assert follower.told() == [came("a")]


async def test_after_a_loss_only_what_has_changed_is_told(autojump_clock: MockClock) -> None:
    async with following() as follower:
        session = await follower.relay.session()
        await after(session, announced("kept"), announced("x"), announced("lost"))
        follower.told()
        session.lose(ConnectionLostError("gone"))
        session = await follower.relay.session()
        assert follower.told() == []
        await after(session, announced("new"), announced("kept"))
        assert follower.told() == [came("new")]
        await trio.sleep(2 * QUIET)
        assert follower.told() == [gone("lost"), gone("x")]
        await after(session, announced("x"))
        assert follower.told() == [came("x")]


async def test_a_relay_that_ends_the_announcements_alone_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async with following() as follower:
        session = await follower.relay.session()
        await after(session, announced("kept"), announced("lost"))
        await trio.sleep(2 * QUIET)
        follower.told()
        await after(
            session, BroadcastEnded("kept"), BroadcastEnded("lost"), AnnouncementsEnded("demo")
        )
        await trio.sleep(5 + QUIET / 2)
        assert session.announced == ["demo", "demo"]
        await after(session, announced("kept"))
        await trio.sleep(2 * QUIET)
        assert follower.told() == [gone("lost")]


async def test_a_session_lost_before_its_first_answers_tells_of_no_end(
    autojump_clock: MockClock,
) -> None:
    async with following() as follower:
        session = await follower.relay.session()
        await after(session, announced("a"))
        follower.told()
        for _ in range(3):
            session.lose(ConnectionLostError("gone"))
            session = await follower.relay.session()
        await after(session, announced("a"))
        await trio.sleep(2 * QUIET)
        assert follower.told() == []


async def test_tries_to_connect_are_further_and_further_apart(autojump_clock: MockClock) -> None:
    failures: list[RelayError] = [
        ConnectError("no answer"),
        RefusedError("not you"),
        ConnectError("no answer"),
    ]
    async with following(*failures) as follower:
        await follower.relay.session()
        tries = follower.relay.tries
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits == [pytest.approx(expected, rel=0.26) for expected in (1, 2, 4)]


@pytest.mark.parametrize("error", [CertificateError("bad"), NegotiationError("none")])
async def test_settings_that_cannot_work_end_it_at_the_first_try_alone(
    error: ConnectError, autojump_clock: MockClock
) -> None:
    with pytest.raises(type(error)):
        await follow_broadcasts(OPTIONS, print, connect=cast("Connect", FakeRelay(error)))
    async with following() as follower:
        session = await follower.relay.session()
        follower.relay.failures.append(error)
        session.lose(ConnectionLostError("gone"))
        await follower.relay.session()
        assert len(follower.relay.tries) == 3


def test_a_directory_without_a_loss_has_nothing_to_settle() -> None:
    directory = Directory()
    directory.take(announced("a"), 7)
    assert directory.settle(7) == []
    directory.lose()
    assert directory.take(BroadcastEnded("a"), 7) == (gone("a"),)
    assert directory.settle(7) == []


# What is printed


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    broadcasts._tell(came("\x1b[2Jtv\n- other"))
    broadcasts._tell(gone("дом"))
    assert capsys.readouterr().out == "+ \\x1b[2Jtv\\x0a- other\n- дом\n"


def test_the_json_is_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output))
    broadcasts._tell_json(came("\x1b[2Jtv"))
    broadcasts._tell_json(gone("tv"))
    values = [msgspec.json.decode(line) for line in output.getvalue().splitlines()]
    assert values[0] == {
        "event": "announced",
        "broadcast": "\x1b[2Jtv",
        "time": "1970-01-01T00:00:00.000000007Z",
    }
    assert values[1]["event"] == "ended"
    check_members("casfs broadcasts", *values)


def test_the_help_says_how_long_it_waits() -> None:
    assert Settling() == Settling(quiet=1.0, at_most=10.0)
    said = " ".join((broadcasts.broadcasts_command.help or "").split())
    assert "nothing has come for one second, at most ten seconds" in said
