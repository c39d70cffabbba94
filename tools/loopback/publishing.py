"""The inside of a publisher process: commands come in, ``moq-rs`` carries them out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import moq
import msgspec

from tools.loopback.commands import (
    AbortGroup,
    Announce,
    Command,
    Confirmation,
    CreateBroadcast,
    CreateGroup,
    CreateTrack,
    EndBroadcast,
    FinishContainer,
    FinishGroup,
    FinishTrack,
    OpenContainer,
    ReadCatalog,
    SetCatalogSection,
    Unannounce,
    WriteContainer,
    WriteFrames,
)
from tools.loopback.process import START_TIMEOUT
from tools.loopback.service import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_COMMAND_TIMEOUT = 10.0
"""Seconds; shorter than the one who waits for the confirmation waits."""


class _Broadcasts:
    """Carries out commands on a connection."""

    def __init__(self, client: moq.Client) -> None:
        self._client = client
        self._broadcasts: dict[str, moq.BroadcastProducer] = {}
        self._tracks: dict[tuple[str, str], moq.TrackProducer] = {}
        self._containers: dict[str, moq.ContainerStreamProducer] = {}
        self._groups: dict[tuple[str, str, int], moq.GroupProducer] = {}

    async def carry_out(self, command: Command) -> Confirmation:
        match command:
            case CreateGroup():
                return self._create_group(command)
            case WriteFrames():
                group = self._group(command)
                _write(group, command.frames, command.timestamps)
            case FinishGroup():
                self._group(command).finish()
                self._forget_group(command)
            case AbortGroup():
                self._group(command).abort(command.code)
                self._forget_group(command)
            case CreateTrack() | FinishTrack():
                self._track(command)
            case OpenContainer() | WriteContainer() | FinishContainer():
                self._container(command)
            case ReadCatalog():
                return await self._read_catalog(command.broadcast)
            case _:
                self._broadcast(command)
        return Confirmation()

    def _broadcast(
        self,
        command: CreateBroadcast | Announce | Unannounce | EndBroadcast | SetCatalogSection,
    ) -> None:
        if isinstance(command, CreateBroadcast):
            created = self._client.create_broadcast(command.broadcast)
            self._broadcasts[command.broadcast] = created
            return
        broadcast = self._broadcasts[command.broadcast]
        match command:
            case Announce():
                broadcast.announce()
            case Unannounce():
                broadcast.unannounce()
            case SetCatalogSection():
                broadcast.set_catalog_section(command.section, msgspec.json.decode(command.value))
            case EndBroadcast():
                broadcast.close()
                del self._broadcasts[command.broadcast]
                for track in [key for key in self._tracks if key[0] == command.broadcast]:
                    del self._tracks[track]
                for group in [key for key in self._groups if key[0] == command.broadcast]:
                    del self._groups[group]

    def _container(self, command: OpenContainer | WriteContainer | FinishContainer) -> None:
        match command:
            case OpenContainer():
                container = moq.ContainerFormat[command.format]
                opened = self._broadcasts[command.broadcast].publish_container_stream(container)
                self._containers[command.broadcast] = opened
            case WriteContainer():
                self._containers[command.broadcast].write(command.data)
            case FinishContainer():
                self._containers.pop(command.broadcast).finish()

    def _track(self, command: CreateTrack | FinishTrack) -> None:
        if isinstance(command, FinishTrack):
            self._tracks[command.broadcast, command.track].finish()
            return
        info = moq.TrackInfo(max_age_us=command.max_age * 1_000_000, timescale=command.timescale)
        broadcast = self._broadcasts[command.broadcast]
        track = broadcast.publish_track(command.track, info)
        self._tracks[command.broadcast, command.track] = track

    def _create_group(self, command: CreateGroup) -> Confirmation:
        track = self._tracks[command.broadcast, command.track]
        frames = list(command.frames)
        for name in command.files:
            with open(name, "rb") as file:
                frames.append(file.read())
        if command.sequence is None:
            group = track.append_group()
        else:
            group = track.create_group(command.sequence)
        _write(group, frames, command.timestamps)
        if command.finish:
            group.finish()
        else:
            self._groups[command.broadcast, command.track, group.sequence] = group
        return Confirmation(sequence=group.sequence)

    def _group(self, command: WriteFrames | FinishGroup | AbortGroup) -> moq.GroupProducer:
        return self._groups[command.broadcast, command.track, command.sequence]

    def _forget_group(self, command: FinishGroup | AbortGroup) -> None:
        del self._groups[command.broadcast, command.track, command.sequence]

    async def _read_catalog(self, broadcast: str) -> Confirmation:
        consumer = await self._broadcasts[broadcast].consume().subscribe_track("catalog.json")
        group = await consumer.recv_group()
        assert group is not None
        frames = [frame.payload async for frame in group]
        consumer.cancel()
        return Confirmation(sequence=group.sequence, frames=tuple(frames))


def _write(group: moq.GroupProducer, frames: list[bytes], timestamps: list[int]) -> None:
    for number, frame in enumerate(frames):
        group.write_frame(frame, timestamps[number] if number < len(timestamps) else 0)


async def publish(url: str, fingerprint: str, lines: AsyncIterator[bytes]) -> None:
    """Connect, and carry out the commands on ``lines`` until they end."""
    client = moq.Client(
        url,
        tls_fingerprints=[fingerprint],
        websocket_enabled=False,
        bind="[::]:0" if "[" in url else "127.0.0.1:0",
    )
    decoder = msgspec.json.Decoder(Command)
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(START_TIMEOUT):
            await stack.enter_async_context(client)
        broadcasts = _Broadcasts(client)
        say(Confirmation())
        async for line in lines:
            try:
                async with asyncio.timeout(_COMMAND_TIMEOUT):
                    answer = await broadcasts.carry_out(decoder.decode(line))
            except (moq.Error, msgspec.DecodeError, OSError, KeyError) as error:
                answer = Confirmation(error=f"{type(error).__name__}: {error}")
            say(answer)
