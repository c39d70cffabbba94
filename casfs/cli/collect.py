"""``casfs collect`` and ``casfs restore``: take what expired off the disk, and bring it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from casfs.cli.expire import Room, room_bytes
from casfs.cli.options import Duration, Instant, RootFlags, pass_roots
from casfs.cli.output import print_json, printable, say
from casfs.collect import Collection, collect
from casfs.digest import Digest, is_digest
from casfs.errors import ConfigError, DamageError
from casfs.quantities import format_bytes
from casfs.restore import RestoredHour, Selection, restore
from casfs.timestamps import HOUR, NANOSECONDS, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.collect import Amount


@click.command("collect")
@click.option(
    "--grace",
    type=Duration(),
    default="7d",
    show_default=True,
    help="How long objects lie in the trash before they are deleted.",
)
@click.option(
    "--min-free",
    type=Room(),
    help="Delete from the trash only until so much is free, as 10% or 500G.",
)
@click.option(
    "--orphans",
    is_flag=True,
    help="Also take objects that no record ever named, if older than the grace period.",
)
@click.option(
    "--accept-damage",
    multiple=True,
    metavar="NAME",
    help="Go on beside damage in a manifest that cannot be mended, by the name that the refusal "
    "gives; may be given often.",
)
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def collect_command(
    flags: RootFlags,
    *,
    grace: float,
    min_free: float | None,
    orphans: bool,
    accept_damage: Sequence[str],
    yes: bool,
    as_json: bool,
) -> None:
    """Take objects off the disk that only expired hours need: first into a trash.

    Deletes what lay in the trash for the grace period, the oldest first. Then moves there what no
    record needs any longer; casfs restore brings it back. Reads all manifests, and refuses if any
    of them is damaged, missing or older than the CAS root remembers. Safe while recorders run.

    Damage that cannot be mended may be accepted by its name, each time anew. Then all that its
    broadcast received about that time stays, from an hour before the lost lines to an hour after.

    \b
    Example:
      casfs collect
      casfs collect --grace 14d --yes
    """
    archive = flags.archive()
    outcome = collect(
        archive,
        grace=int(grace * NANOSECONDS),
        act=yes,
        orphans=orphans,
        min_free=room_bytes(archive, min_free),
        accept=accept_damage,
    )
    for name in accept_damage:
        say(f"damage is accepted: {printable(name)}")
    if as_json:
        print_json(outcome)
    else:
        _print_outcome(outcome)


@click.command("restore")
@click.option("--all", "everything", is_flag=True, help="All that has expired.")
@click.option(
    "--broadcast",
    "broadcasts",
    multiple=True,
    metavar="GLOB",
    help="Only these broadcasts; may be given often.",
)
@click.option("--since", type=Instant(), help="Only hours that end after this time.")
@click.option("--until", type=Instant(), help="Only hours that begin before this time.")
@click.option(
    "--object",
    "objects",
    multiple=True,
    metavar="HASH",
    help="Only hours with a group of this object; may be given often.",
)
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would be restored.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def restore_command(
    flags: RootFlags,
    *,
    everything: bool,
    broadcasts: Sequence[str],
    since: int | None,
    until: int | None,
    objects: Sequence[str],
    yes: bool,
    as_json: bool,
) -> None:
    """Bring expired hours back, with their objects from the trash.

    Each object is checked by its hash. An hour of which an object is gone stays expired; the others
    come back, and the exit code is 3. Whatever is selected, objects in the trash that records need
    (of a journal that came back from a backup, say) are put back too.

    \b
    Example:
      casfs restore --broadcast demo/tv --since 2026-11-20T00:00:00Z
      casfs restore --all --yes
    """
    if not (everything or broadcasts or objects or since is not None or until is not None):
        raise ConfigError(
            "nothing says what to restore",
            advice="give --all, --broadcast, --since, --until or --object",
        )
    wrong = next((text for text in objects if not is_digest(text)), None)
    if wrong is not None:
        raise ConfigError(f"{wrong[:80]!r} is no hash", advice="give 64 hexadecimal digits")
    selection = Selection(tuple(broadcasts), since, until, tuple(map(Digest, objects)))
    restored = restore(flags.archive(), selection, act=yes)
    hours = restored.hours
    lost = [hour for hour in hours if hour.lost]
    if as_json:
        hour_list = [_plain(hour) for hour in hours]
        print_json({"acted": yes, "hours": hour_list, "objects": restored.objects})
    else:
        for hour in hours:
            say(_line(hour))
        done = "restored" if yes else "would be restored: give --yes"
        say(f"{len(hours) - len(lost)} hour(s) {done}")
        if restored.objects:
            say(f"{restored.objects} object(s) that records need {done}")
    if lost:
        raise DamageError(
            f"{len(lost)} hour(s) cannot be restored: objects are gone from the trash, or damaged",
            advice="put the objects back from a backup, or let these hours be",
        )


def _plain(hour: RestoredHour) -> dict[str, object]:
    return {
        "broadcast": hour.broadcast,
        "hour": format_time(hour.hour * HOUR),
        "lost_objects": hour.lost,
    }


def _line(hour: RestoredHour) -> str:
    lost = f"  {hour.lost} object(s) are gone" if hour.lost else ""
    return f"{format_time(hour.hour * HOUR)[:16]}  {printable(hour.broadcast)}{lost}"


def _print_outcome(outcome: Collection) -> None:
    would = "" if outcome.acted else "would be "
    say(f"{_amount(outcome.deleted)} {would}deleted from the trash")
    say(f"{_amount(outcome.trashed)} {would}moved to the trash")
    say(f"{_amount(outcome.waiting)} {'lie' if outcome.acted else 'would lie'} there then")
    if outcome.needed:
        say(f"{outcome.needed} object(s) in the trash are needed: casfs restore puts them back")
    if outcome.protected:
        say(f"{outcome.protected} object(s) stay, which lost lines may need")
    if not outcome.acted:
        say("nothing was changed: give --yes")


def _amount(amount: Amount) -> str:
    return f"{amount.objects} object(s), {format_bytes(amount.bytes)},"
