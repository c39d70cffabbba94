"""The ``casfs`` program: its commands, and how every failure ends."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

import click

from casfs import __version__
from casfs.cli.archive import archive_command
from casfs.cli.auto_archive import auto_archive_command
from casfs.cli.broadcasts import broadcasts_command
from casfs.cli.cat import cat_command
from casfs.cli.collect import collect_command, restore_command
from casfs.cli.config import config_group
from casfs.cli.expire import expire_command
from casfs.cli.export import export_command
from casfs.cli.import_ import import_command
from casfs.cli.index import index_group
from casfs.cli.init import init_command
from casfs.cli.ls import ls_command
from casfs.cli.mount import mount_command
from casfs.cli.options import root_options
from casfs.cli.output import CurrentStderrHandler, ReaderGoneError, guard_output
from casfs.cli.show import show_command
from casfs.cli.stats import stats_command
from casfs.cli.status import status_command
from casfs.cli.verify import verify_command
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


for _command in (
    *(init_command, broadcasts_command, archive_command, auto_archive_command, status_command),
    *(verify_command, ls_command, cat_command),
    *(show_command, export_command, import_command, stats_command),
    *(expire_command, collect_command, restore_command),
    *(mount_command, index_group, config_group),
):
    program.add_command(_command)
program.add_command(archive_command, "wt-archive")


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
