"""Shows how far a command has come, on a terminal, once it takes over a second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

_BEFORE = 1.0
_EVERY = 0.2


class Watching:
    """Shows what ``text`` returns, renewed five times a second, while the block lasts."""

    def __init__(self, console: Console, text: Callable[[], str]) -> None:
        self._console = console
        self._text = text
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="casfs-progress", daemon=True)

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if self._done.wait(_BEFORE):
            return
        with self._console.status(self._text()) as status:
            while not self._done.wait(_EVERY):
                status.update(self._text())
