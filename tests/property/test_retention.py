"""What a policy decides: nothing that it has to keep, and no more than it needs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from casfs.digest import digest_of
from casfs.index.holdings import Holding, HourHolding, MediaUse, SupportGroup
from casfs.index.rows import BroadcastRow
from casfs.manifests.expiry import NOTHING_EXPIRED, ExpiredHour
from casfs.retention import Decision, Policy, decide, undo
from casfs.timestamps import HOUR

INITS = [digest_of(name) for name in (b"one", b"two")]


@st.composite
def holdings(draw: st.DrawFn, name: str, number: int) -> Holding:
    through = draw(st.integers(0, 60))
    sealed = draw(st.none() | st.integers(0, 30))
    hours = sorted(draw(st.sets(st.integers(0, 30), max_size=6)))
    media = []
    for hour in hours:
        records = draw(st.integers(0, 5))
        size = draw(st.integers(0, 100)) if records else 0
        uses = draw(
            st.lists(
                st.builds(
                    MediaUse,
                    st.integers(1, 3),
                    st.none() | st.sampled_from(INITS),
                    st.integers(1, 90),
                ),
                min_size=1,
                max_size=2,
            )
        )
        media.append(HourHolding(hour, records, records, size, size, tuple(uses)))
    numbers = sorted(draw(st.sets(st.integers(1, 90), max_size=5)))
    supports = [
        SupportGroup(
            n,
            draw(st.integers(0, 30)),
            draw(st.integers(1, 3)),
            draw(st.sampled_from(["init.mp4", "catalog.json"])),
            draw(st.sampled_from(INITS)),
            draw(st.integers(0, 50)),
            shown=True,
            expired=False,
        )
        for n in numbers
    ]
    return Holding(BroadcastRow(number, name), sealed, through, tuple(media), tuple(supports), {})


archives = st.tuples(holdings("a/one", 1), holdings("b/two", 2)).map(list)
policies = st.builds(
    Policy,
    older_than=st.none() | st.integers(0, 20).map(lambda hours: hours * HOUR),
    keep_bytes=st.none() | st.integers(0, 300),
    min_free=st.none() | st.integers(0, 300),
    broadcasts=st.sampled_from([(), ("a/*",), ("b/two",)]),
    keep_last=st.integers(0, 3),
    keep_daily=st.frozensets(st.integers(0, 23), max_size=5),
)
nows = st.integers(0, 40).map(lambda hours: hours * HOUR)


def of(holding: Holding, decisions: list[Decision]) -> dict[int, ExpiredHour]:
    return {item.hour: item.expired for item in decisions if item.broadcast == holding.broadcast}


@given(archives, policies, nows, st.integers(0, 300))
def test_only_closed_hours_that_no_rule_keeps_expire(
    held: list[Holding], policy: Policy, now: int, available: int
) -> None:
    decisions = decide(held, policy, now=now, available=available)
    assert decisions == sorted(decisions, key=lambda item: (item.hour, item.broadcast.name))
    for holding in held:
        states = of(holding, decisions)
        living = sorted({hour.hour for hour in holding.hours} | {g.hour for g in holding.supports})
        for hour, state in states.items():
            assert policy.wants(holding.broadcast.name)
            assert holding.sealed is not None
            assert hour <= holding.sealed
            assert (hour + 1) * HOUR <= now
            assert hour % 24 not in policy.keep_daily
            assert state.through == holding.through
            # Whatever was committed after the seal was not seen as a whole by anyone.
            assert not policy.keep_last or hour not in living[-policy.keep_last :]


@given(archives, policies, nows, st.integers(0, 300))
def test_init_and_catalog_groups_stay_while_any_media_needs_them(
    held: list[Holding], policy: Policy, now: int, available: int
) -> None:
    decisions = decide(held, policy, now=now, available=available)
    for holding in held:
        states = of(holding, decisions)
        living = [
            use
            for hour in holding.hours
            for use in hour.uses
            if use.last_n > states.get(hour.hour, NOTHING_EXPIRED).through
        ]
        for support in holding.supports:
            if states.get(support.hour, NOTHING_EXPIRED).names(support.n):
                assert support.hash not in {use.init for use in living}
                assert support.epoch not in {use.epoch for use in living}
                assert any(
                    other.n > support.n and other.track == support.track
                    for other in holding.supports
                ), "the newest stays"


@given(archives, policies, nows, st.integers(0, 300))
def test_what_was_decided_is_not_decided_again(
    held: list[Holding], policy: Policy, now: int, available: int
) -> None:
    decisions = decide(held, policy, now=now, available=available)
    freed = sum(item.bytes for item in decisions)
    after = [applied(holding, of(holding, decisions)) for holding in held]
    again = decide(after, policy, now=now, available=available + freed)
    # Only the sizes of groups that stay after all may have been counted as freed before.
    if policy.keep_bytes is None and policy.min_free is None:
        assert again == []


@given(archives, policies, nows, st.integers(0, 300))
def test_a_limit_on_bytes_is_met_and_no_hour_more_goes_than_it_takes(
    held: list[Holding], policy: Policy, now: int, available: int
) -> None:
    bare = [Holding(item.broadcast, item.sealed, item.through, item.hours, (), {}) for item in held]
    limit = 100
    decisions = decide(bare, Policy(keep_bytes=limit), now=now)
    total = sum(hour.held_bytes for item in bare for hour in item.hours)
    left = total - sum(item.bytes for item in decisions)
    closed = [
        hour
        for item in bare
        for hour in item.hours
        if item.sealed is not None and hour.hour <= item.sealed and (hour.hour + 1) * HOUR <= now
    ]
    gone = {(item.broadcast.number, item.hour) for item in decisions}
    assert left <= limit or len(gone) == sum(hour.records > 0 for hour in closed)
    if decisions:
        assert left + max(item.bytes for item in decisions) >= min(total, limit)
        assert left + decisions[-1].bytes > limit


@given(archives, policies, nows, st.integers(0, 300), st.data())
def test_undoing_gives_back_what_the_media_needs(
    held: list[Holding], policy: Policy, now: int, available: int, data: st.DataObject
) -> None:
    decisions = decide(held, policy, now=now, available=available)
    for holding in held:
        states = of(holding, decisions)
        after = applied(holding, states)
        hours = data.draw(st.sets(st.sampled_from(sorted(states)))) if states else set()
        changed = undo(after, hours)
        assert set(hours) <= set(changed)
        final = {**states, **changed}
        assert all(final[hour] == NOTHING_EXPIRED for hour in hours)
        assert all(states[hour].covers(final[hour]) for hour in states)
        living = [
            use
            for hour in holding.hours
            for use in hour.uses
            if use.last_n > final.get(hour.hour, NOTHING_EXPIRED).through
        ]
        for support in holding.supports:
            if final.get(support.hour, NOTHING_EXPIRED).names(support.n):
                assert support.hash not in {use.init for use in living}
                assert support.epoch not in {use.epoch for use in living}


def applied(holding: Holding, states: dict[int, ExpiredHour]) -> Holding:
    """Return the holding as the index shows it once these hours are expired."""
    hours = tuple(
        HourHolding(hour.hour, 0, 0, 0, 0, hour.uses) if hour.hour in states else hour
        for hour in holding.hours
    )
    supports = tuple(
        SupportGroup(
            *(item.n, item.hour, item.epoch, item.track, item.hash, item.size),
            shown=not states.get(item.hour, NOTHING_EXPIRED).names(item.n),
            expired=states.get(item.hour, NOTHING_EXPIRED).names(item.n),
        )
        for item in holding.supports
    )
    return Holding(holding.broadcast, holding.sealed, holding.through, hours, supports, states)
