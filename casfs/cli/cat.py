"""``casfs cat``: payloads to stdout, each checked against its hash before a byte is written."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from casfs.cli.options import Instant, RootFlags, parse_range, pass_roots
from casfs.digest import digest_of, is_digest, parse_digest
from casfs.errors import (
    ConfigError,
    DamagedObjectError,
    NotFoundError,
    ObjectNotFoundError,
    storage_error,
)

if TYPE_CHECKING:
    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.index.rows import GroupRow

_FOR_EVER = 1 << 63


@click.command("cat")
@click.argument("broadcast")
@click.argument("track", required=False)
@click.option("--sequence", metavar="A[-B]", help="A group, or all groups from A to B.")
@click.option("--epoch", type=int, help="Only groups of this epoch.")
@click.option("--since", type=Instant(), help="Only groups received at this time or later.")
@click.option("--until", type=Instant(), help="Only groups received before this time.")
@click.option("--init", "with_init", is_flag=True, help="Write what a player needs first, first.")
@pass_roots
def cat_command(
    flags: RootFlags,
    broadcast: str,
    track: str | None,
    *,
    sequence: str | None,
    epoch: int | None,
    since: int | None,
    until: int | None,
    with_init: bool,
) -> None:
    """Write the groups of a TRACK, in order, or one object given by its hash, to stdout.

    Every payload is read and checked before any byte of it is written; a damaged one ends the
    command with exit code 3.

    \b
    Example:
      casfs cat demo/tv video0.m4s --init --since 2026-11-22T13:00:00Z | mpv -
      casfs cat demo/tv catalog.json --sequence 0 | jq .
      casfs cat 2dc99999a6aaef3f20349d2ed4057a2b54419545dabb809e6381de1bad8337e2 > object.bin
    """
    archive = flags.archive()
    if track is None:
        if not is_digest(broadcast):
            raise ConfigError(
                f"{broadcast!r} is not the hash of an object",
                advice="give a broadcast and a track, or 64 hexadecimal digits",
            )
        _write(_read(archive, parse_digest(broadcast)))
        return
    groups = _select(archive, broadcast, track, sequence, epoch, since or 0, until or _FOR_EVER)
    shown: Digest | None = None
    for group in groups:
        if with_init and group.init is not None and group.init != shown:
            shown = group.init
            _write(_read_needed(archive, shown))
        payload = _read_needed(archive, group.hash)
        _write(payload[group.offset : group.offset + group.size])


def _select(
    archive: Archive,
    broadcast: str,
    track: str,
    sequence: str | None,
    epoch: int | None,
    since: int,
    until: int,
) -> list[GroupRow]:
    first, last = parse_range(sequence) if sequence is not None else (0, _FOR_EVER)
    with contextlib.closing(archive.reader()) as reader:
        row = reader.track(broadcast, track)
        if row is None:
            raise NotFoundError(
                f"the archive holds no track {track!r} of broadcast {broadcast!r}",
                advice="casfs ls lists what it holds",
            )
        groups = [
            group
            for group in reader.groups(row, since, until)
            if first <= group.sequence <= last and epoch in (None, group.epoch)
        ]
    if not groups:
        raise NotFoundError(
            f"no group of {broadcast!r} {track!r} is in that range",
            advice="casfs ls --json tells from when to when there are groups",
        )
    return sorted(groups, key=lambda group: (group.epoch, group.sequence))


def _read(archive: Archive, digest: Digest) -> bytes:
    descriptor = archive.objects.open(digest)
    try:
        with open(descriptor, "rb") as file:
            data = file.read()
    except OSError as error:
        raise storage_error(error, "reading", archive.objects.path(digest)) from error
    if digest_of(data) != digest:
        _refuse(digest)
    return data


def _read_needed(archive: Archive, digest: Digest) -> bytes:
    """Read an object that a record names: that it is not there is damage."""
    try:
        return _read(archive, digest)
    except ObjectNotFoundError:
        raise DamagedObjectError(
            f"object {digest} is missing", advice="casfs verify names every group that needs it"
        ) from None


def _refuse(digest: Digest) -> NoReturn:
    raise DamagedObjectError(
        f"object {digest} is damaged: its bytes do not hash to its name",
        advice="casfs verify names every group that needs it",
    )


def _write(data: bytes) -> None:
    if os.isatty(sys.stdout.fileno()) and b"\0" in data[:4096]:
        raise ConfigError("this is binary data", advice="send it to a file or a player")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
