"""What a recorder is doing, for whoever looks: a display, a log line, a summary."""

from __future__ import annotations

from msgspec import Struct, field


class TrackState(Struct):
    """Counters of one track in this session of recording."""

    status: str = "waiting"
    """``waiting``, ``subscribed``, ``refused``, ``ended``."""
    groups: int = 0
    """Groups recorded and acknowledged."""
    bytes: int = 0
    """Their payload."""
    incomplete: int = 0
    """Of these, cut short."""
    redelivered: int = 0
    """Groups that came again and were recorded already."""
    gaps: int = 0
    """Stretches recorded as missed."""
    last_sequence: int = -1
    last_received: int = 0
    """Nanoseconds UTC; 0 before the first group."""


class RecorderState(Struct):
    """The recorder as a whole."""

    broadcast: str
    status: str = "starting"
    """``connecting``, ``waiting for the broadcast``, ``recording``, ``waiting to reconnect``,
    ``stopping``, ``stopped``."""
    relay: str = ""
    """Scheme, host and port."""
    protocol: str = ""
    connections: int = 0
    """Sessions that came about."""
    announced: bool = False
    """Whether the relay offered the broadcast at least once."""
    epoch: int = 1
    trouble: str = ""
    """Why the disk does not take what came; empty while it does."""
    relay_trouble: str = ""
    """Why there is no session with the relay; empty while there is one."""
    index_trouble: str = ""
    """Why the index lags, if it does."""
    new_bytes: int = 0
    """Bytes of objects that were not in the store before."""
    pending_groups: int = 0
    """Groups received and not acknowledged yet."""
    tracks: dict[str, TrackState] = field(default_factory=dict)

    def track(self, name: str) -> TrackState:
        """Return the counters of a track, from zero if it is new."""
        return self.tracks.setdefault(name, TrackState())

    @property
    def groups(self) -> int:
        """Groups of all tracks."""
        return sum(track.groups for track in self.tracks.values())

    @property
    def bytes(self) -> int:
        """Bytes of all tracks."""
        return sum(track.bytes for track in self.tracks.values())

    @property
    def gaps(self) -> int:
        """Gaps of all tracks."""
        return sum(track.gaps for track in self.tracks.values())

    @property
    def dedup_ratio(self) -> float:
        """Payload bytes for each byte newly stored; 1 if nothing was stored twice."""
        return self.bytes / self.new_bytes if self.new_bytes else 1.0
