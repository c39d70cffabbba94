"""The groups that a moq-lite session asks for by FETCH; each answer comes on its own stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.moq.events import GroupReceived
    from ingest.moq.groups import OpenGroups
    from ingest.moq.interface import Limits
    from ingest.moq.lite_streams import ControlStream
    from ingest.moq.lite_versions import LiteVersion


class Fetches:
    """Those of one session that are not over. Their groups are among ``groups``."""

    def __init__(
        self,
        version: LiteVersion,
        groups: OpenGroups,
        limits: Limits,
        end_ours: Callable[[ControlStream], None],
    ) -> None:
        """``end_ours`` ends our direction of a stream."""
        self._version = version
        self._groups = groups
        self._limits = limits
        self._end_ours = end_ours
        self._streams: dict[int, ControlStream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def possible(self, subscription: int, sequence: int) -> bool:
        """Whether that group can be asked for now."""
        asked = any(
            (stream.subscription, stream.sequence) == (subscription, sequence)
            for stream in self._streams.values()
        )
        return self._version.fetches and not asked and len(self) < self._limits.fetches

    def add(self, stream: ControlStream) -> None:
        """Note a stream on which a group has been asked for."""
        self._streams[stream.number] = stream

    def begin(self, stream: ControlStream, now: int) -> Sequence[GroupReceived]:
        """Take the first bytes of an answer; the rest goes to the open groups."""
        groups, number = self._groups, stream.number
        groups.open(
            number,
            stream.subscription,
            stream.sequence,
            now,
            self._version.framing,
            fetched=True,
        )
        told = groups.append(number, stream.reader.rest(), now, end=stream.ended)
        self.note(number)
        return told

    def note(self, number: int) -> None:
        """End our direction of a stream, if it is one of these and its group is over."""
        stream = self._streams.get(number)
        if stream is not None and number not in self._groups:
            self.end(stream)

    def end(self, stream: ControlStream) -> None:
        """Forget a fetch that is over."""
        self._streams.pop(stream.number, None)
        self._end_ours(stream)

    def forget(self, subscription: int) -> None:
        """End the fetches of a subscription that is given up."""
        for stream in list(self._streams.values()):
            if stream.subscription == subscription:
                self.end(stream)

    def clear(self) -> None:
        """Forget all."""
        self._streams.clear()
