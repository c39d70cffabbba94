"""``casfs import``: take in what other programs have kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from casfs.adopt.files import import_files
from casfs.adopt.report import Totals
from casfs.adopt.tree import import_tree
from casfs.cli.options import RootFlags, pass_roots, sync_strategy_option
from casfs.cli.output import print_json, printable, progress_console, say
from casfs.cli.watching import Watching
from casfs.errors import ConfigError, DamageError
from casfs.quantities import format_bytes

if TYPE_CHECKING:
    from casfs.adopt.report import Tell
    from casfs.adopt.source import Problem
    from casfs.archive import Archive


@click.command("import")
@click.argument(
    "sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(exists=True)
)
@click.option(
    "--manifests",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Where the manifests are.  [default: SOURCE/manifests if it exists, else SOURCE]",
)
@click.option("--files", "as_files", is_flag=True, help="SOURCEs are files: each becomes a group.")
@click.option(
    "--name", "broadcast", help="Import as this broadcast; with --files it must be given."
)
@click.option("--track", help="The track that the files become groups of.")
@sync_strategy_option
@click.option("--dry-run", is_flag=True, help="Show what would be imported; change nothing.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object for each problem, and a summary as the last one.",
)
@pass_roots
def import_command(
    flags: RootFlags,
    sources: tuple[str, ...],
    *,
    manifests: str | None,
    as_files: bool,
    broadcast: str | None,
    track: str | None,
    sync_strategy: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import a tree of objects and manifests, or plain files with --files.

    SOURCE is a directory with objects/blake3/aa/HASH.bin, as `ec-node wt-archive` and `casfs
    export` write it; the manifests (*.jsonl) list the groups. Names, times and sequences are kept;
    where a sequence comes again with other bytes a new epoch begins. Each object is checked against
    its hash. What the archive holds already is not imported again, so an import may be repeated or
    continued at any time. What is missing, damaged or unreadable is reported, everything else is
    imported, and the exit code is 3.

    A file becomes one group behind the last of its track, received when it was last modified.

    \b
    Example:
      casfs import --manifests /var/lib/ec/manifests /tank/ec/archive --dry-run
      casfs import /media/usb/hour --json | tail -n 1 | jq .groups
      casfs import --files --name demo/tv --track clips ad-1.mp4 ad-2.mp4
    """
    archive = flags.archive(sync_strategy=sync_strategy)
    totals = Totals()

    def tell(problem: Problem) -> None:
        if as_json:
            print_json(problem)
        else:
            _print_problem(problem)

    def text() -> str:
        return f"{totals.lines} lines, {totals.groups} groups, {format_bytes(totals.bytes)}"

    with Watching(progress_console(), text):
        if as_files:
            if broadcast is None or track is None:
                raise ConfigError(
                    "it is not said what the files become", advice="give --name and --track"
                )
            if manifests is not None:
                raise ConfigError("files have no manifests", advice="leave out --manifests")
            import_files(
                archive, sources, broadcast, track, tell=tell, dry_run=dry_run, totals=totals
            )
        else:
            _tree(archive, sources, manifests, track, broadcast, tell, totals, dry_run=dry_run)
    if as_json:
        print_json(_summary(totals, dry_run=dry_run))
    else:
        _print(totals, dry_run=dry_run)
    if totals.problems:
        raise DamageError(
            f"{totals.problems} problem(s) in the source",
            advice="everything else was imported" if not dry_run else "nothing was changed",
        )


def _tree(
    archive: Archive,
    sources: tuple[str, ...],
    manifests: str | None,
    track: str | None,
    broadcast: str | None,
    tell: Tell,
    totals: Totals,
    *,
    dry_run: bool,
) -> None:
    if len(sources) != 1 or not os.path.isdir(sources[0]):
        raise ConfigError(
            "SOURCE is not one directory", advice="give --files to import files as groups"
        )
    if track is not None:
        raise ConfigError("--track goes with --files", advice="the manifests name the tracks")
    objects = sources[0]
    if manifests is None:
        beside = os.path.join(objects, "manifests")
        manifests = beside if os.path.isdir(beside) else objects
    import_tree(
        archive,
        objects,
        manifests,
        tell=tell,
        broadcast=broadcast,
        dry_run=dry_run,
        totals=totals,
    )


def _summary(totals: Totals, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "lines": totals.lines,
        "other_lines": totals.other_lines,
        "groups": totals.groups,
        "bytes": totals.bytes,
        "known": totals.known,
        "new_objects": totals.new_objects,
        "new_bytes": totals.new_bytes,
        "epochs": totals.epochs,
        "problems": totals.problems,
    }


def _print_problem(problem: Problem) -> None:
    place = printable(problem.file)
    if problem.line is not None:
        place += f" line {problem.line}"
    group = ""
    if problem.hash is not None:
        names = f"{printable(problem.broadcast or '')} {printable(problem.track or '')}"
        group = f" ({names} sequence {problem.sequence}, object {problem.hash})"
    say(f"{problem.problem:<10} {place}: {printable(problem.reason)}{group}")


def _print(totals: Totals, *, dry_run: bool) -> None:
    done = "would be imported" if dry_run else "imported"
    epochs = f", {totals.epochs} new epoch(s)" if totals.epochs else ""
    say(
        f"{totals.groups} groups, {format_bytes(totals.bytes)}, {done}{epochs}; "
        f"{totals.known} were in the archive already"
    )
    if not dry_run and totals.groups:
        say(f"{totals.new_objects} objects, {format_bytes(totals.new_bytes)}, are new in the store")
