"""What a recorder is told: what to record, from where, and with how much patience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from ingest.credentials import Credentials
from ingest.session import Session, SessionOptions
from ingest.tls import TlsOptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class Connect(Protocol):
    """How to open a session: `ingest.session.open_session`, or one that injects faults."""

    def __call__(
        self, url: str, *, tls: TlsOptions, options: SessionOptions
    ) -> AbstractAsyncContextManager[Session]:
        """Return the session's context."""


class Timers(Struct, frozen=True):
    """When a recorder loses patience, seconds."""

    no_announcement: float = 5.0
    """Then tracks are asked for anyway: not every relay announces."""
    resubscribe: float = 15.0
    """Between tries for a track that was refused or has ended."""
    stall: float = 30.0
    """Without any group for this long all tracks are asked for anew."""
    no_data: float = 60.0
    """Without any group for this long the session is given up."""
    alive: float = 60.0
    """Without any group for this long a record says that we were there."""
    settle: float = 5.0
    """After a reconnect: for redelivery, before what is missing counts as a gap."""
    still_open: float = 30.0
    """A group open for this long is recorded as far as it has come."""
    seal: float = 300.0
    """After its end an hour stays open for so long, for redelivery."""
    leave: float = 60.0
    """A relay that asks us to leave still delivers for so long at most."""


class RecordOptions(Struct, frozen=True):
    """What to record, from where."""

    url: str
    """May hold a token; never logged."""
    broadcast: str
    tracks: tuple[str, ...] = ()
    """Empty: the default ones, and what the broadcast's catalogs name."""
    include: tuple[str, ...] = ()
    """Globs: of the tracks that are not named here, only these."""
    exclude: tuple[str, ...] = ()
    """Globs: of the tracks that are not named here, not these."""
    credentials: Credentials = Credentials()
    tls: TlsOptions = field(default_factory=TlsOptions)
    session: SessionOptions = field(default_factory=SessionOptions)
    timers: Timers = field(default_factory=Timers)
    coalesce: bool = True
    """Whether small groups of fast tracks are committed together."""
