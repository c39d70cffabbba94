"""``casfs show``: one group or one object, and all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, printable, say
from casfs.digest import is_digest, parse_digest
from casfs.errors import ConfigError, DamageError
from casfs.quantities import format_bytes
from casfs.show import LISTED, GroupDescription, ObjectDescription, describe_group, describe_object

if TYPE_CHECKING:
    from casfs.show import ObjectReferences, ObjectState

_SHOWN = 10
_MOST = 100_000


@click.command("show")
@click.argument("broadcast", metavar="BROADCAST|HASH")
@click.argument("track", required=False)
@click.option("--sequence", type=click.IntRange(0), help="Which group of the track.")
@click.option("--epoch", type=click.IntRange(1), help="In which epoch.  [default: the newest]")
@click.option("--check", is_flag=True, help="Read the object and compare it with its hash.")
@click.option(
    "--limit",
    type=click.IntRange(0, _MOST),
    default=LISTED,
    show_default=True,
    help="List up to so many groups that lie in the object.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def show_command(
    flags: RootFlags,
    broadcast: str,
    track: str | None,
    *,
    sequence: int | None,
    epoch: int | None,
    check: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Show one group of a TRACK, or one object given by its hash.

    Tells what was recorded, which manifest line says so, what is on disk, and who else needs the
    object. Exit code 3 means that the object is missing or damaged, or the line is.

    \b
    Example:
      casfs show demo/tv video0.m4s --sequence 42 --check
      casfs show demo/tv init.mp4 --sequence 0 --json | jq .record
      casfs show 2dc99999a6aaef3f20349d2ed4057a2b54419545dabb809e6381de1bad8337e2
    """
    description: GroupDescription | ObjectDescription
    if track is None:
        if not is_digest(broadcast) or sequence is not None or epoch is not None:
            raise ConfigError(
                f"{broadcast!r} alone does not name a group or an object",
                advice="give BROADCAST TRACK --sequence N, or the 64 hexadecimal digits of a hash",
            )
        digest = parse_digest(broadcast)
        description = describe_object(flags.archive(), digest, check=check, most=limit)
    elif sequence is None:
        raise ConfigError(
            "it is not said which group to show", advice="name it by --sequence, see casfs ls"
        )
    else:
        description = describe_group(
            flags.archive(), broadcast, track, sequence, epoch=epoch, check=check, most=limit
        )
    if as_json:
        print_json(description)
    elif isinstance(description, GroupDescription):
        _print_group(description)
    else:
        _print_object(description)
    if description.findings:
        raise DamageError(
            "; ".join(description.findings), advice="casfs verify tells what else is damaged"
        )


def _print_group(group: GroupDescription) -> None:
    _line("broadcast", f"{printable(group.broadcast)}  (number {group.number})")
    _line("track", printable(group.track))
    others = f"  (also in epoch {_commas(group.other_epochs)})" if group.other_epochs else ""
    _line("group", f"sequence {group.sequence}, epoch {group.epoch}{others}")
    _line("received", f"{group.received_start}  to  {group.received_end}")
    complete = "yes" if group.complete else f"no: {group.reason or 'the reason is not known'}"
    _line("complete", complete)
    frames = "" if group.frames is None else f" in {group.frames} frame(s)"
    _line("payload", f"{group.size} bytes{frames}, from byte {group.offset} of the object")
    if group.lacking:
        _line("", f"the last frame lacks {group.lacking} bytes")
    if group.timescale is not None and group.frame_timestamps:
        stamps = group.frame_timestamps
        _line("media time", f"{stamps[0]} to {stamps[-1]}, {group.timescale} units a second")
    if group.recorder is not None:
        source = f"{printable(group.relay or '-')}  ({printable(group.protocol or '-')})"
        _line("relay", source)
        _line("recorder", f"{group.recorder}  ({group.writer}), committed {group.committed}")
    if group.record is not None:
        place = group.record
        _line("record", f"n {group.n}, {place.journal}/{place.segment} byte {place.offset}")
    else:
        _line("record", f"n {group.n}, NO SOUND LINE")
    _print_state("object", group.object)
    if group.init_object is not None:
        _print_state("needs first", group.init_object)
    _print_references(group.references)


def _print_object(described: ObjectDescription) -> None:
    _print_state("object", described.object)
    _print_references(described.references)


def _print_state(name: str, state: ObjectState) -> None:
    _line(name, state.hash)
    _line("", state.path)
    if state.size is not None:
        checked = "" if state.sound is None else "; read: sound" if state.sound else "; read"
        _line("", f"{format_bytes(state.size)} ({state.size}) on disk since {state.mtime}{checked}")
    if state.finding is not None:
        _line("", f"DAMAGE: {state.finding}")


def _print_references(references: ObjectReferences) -> None:
    listed = references.groups[:_SHOWN]
    for at, group in enumerate(listed):
        superseded = "" if group.current else "  (superseded)"
        _line(
            "" if at else "payload of",
            f"{printable(group.broadcast)} {printable(group.track)} epoch {group.epoch} "
            f"sequence {group.sequence}{superseded}",
        )
    if references.groups_total > len(listed):
        _line("", f"and {references.groups_total - len(listed)} more groups")
    for at, use in enumerate(references.init_groups[:_SHOWN]):
        _line(
            "" if at else "needed by",
            f"{use.groups} group(s) of {printable(use.broadcast)} {printable(use.track)} epoch "
            f"{use.epoch}, sequence {use.first_sequence} to {use.last_sequence}",
        )
    if len(references.init_groups) > _SHOWN:
        _line("", f"and by groups of {len(references.init_groups) - _SHOWN} more tracks or epochs")
    if not references.groups_total and not references.init_groups_total:
        _line("needed by", "nobody: no record names it")


def _line(name: str, text: str) -> None:
    say(f"{name:<12} {text}")


def _commas(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
