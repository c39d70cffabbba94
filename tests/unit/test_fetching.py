"""A directory is asked over real HTTP on loopback: bounded, timed, and only if it changed."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import trio

from casfs.errors import DirectoryError
from ingest.directory import Listed, Listing, ListingLimits
from ingest.fetching import Fetcher, FetchOptions
from ingest.sources import SourceState, poll_directory
from tools.loopback.directory import Behaviour, StreamDirectory, running_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = FetchOptions(timeout=1.0, limits=ListingLimits(bytes=1 << 20))


@pytest.fixture
def directory() -> Iterator[StreamDirectory]:
    with running_directory() as running:
        yield running


async def fetch(url: str, options: FetchOptions = QUICK) -> Listing:
    fetcher = Fetcher(url, options)
    try:
        return await fetcher.fetch()
    finally:
        fetcher.close()


async def test_what_has_not_changed_is_not_sent_again(directory: StreamDirectory) -> None:
    directory.entries = ["a"]
    fetcher = Fetcher(directory.url, QUICK)
    try:
        first = await fetcher.fetch()
        assert await fetcher.fetch() is first
        assert directory.not_modified == 1
        directory.entries = ["a", "b"]
        assert len((await fetcher.fetch()).listed) == 2
    finally:
        fetcher.close()


@pytest.mark.parametrize(
    "behaviour", [item for item in Behaviour if item not in (Behaviour.ANSWERS, Behaviour.EMPTY)]
)
async def test_a_directory_that_misbehaves_is_an_error_in_time_and_may_recover(
    directory: StreamDirectory, behaviour: Behaviour
) -> None:
    directory.entries = ["a"]
    fetcher = Fetcher(directory.url, QUICK)
    try:
        directory.behaviour = behaviour
        with trio.fail_after(20), pytest.raises(DirectoryError):
            await fetcher.fetch()
        directory.behaviour = Behaviour.ANSWERS
        assert (await fetcher.fetch()).listed == (Listed("a"),)
    finally:
        fetcher.close()


@pytest.mark.parametrize("garbage", [False, True])
async def test_what_a_failed_answer_took_is_free_again_before_any_collection(
    directory: StreamDirectory, garbage: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = QUICK.limits.bytes
    if garbage:
        monkeypatch.setattr(directory, "body", lambda: b"<" * most)
    else:
        directory.behaviour = Behaviour.HUGE
    fetcher = Fetcher(directory.url, QUICK)
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            with pytest.raises(DirectoryError):
                await fetcher.fetch()
        held, _ = tracemalloc.get_traced_memory()
        assert held < 2 * most
    finally:
        tracemalloc.stop()
        gc.enable()
        fetcher.close()


async def test_nobody_at_the_address_is_an_error_without_the_urls_secret() -> None:
    with pytest.raises(DirectoryError) as failure:
        await fetch("http://127.0.0.1:9/list?token=secret")
    assert str(failure.value) == "it cannot be asked: Connection refused"


async def test_the_token_goes_along(directory: StreamDirectory) -> None:
    await fetch(directory.url, FetchOptions(token="secret"))
    assert directory.requests[0]["authorization"] == "Bearer secret"


async def test_a_plain_list_of_a_relay_is_at_that_relay(directory: StreamDirectory) -> None:
    directory.plain, directory.entries = True, ["demo/tv"]
    url = directory.url.replace("/api/public-streams", "/announced/anon")
    relay = directory.url.replace("http:", "https:").replace("/api/public-streams", "/anon")
    assert (await fetch(url)).listed == (Listed("demo/tv", (relay,)),)


async def test_a_file_is_a_directory_too(tmp_path: Path) -> None:
    path = tmp_path / "pinned list.txt"
    with pytest.raises(DirectoryError, match="cannot be read"):
        await fetch(path.as_uri())
    path.write_text("a\nb\n")
    fetcher = Fetcher(path.as_uri(), QUICK)
    first = await fetcher.fetch()
    assert [entry.broadcast for entry in first.listed] == ["a", "b"]
    assert await fetcher.fetch() is first
    path.write_text('[{"broadcast_name": "c"}]')
    assert [entry.broadcast for entry in (await fetcher.fetch()).listed] == ["c"]


async def test_a_directory_is_asked_again_later_each_time_while_it_fails(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[float] = []
    told: list[Listing] = []

    async def answer(_fetcher: Fetcher) -> Listing:
        asked.append(trio.current_time())
        if len(asked) <= 5:
            raise DirectoryError("it is not there")
        return Listing((Listed("a"),))

    monkeypatch.setattr(Fetcher, "fetch", answer)
    state = SourceState("shown")
    with trio.move_on_after(400):
        await poll_directory("http://x/", QUICK, lambda: 30.0, state, told.append)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    for pause, delay in zip(pauses, (5, 10, 20, 40, 60), strict=False):
        assert 0.75 * delay <= pause <= 1.25 * delay
    assert all(27 <= pause <= 30 for pause in pauses[5:])
    assert (state.listed, state.trouble) == (1, "")
    assert len(told) == len(asked) - 5
