"""Logs for journald and its like: one JSON object a line, with broadcast and track as members."""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

from casfs.cli.output import CurrentStderrHandler, printable
from casfs.timestamps import NANOSECONDS, format_time

LogFormat = Literal["text", "json"]

_SAID_ALWAYS = ("ingest.reporting", "ingest.supervisor", "ingest.watching", "ingest.sources")


class JsonFormatter(logging.Formatter):
    """One JSON object for each record. ``broadcast``: what the whole process is about."""

    def __init__(self, broadcast: str | None = None) -> None:
        super().__init__()
        self._broadcast = broadcast

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, without a newline."""
        said: dict[str, object] = {
            "time": format_time(int(record.created * NANOSECONDS)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        about = {
            "broadcast": getattr(record, "broadcast", self._broadcast),
            "track": getattr(record, "track", None),
            "state": getattr(record, "report", None),
        }
        said |= {name: value for name, value in about.items() if value is not None}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said).decode()


class TextFormatter(logging.Formatter):
    """The usual line, with the broadcast where a line is about one."""

    def __init__(self, broadcast: str | None = None) -> None:
        super().__init__("casfs: %(levelname)s: %(message)s")
        self._broadcast = broadcast

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = super().format(record)
        broadcast = getattr(record, "broadcast", self._broadcast)
        if broadcast is None:
            return line
        level = f"{record.levelname}: "
        return line.replace(level, f"{level}{printable(broadcast)}: ", 1)


def log_as(form: LogFormat, broadcast: str | None = None) -> None:
    """Log in this form from now on, also what a service tells of its ordinary doings."""
    handler = CurrentStderrHandler()
    handler.setFormatter(JsonFormatter(broadcast) if form == "json" else TextFormatter(broadcast))
    logging.basicConfig(handlers=[handler], force=True, level=logging.getLogger().level)
    for name in _SAID_ALWAYS:
        logging.getLogger(name).setLevel(logging.INFO)
