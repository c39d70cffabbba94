"""Whether a record can mean what it says. Pure.

A line may carry a right sum and still hold what no writer of ours writes: numbers that no protocol
has, times that are none. Such a record is kept where it is and told of; nothing is made of it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from casfs.digest import parse_digest
from casfs.manifests.record import (
    ExpiredRecord,
    GroupRecord,
    RestoredRecord,
    RunRecord,
    SealRecord,
)
from casfs.manifests.runs import first_number, one_hour
from casfs.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.manifests.record import Record

_NUMBERS = 1 << 63
_COMMITS = 1 << 62  # so that a writer can go on behind any


def implausible(record: Record) -> str | None:
    """Return what is wrong with a record of a known kind; None if nothing is."""
    try:
        _check(record)
    except ValueError as error:
        return f"a {record.__struct_config__.tag} record that cannot be meant so: {error}"
    return None


def check_sequence(sequence: int) -> int:
    """Return the sequence number of a group; raises ValueError if it is none."""
    if sequence >> 62:  # also if it is negative
        raise ValueError(f"{sequence} is no sequence number")
    return sequence


def check_run(record: RunRecord) -> None:
    """Raise ValueError unless a run can be taken apart into groups of one hour."""
    _check_kept(record, [record.hash, *record.hashes])
    if first_number(record) < 1:
        raise ValueError(f"n is {record.n}, and {len(record.sequences)} groups have one each")
    sequences = [check_sequence(int(sequence)) for sequence in record.sequences]
    if any(one >= other for one, other in itertools.pairwise(sequences)):
        raise ValueError("its sequences do not rise")
    if min(record.sizes) < 0 or sum(record.sizes) != record.size:
        raise ValueError("its sizes do not add up")
    if min(record.starts) < 0:
        raise ValueError("a group began before the first one")
    start = parse_time(record.received_start)
    # A clock that was set back ends a group before it began: that is meant so.
    if not -_NUMBERS <= start + min(record.ends) <= start + max(record.ends) < _NUMBERS:
        raise ValueError("a group ended at no time that nanoseconds can tell")
    if not one_hour(record):
        raise ValueError("its groups began in more than one hour")


def _check_kept(record: GroupRecord | RunRecord, digests: Sequence[str]) -> None:
    """Raise ValueError unless the members that groups and runs have in common can be meant."""
    if record.epoch < 1:
        raise ValueError(f"epoch is {record.epoch}")
    for name in ("epoch", "offset", "size"):
        _number(name, getattr(record, name))
    _number("offset + size", record.offset + record.size)
    for digest in (*digests, record.init):
        if digest is not None:
            parse_digest(digest)
    _time(record.received_start)
    _time(record.received_end)


def _check(record: Record) -> None:
    _number("number", record.number)
    if not 0 <= record.n < _COMMITS:
        raise ValueError(f"n is {record.n}")
    _time(record.time)
    match record:
        case GroupRecord():
            _check_kept(record, [record.hash, *(record.blocks or ())])
            check_sequence(int(record.sequence))
        case RunRecord():
            check_run(record)
        case SealRecord() | ExpiredRecord():
            _time(record.hour)
            _number("through", record.through)
        case RestoredRecord():
            _time(record.hour)
        case _:
            pass


def _time(text: str) -> None:
    if not -_NUMBERS <= parse_time(text) < _NUMBERS:
        raise ValueError(f"{text} is no time that nanoseconds can tell")


def _number(name: str, value: int) -> None:
    if not 0 <= value < _NUMBERS:
        raise ValueError(f"{name} is {value}")
