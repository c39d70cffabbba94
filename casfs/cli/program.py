"""The ``casfs`` program: its commands, and how every failure ends."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

import click

from casfs import __version__
from casfs.cli.deferred import DeferredCommand
from casfs.cli.options import root_options
from casfs.cli.output import CurrentStderrHandler, ReaderGoneError, guard_output
from casfs.errors import CasfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

_EPILOG = """\b
Exit codes:
  0  done and sound            5  archive missing, foreign or locked
  1  unexpected failure (bug)  6  relay or network
  2  wrong usage or settings   7  disk full or I/O error
  3  damage found            130  interrupted
  4  not found
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="casfs")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for debugging.")
@root_options
def program(verbose: int) -> None:
    """Keep live television from MoQ relays: archive it, prove it, browse it.

    The archive has two roots: the CAS root holds the objects, the manifest root says what they
    are. Name them by option, environment (CASFS_CAS_ROOT, CASFS_MANIFEST_ROOT) or configuration
    file.

    \b
    Example:
      casfs init --cas-root /pool/cas --manifest-root /fast/manifests
      export CASFS_CAS_ROOT=/pool/cas CASFS_MANIFEST_ROOT=/fast/manifests
      casfs archive --url https://relay.example/anon --name demo/tv
      casfs verify
      casfs mount /mnt/tv
    """
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(
        level=levels[min(verbose, 2)],
        handlers=[CurrentStderrHandler()],
        format="casfs: %(levelname)s: %(message)s",
    )
    logging.getLogger("quic").setLevel(logging.ERROR)


_COMMANDS = {
    "archive": (
        "archive:archive_command",
        "Record a broadcast from a MoQ relay until it is told to stop.",
    ),
    "auto-archive": (
        "auto_archive:auto_archive_command",
        "Record every broadcast that a directory lists, for as long as it is on air.",
    ),
    "broadcasts": (
        "broadcasts:broadcasts_command",
        "List the broadcasts that a relay announces.",
    ),
    "cat": (
        "cat:cat_command",
        "Write the groups of a TRACK, in order, or one object given by its hash, to stdout.",
    ),
    "collect": (
        "collect:collect_command",
        "Take objects off the disk that only expired hours need: first into a trash.",
    ),
    "config": (
        "config:config_group",
        "Look at the settings: casfs config show, casfs config check.",
    ),
    "expire": (
        "expire:expire_command",
        "Decide which hours need not be kept any longer; they do not show any more then.",
    ),
    "export": (
        "export:export_command",
        "Export groups of a BROADCAST to the new directory or MP4 file TARGET.",
    ),
    "import": (
        "import_:import_command",
        "Import a tree of objects and manifests, or plain files with --files.",
    ),
    "index": (
        "index:index_group",
        "Look after the index, a mirror of the manifests that can always be made anew.",
    ),
    "init": (
        "init:init_command",
        "Make an archive in two empty or new directories.",
    ),
    "ls": (
        "ls:ls_command",
        "List broadcasts and tracks; PATTERN is a broadcast's name or a glob.",
    ),
    "mount": (
        "mount:mount_command",
        "Show the archive at MOUNTPOINT, read-only and live, until it is unmounted.",
    ),
    "restore": (
        "collect:restore_command",
        "Bring expired hours back, with their objects from the trash.",
    ),
    "show": (
        "show:show_command",
        "Show one group of a TRACK, or one object given by its hash.",
    ),
    "stats": (
        "stats:stats_command",
        "Count objects, groups and bytes; PATTERN is a broadcast's name or a glob.",
    ),
    "status": (
        "status:status_command",
        "Show what every recorder of the archive last reported, and how long the disks will last.",
    ),
    "verify": (
        "verify:verify_command",
        "Read every manifest line and every object that they need, and report all damage.",
    ),
    "wt-archive": (
        "archive:archive_command",
        "Record a broadcast from a MoQ relay until it is told to stop.",
    ),
}
"""Of each command: its module and name below `casfs.cli`, and the first sentence of its help."""

for _name, (_place, _summary) in _COMMANDS.items():
    program.add_command(DeferredCommand(_name, f"casfs.cli.{_place}", _summary))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on ``arguments`` (by default the process's) and exit with its code."""
    guard_output()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; what went wrong stands on stderr, on one line."""
    try:
        program.main(args=arguments, prog_name="casfs", standalone_mode=False)
        sys.stdout.flush()
    except CasfsError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        _complain(f"{error.format_message()}; see casfs --help")
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return INTERRUPTED
    except ReaderGoneError:
        return 0
    return 0


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):
        print(f"casfs: error: {message}", file=sys.stderr)
