"""``casfs export``: a span of a broadcast as files of its own, or as one that plays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from casfs.cli.options import Instant, RootFlags, pass_roots
from casfs.cli.output import print_json, printable, progress_console, say
from casfs.cli.watching import Watching
from casfs.errors import ConfigError, DamageError
from casfs.export.files import export_files
from casfs.export.manifest import Progress, Span
from casfs.export.placing import Way
from casfs.export.recording import ExportedRecording, export_recording
from casfs.quantities import format_bytes

if TYPE_CHECKING:
    from casfs.export.manifest import Exported, Lacking


@click.command("export")
@click.argument("broadcast")
@click.argument("target", type=click.Path())
@click.option("--track", "tracks", multiple=True, help="Only this track; may be given often.")
@click.option("--since", type=Instant(), help="Only groups received at this time or later.")
@click.option("--until", type=Instant(), help="Only groups received before this time.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["files", "mp4"]),
    default="files",
    show_default=True,
    help="A directory of objects and manifests, or one MP4 that plays.",
)
@click.option(
    "--link",
    type=click.Choice([way.value for way in Way]),
    default=Way.AUTO.value,
    show_default=True,
    help="How objects get to a directory: sharing their blocks, as hard links, or copied. auto"
    " takes the first of these that works.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was exported as one JSON object.")
@pass_roots
def export_command(
    flags: RootFlags,
    broadcast: str,
    target: str,
    *,
    tracks: tuple[str, ...],
    since: int | None,
    until: int | None,
    kind: str,
    link: str,
    as_json: bool,
) -> None:
    """Export groups of a BROADCAST to the new directory or MP4 file TARGET.

    A directory holds the objects, each checked against its hash, and the manifest lines as they are
    stored; `casfs import` takes it into another archive. An MP4 holds the media as they came, with
    an index that lets players open it at once and seek; time 0 is when its first group was
    received. Where a codec changes, TARGET-2.mp4 goes on.

    While it grows it is called TARGET.partial, and it is removed if the export fails. If objects
    are damaged or missing, all others are exported to TARGET.incomplete, with exit code 3. Nothing
    is ever overwritten. A hard link is the archive's own file under a further name: never write to
    one.

    \b
    Example:
      casfs export demo/tv --since 2026-11-22T13:00:00Z --until 2026-11-22T14:00:00Z /media/usb/hour
      casfs export demo/tv --since 2026-11-22T13:00:00Z --format mp4 afternoon.mp4
      casfs export demo/tv --track video0.m4s --link copy ./video --json | jq .groups
    """
    archive = flags.archive()
    span = Span(broadcast, tracks, since, until)
    progress = Progress()
    if kind == "mp4" and link != Way.AUTO.value:
        raise ConfigError("the objects of a recording cannot be linked", advice="leave out --link")

    def text() -> str:
        return (
            f"{progress.groups} of {progress.groups_total} groups, {format_bytes(progress.bytes)}"
        )

    exported: Exported | ExportedRecording
    with Watching(progress_console(), text):
        if kind == "mp4":
            exported = export_recording(archive, span, target, progress=progress)
        else:
            exported = export_files(archive, span, target, way=Way(link), progress=progress)
    if as_json:
        print_json(exported)
    else:
        for lacking in exported.lacking:
            say(_lacking(lacking))
        for line in exported.passed_over:
            say(f"passed over  {printable(line.track)} commit {line.n}: {line.reason}")
        if isinstance(exported, ExportedRecording):
            _print_recording(exported)
        else:
            _print_files(exported)
    if not exported.complete:
        raise DamageError(
            f"{len(exported.lacking)} group(s) lack in what was exported, and"
            f" {len(exported.passed_over)} manifest line(s) were passed over",
            advice="casfs verify names all damage",
        )


def _print_files(exported: Exported) -> None:
    ways = ", ".join(
        f"{count} {name}"
        for name, count in (
            ("sharing blocks", exported.reflinked),
            ("hard-linked", exported.hard_linked),
            ("copied", exported.copied),
        )
        if count
    )
    say(
        f"{exported.groups} groups of {printable(exported.broadcast)} in {exported.objects} objects"
        f" ({ways or 'none'}), {format_bytes(exported.bytes)}, are in {exported.target}"
    )


def _print_recording(exported: ExportedRecording) -> None:
    for left_out in exported.left_out:
        say(
            f"left out  {left_out.groups} group(s) of {printable(left_out.track)}: "
            f"{left_out.reason}"
        )
    for file in exported.files:
        tracks = ", ".join(map(printable, file.tracks))
        say(
            f"{file.duration:.1f} s of {printable(exported.broadcast)} ({tracks}) from "
            f"{file.start}, {format_bytes(file.bytes)}, are in {file.path}"
        )


def _lacking(lacking: Lacking) -> str:
    return (
        f"lacking   {printable(lacking.track)} epoch {lacking.epoch} sequence {lacking.sequence}: "
        f"object {lacking.hash} ({lacking.reason})"
    )
