"""Which hours need not be kept any longer. Pure: what is held and a policy in, decisions out.

An hour of a broadcast goes as a whole, and only once it is closed. Rules that keep win over rules
that expire. Init and catalog groups stay while any media needs them: media whose record names them
as its init, or media of the same epoch. The newest group of each such track, and all of the newest
epoch, always stay, for a recorder goes on with them.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from casfs.index.rows import BroadcastRow
from casfs.manifests.expiry import NOTHING_EXPIRED, ExpiredHour
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from casfs.index.holdings import Holding, HourHolding, SupportGroup

NO_LONGER_NEEDED = "no media needs it any longer"
"""Why an init or catalog group goes that was kept when its hour went."""


class Policy(Struct, frozen=True, kw_only=True):
    """What is to be kept. Without a limit nothing expires."""

    older_than: int | None = None
    """Hours that ended so long ago expire, nanoseconds."""
    keep_bytes: int | None = None
    """The oldest hours expire until the broadcasts hold no more payload than this."""
    min_free: int | None = None
    """The oldest hours expire until so many bytes of the disk are free."""
    ahead: int = 0
    """And will be after so many nanoseconds, if the archive grows as it did lately."""
    broadcasts: tuple[str, ...] = ()
    """Names or globs; empty: all. What others hold neither expires nor counts."""
    keep_last: int = 0
    """So many newest hours of each broadcast stay."""
    keep_daily: frozenset[int] = frozenset()
    """Hours of the day (UTC) that stay."""

    def wants(self, broadcast: str) -> bool:
        """Say whether the policy speaks of a broadcast."""
        return not self.broadcasts or any(
            broadcast == pattern or fnmatch.fnmatchcase(broadcast, pattern)
            for pattern in self.broadcasts
        )


class Decision(Struct, frozen=True, kw_only=True):
    """That an hour of a broadcast is expired, and how far."""

    broadcast: BroadcastRow
    hour: int
    """Since the Unix epoch."""
    expired: ExpiredHour
    groups: int
    """How many groups do not show any longer."""
    bytes: int
    """Their payload."""
    reason: str


class _Candidate(Struct, frozen=True, order=True):
    hour: int
    broadcast: str
    bytes: int


def decide(
    held: Sequence[Holding], policy: Policy, *, now: int, available: int = 0
) -> list[Decision]:
    """Return what expires by the policy, oldest first.

    ``now``: nanoseconds UTC. ``available``: bytes that are free on the disk of the objects, or will
    be once all that has expired before is deleted.
    """
    wanted = [holding for holding in held if policy.wants(holding.broadcast.name)]
    reasons = _choose(wanted, policy, now, available)
    decisions = [
        decision
        for holding in wanted
        for decision in _decisions(holding, reasons.get(holding.broadcast.name, {}))
    ]
    return sorted(decisions, key=lambda decision: (decision.hour, decision.broadcast.name))


def undo(holding: Holding, hours: Iterable[int]) -> dict[int, ExpiredHour]:
    """Return what is expired of a broadcast once ``hours`` are restored: the hours that change.

    Hours that stay expired give back the init and catalog groups that the restored media needs.
    """
    changed = {hour: NOTHING_EXPIRED for hour in hours if hour in holding.expired}
    states = {**holding.expired, **changed}
    needed = {support.n: support.hour for support in _needed(holding, states)}
    for hour, state in states.items():
        keep = state.keep | {n for n, at in needed.items() if at == hour and n <= state.through}
        if keep != state.keep:
            changed[hour] = replace(state, keep=keep)
    return changed


def growth(size: int, since: int, now: int, ahead: int) -> int:
    """Return by how many bytes an archive grows in ``ahead`` that took ``size`` since an instant.

    All times in nanoseconds. Less than an hour tells too little: it counts as one.
    """
    return size * ahead // max(now - since, HOUR)


# Which hours


def _choose(
    wanted: Sequence[Holding], policy: Policy, now: int, available: int
) -> dict[str, dict[int, str]]:
    """Return the hours that go and why, by broadcast."""
    candidates = sorted(
        candidate for holding in wanted for candidate in _candidates(holding, policy, now)
    )
    total = sum(_held_bytes(holding) for holding in wanted)
    freed = 0
    chosen: dict[str, dict[int, str]] = {}
    for candidate in candidates:
        reason = ""
        if policy.older_than is not None and _end(candidate.hour) <= now - policy.older_than:
            reason = "older than the limit"
        elif policy.keep_bytes is not None and total - freed > policy.keep_bytes:
            reason = "more bytes than the limit"
        elif policy.min_free is not None and available + freed < policy.min_free:
            reason = "less free space than the limit"
        if reason:
            chosen.setdefault(candidate.broadcast, {})[candidate.hour] = reason
            freed += candidate.bytes
    return chosen


def _candidates(holding: Holding, policy: Policy, now: int) -> Iterator[_Candidate]:
    """Yield the closed hours that hold anything which may go."""
    media = {hour.hour: hour for hour in holding.hours}
    supports: dict[int, list[SupportGroup]] = {}
    for support in holding.supports:
        if not support.expired:
            supports.setdefault(support.hour, []).append(support)
    living = sorted({hour.hour for hour in holding.hours if _lives(hour, holding)} | set(supports))
    kept = set(living[-policy.keep_last :]) if policy.keep_last else set()
    for hour in living:
        if holding.sealed is None or hour > holding.sealed or _end(hour) > now:
            return
        if hour in kept or hour % 24 in policy.keep_daily:
            continue
        closed = [item for item in supports.get(hour, []) if item.n <= holding.through]
        found = media.get(hour)
        if closed or (found is not None and found.records):
            size = sum(item.size for item in closed if item.shown)
            yield _Candidate(
                hour, holding.broadcast.name, size + (found.bytes if found is not None else 0)
            )


def _lives(hour: HourHolding, holding: Holding) -> bool:
    through = holding.expired.get(hour.hour, NOTHING_EXPIRED).through
    return any(use.last_n > through for use in hour.uses)


def _held_bytes(holding: Holding) -> int:
    return sum(hour.held_bytes for hour in holding.hours) + sum(
        support.size for support in holding.supports if support.shown
    )


def _end(hour: int) -> int:
    return (hour + 1) * HOUR


# What goes of them


def _decisions(holding: Holding, reasons: Mapping[int, str]) -> Iterator[Decision]:
    states = dict(holding.expired)
    for hour in reasons:
        before = states.get(hour, NOTHING_EXPIRED)
        states[hour] = replace(before, through=max(before.through, holding.through))
    needed = {support.n for support in _needed(holding, states)}
    media = {hour.hour: hour for hour in holding.hours}
    for hour, state in states.items():
        inside = [
            item
            for item in holding.supports
            if item.hour == hour and item.n <= state.through and not item.expired
        ]
        going = [item for item in inside if item.n not in needed]
        found = media.get(hour) if hour in reasons else None
        if not going and (found is None or not found.records):
            continue
        shown = [item for item in going if item.shown]
        yield Decision(
            broadcast=holding.broadcast,
            hour=hour,
            expired=replace(state, keep=frozenset(item.n for item in inside if item.n in needed)),
            groups=len(shown) + (found.groups if found is not None else 0),
            bytes=sum(item.size for item in shown) + (found.bytes if found is not None else 0),
            reason=reasons.get(hour, NO_LONGER_NEEDED),
        )


def _needed(holding: Holding, states: Mapping[int, ExpiredHour]) -> Iterator[SupportGroup]:
    """Yield the init and catalog groups that something needs if these hours are expired."""
    uses = [
        use
        for hour in holding.hours
        for use in hour.uses
        if use.last_n > states.get(hour.hour, NOTHING_EXPIRED).through
    ]
    inits = {use.init for use in uses}
    epochs = {use.epoch for use in uses}
    every = [use.epoch for hour in holding.hours for use in hour.uses]
    every += [support.epoch for support in holding.supports]
    epochs.add(max(every, default=0))
    newest = {support.track: support.n for support in holding.supports}
    for support in holding.supports:
        if support.epoch in epochs or support.hash in inits or newest[support.track] == support.n:
            yield support
