"""Whether a record can mean what it says. Pure.

A line may carry a right sum and still hold what no writer of ours writes: numbers that no protocol
has, times that are none. Such a record is kept where it is and told of; nothing is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.digest import parse_digest
from casfs.manifests.record import ExpiredRecord, GroupRecord, RestoredRecord, SealRecord
from casfs.timestamps import parse_time

if TYPE_CHECKING:
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


def _check(record: Record) -> None:
    _number("number", record.number)
    if not 0 <= record.n < _COMMITS:
        raise ValueError(f"n is {record.n}")
    parse_time(record.time)
    match record:
        case GroupRecord():
            if record.epoch < 1:
                raise ValueError(f"epoch is {record.epoch}")
            check_sequence(int(record.sequence))
            for name in ("epoch", "offset", "size"):
                _number(name, getattr(record, name))
            _number("offset + size", record.offset + record.size)
            for digest in (record.hash, record.init):
                if digest is not None:
                    parse_digest(digest)
            parse_time(record.received_start)
            parse_time(record.received_end)
        case SealRecord() | ExpiredRecord():
            parse_time(record.hour)
            _number("through", record.through)
        case RestoredRecord():
            parse_time(record.hour)
        case _:
            pass


def _number(name: str, value: int) -> None:
    if not 0 <= value < _NUMBERS:
        raise ValueError(f"{name} is {value}")
