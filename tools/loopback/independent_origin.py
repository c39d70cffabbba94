"""The inside of an independent origin's process: a server of MoQ transport on PyPI's ``aiomoqt``.

It runs in an environment of its own (`tools.loopback.independent`), so it is a script that needs
nothing but ``aiomoqt``: one command, a JSON object, on each line of stdin, one answer on stdout. It
serves exactly the groups that it was given, and ends when stdin closes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
from typing import Any

from aiomoqt.messages.data import FetchObject  # type: ignore[import-not-found]
from aiomoqt.server import MOQTServer  # type: ignore[import-not-found]
from aiomoqt.types import (  # type: ignore[import-not-found]
    D18MessageType,
    MOQTMessageType,
    RequestErrorCode,
)

_DRAFTS = [18, 16, 14]


class _Track:
    def __init__(self) -> None:
        self.groups: dict[int, list[bytes]] = {}
        self.listeners: list[_Listener] = []


class _Listener:
    """A subscription to a track, asked for or pushed."""

    def __init__(self, session: Any, alias: int, request: int) -> None:
        self.session = session
        self.alias = alias
        self.request = request
        self.streams = 0

    async def send(self, sequence: int, objects: list[bytes], cut: int | None) -> None:
        """Send a group; with ``cut`` only so many objects, and then a reset."""
        session = self.session
        stream = await session.open_uni_stream()
        self.streams += 1
        header = session.subgroup_header(
            track_alias=self.alias, group_id=sequence, subgroup_id=0, publisher_priority=128
        )
        await session.stream_write_drain(stream, header.serialize().data)
        for payload in objects if cut is None else objects[:cut]:
            await session.stream_write_drain(stream, header.next_object_bytes(payload=payload))
        if cut is None:
            session.stream_write(stream, header.end_group().data, end_stream=True)
        else:
            await asyncio.sleep(0.3)  # what was written must be on its way before the reset
            session.stream_reset(stream)


class Origin:
    """Broadcasts, and who listens to them."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._pushed: set[str] = set()
        self._offering: set[asyncio.Task[None]] = set()
        self.asked = {"subscribe": 0, "fetch": 0, "refused": 0}

    # What the clients say

    async def subscribed(self, session: Any, message: Any) -> None:
        """Serve a track, unless its broadcast is one that is pushed."""
        self.asked["subscribe"] += 1
        broadcast = _path(message.track_namespace)
        track = self._tracks.get((broadcast, message.track_name.decode()))
        if track is None or broadcast in self._pushed:
            code = RequestErrorCode.DOES_NOT_EXIST
            session.subscribe_error(request_id=message.request_id, error_code=code, reason="no")
            return
        largest = max(track.groups, default=None)
        known = {}
        if largest is not None:
            known = {
                "content_exists": 1,
                "largest_group_id": largest,
                "largest_object_id": len(track.groups[largest]) - 1,
            }
        answer = session.subscribe_ok(request_msg=message, **known)
        track.listeners.append(_Listener(session, answer.track_alias, message.request_id))

    async def discovered(self, session: Any, message: Any) -> None:
        """Tell what there is: the namespaces that are served, the tracks that are pushed."""
        stream = session._bidi_streams.get(message.request_id)
        session.subscribe_namespace_ok(message, stream_id=stream)
        prefix = _path(message.namespace_prefix)
        for broadcast in sorted({broadcast for broadcast, _ in self._tracks}):
            if not f"{broadcast}/".startswith(f"{prefix}/"):
                continue
            if broadcast in self._pushed:
                if not session._profile.two_level_discovery:
                    self._push_all(session, broadcast)
            elif session._profile.two_level_discovery:
                rest = broadcast.removeprefix(prefix).strip("/")
                session.namespace(tuple(rest.encode().split(b"/")) if rest else (), stream)
            else:
                session.publish_namespace(_namespace(broadcast))

    async def tracks_wanted(self, session: Any, message: Any) -> None:
        """Push the tracks of a broadcast that are asked for (18)."""
        session.subscribe_tracks_ok(message)
        broadcast = _path(message.namespace_prefix)
        if broadcast in self._pushed:
            self._push_all(session, broadcast)

    async def fetched(self, session: Any, message: Any) -> None:
        """Serve one whole group, or the beginning of it."""
        self.asked["fetch"] += 1
        track = self._tracks.get((_path(message.namespace), message.track_name.decode()))
        sequence, end = message.start_group, message.end_object
        objects = None if track is None else track.groups.get(sequence)
        if objects is None:
            code = RequestErrorCode.DOES_NOT_EXIST
            session.fetch_error(request_id=message.request_id, error_code=code, reason="no")
            return
        wanted = objects[: end or len(objects)]
        session.fetch_ok(
            request_id=message.request_id,
            largest_group_id=sequence,
            largest_object_id=end or 0,  # 0: to the end of the group
        )
        served = [
            FetchObject(
                group_id=sequence,
                subgroup_id=0,
                object_id=number,
                publisher_priority=128,
                payload=payload,
            )
            for number, payload in enumerate(wanted)
        ]
        await session.serve_fetch(message.request_id, served)

    def _push_all(self, session: Any, broadcast: str) -> None:
        for (name, track), state in self._tracks.items():
            if name == broadcast:
                task = asyncio.create_task(self._push(session, name, track, state))
                self._offering.add(task)
                task.add_done_callback(self._offering.discard)

    async def _push(self, session: Any, broadcast: str, name: str, track: _Track) -> None:
        message = session.publish(_namespace(broadcast), name, forward=0)
        try:
            await session._await_response(message.request_id, 60)
        except Exception:  # noqa: BLE001 - refused, whatever the class of this draft's error
            self.asked["refused"] += 1
            return
        track.listeners.append(_Listener(session, message.track_alias, message.request_id))

    # What stdin says

    async def carry_out(self, command: dict[str, Any]) -> dict[str, object]:
        """Do what a command says and return the answer."""
        match command["do"]:
            case "create":
                for track in command["tracks"]:
                    self._tracks[command["broadcast"], track] = _Track()
                if command["push"]:
                    self._pushed.add(command["broadcast"])
                return {}
            case "group":
                return await self._group(command)
            case "listeners":
                track = self._tracks[command["broadcast"], command["track"]]
                return {"count": len(track.listeners)}
            case "end":
                await self._end(self._tracks[command["broadcast"], command["track"]])
                return {}
            case "leave":
                for (broadcast, _), track in self._tracks.items():
                    for listener in track.listeners if broadcast == command["broadcast"] else ():
                        listener.session.goaway(command["uri"])
                return {}
            case "asked":
                return dict(self.asked)
            case other:
                raise ValueError(f"{other} is no command")

    async def _group(self, command: dict[str, Any]) -> dict[str, object]:
        track = self._tracks[command["broadcast"], command["track"]]
        objects = [base64.b64decode(item) for item in command["objects"]]
        track.groups[command["sequence"]] = objects
        for listener in () if command["silent"] else list(track.listeners):
            await listener.send(command["sequence"], objects, command["cut"])
        return {}

    async def _end(self, track: _Track) -> None:
        for listener in track.listeners:
            listener.session.subscribe_done(
                request_id=listener.request, stream_count=listener.streams, reason="over"
            )
        track.listeners.clear()

    def server(self, arguments: argparse.Namespace) -> MOQTServer:
        """Return the server, which does not listen yet."""
        server = MOQTServer(
            host="127.0.0.1",
            port=arguments.port,
            certificate=arguments.certificate,
            private_key=arguments.key,
            path="/",
            supported_drafts=_DRAFTS,
        )
        server.register_handler(MOQTMessageType.SUBSCRIBE, self.subscribed)
        server.register_handler(MOQTMessageType.SUBSCRIBE_NAMESPACE, self.discovered)
        server.register_handler(D18MessageType.SUBSCRIBE_TRACKS, self.tracks_wanted)
        server.register_handler(MOQTMessageType.FETCH, self.fetched)
        return server


def _path(namespace: tuple[bytes, ...]) -> str:
    return b"/".join(map(bytes, namespace)).decode()


def _namespace(path: str) -> tuple[bytes, ...]:
    return tuple(path.encode().split(b"/"))


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


async def _serve(arguments: argparse.Namespace) -> None:
    origin = Origin()
    listening = await origin.server(arguments).serve_dual()
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({})
    while line := await reader.readline():
        try:
            answer = await origin.carry_out(json.loads(line))
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        _say(answer)
    listening.close()


def main() -> None:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
