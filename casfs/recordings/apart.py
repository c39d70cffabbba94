"""Puts large recordings together in a process of its own.

A day takes some seconds of processor time and a few hundred megabytes. In the process of a mount
whoever reads would wait for the interpreter meanwhile, and the memory would stay. The child
(`casfs.recordings.building`) leaves the layout in the spool and says how large the files are.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import msgspec

from casfs.children import how_it_ended, start_child
from casfs.index.samples import RecordingSizes
from casfs.recordings.request import BuildRequest

if TYPE_CHECKING:
    from casfs.archive import Archive
    from casfs.recordings.source import RecordingSpan

_LOG = logging.getLogger(__name__)


class BuilderApart:
    """Starts such processes for one archive."""

    def __init__(self, archive: Archive, spool: str) -> None:
        self._archive = archive
        self._spool = spool

    def __call__(self, span: RecordingSpan) -> RecordingSizes | None:
        """Put a recording together and keep it; None if that must be done here, after all."""
        roots = self._archive.roots
        request = BuildRequest(
            *(roots.cas, roots.manifests, self._archive.index_path, self._spool),
            span=span,
        )
        try:
            line = msgspec.json.encode(request) + b"\n"
        except UnicodeEncodeError:  # a path that is no text
            return None
        try:
            with start_child("casfs.recordings.building") as child:
                assert child.stdin is not None
                assert child.stdout is not None
                # Its stdin stays open as long as there is somebody who waits.
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(line)
                    child.stdin.flush()
                answer = child.stdout.read()
        except OSError as error:
            _LOG.warning("no process to put %s together can be started: %s", span, error)
            return None
        if child.returncode != 0:
            _LOG.debug("the process that put %s together %s", span, how_it_ended(child.returncode))
            return None
        return msgspec.json.decode(answer, type=RecordingSizes)
