"""What real relays said, stream by stream, and what they did to it: the beginnings of all examples.

Most vectors are what moq-rs and aiomoqt send, some shortened; a piece is what one stream brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

_LITE: Final = (
    "010e0201010105 08c0173dd52f0e50df",  # SETUP of 05
    "010100",
    "09c0173dd52f0e50df01 120107 64656d6f2f7476 01c00442e51c4c95af",  # ANNOUNCE of 05
    "1a0107 64656d6f2f7476 02c007e44aff02c63cc0173dd52f0e50df",  # ... of 04
    "0a0007 64656d6f2f7476 00",
    "09c0173dd52f0e50df01 001307 64656d6f2f7476 01c019150dce9034d30101",  # ... of 06
    "010100",
    "087f005388800f4240",  # TRACK_INFO of 05
    "077f5388800f4240",  # ... of 06
    "00050a00000000",  # SUBSCRIBE_OK of 04
    "00010b",  # ... of 05
    "010106",  # SUBSCRIBE_END
    "0203000203",  # SUBSCRIBE_DROP
    "00020001",  # an empty group
    "000200020a00",
    "00020000 8004e200 05 68656c6c6f 02 00",  # a group of 05
    "00020000 05 68656c6c6f 00",  # ... of 04
    "0003000100 8004e200 05 68656c6c6f 02 01 78",  # ... of 06
    "05 06 05 6874747073",  # GOAWAY
)
_MOQT: Final = (
    "21001a c0000000ff00000e 02 024 03e8 0700",  # SERVER_SETUP of 14, cut about
    "21000d c0000000ff00000e 01 02 43e8",
    "210004 01 02 43e8",  # ... of 16
    "af000000",  # SETUP of 18
    "040006 00 00 00 02 00 00",  # SUBSCRIBE_OK of 14
    "040005 00 00 01 08 00",  # ... of 16
    "04000a 00 08cf4240 068080 1402",  # ... of 18
    "050008 00 04 04 676f6e65 00",
    "050006 10 00 02 6e6f 00",
    "1906 0180 00 0510 80027100 05 68656c6c6f",  # subgroups of 14
    "1900 0180 00 00 05 68656c6c6f",
    "1000 01 00 80 00 05 68656c6c6f",
    "5900 0180 00 0410c27100 05 68656c6c6f",  # ... of 18
    "1800 0480 00 00 04",  # the end of a track
    "1500 01 00 80 00 02 6869 01 00 03",
    "0b0005 00 02 05 00 00",  # PUBLISH_DONE
    "070002 00 00",
    "080005 01 02 7476 00",  # NAMESPACE
    "0e0004 01 02 7476",
    "06000c 01 02 04 64656d6f 02 7476 00",  # PUBLISH_NAMESPACE
    "12000100",
    "180008 02 01 00 01 00 00 00",  # FETCH_OK
    "0502 01 00 00 00 00 05 68656c6c6f",  # a fetch's groups
    "0502 1c 01 00 00 05 68656c6c6f",
    "100006 05 6874747073",  # GOAWAY
    "1d0010 01 02 04 64656d6f 02 7476 01 76 00 01 00",  # PUBLISH
)


def _read(lines: Sequence[str]) -> tuple[bytes, ...]:
    plain = (line.replace(" ", "") for line in lines)
    return tuple(bytes.fromhex(line[: len(line) // 2 * 2]) for line in plain)


CORPUS: Final = {"moq-lite": _read(_LITE), "moqt": _read(_MOQT)}
"""By the beginning of the protocol's name."""

CAPSULES: Final = _read(["68431000000002 756e617574686f72697a6564", "00", "684300", "c000"])
"""On the stream of the CONNECT request."""


def pieces(protocol: str) -> st.SearchStrategy[bytes]:
    """Return what a relay of the protocol may say, true or mangled."""
    known = st.sampled_from(CORPUS["moqt" if protocol.startswith("moqt") else "moq-lite"])
    return known | mangled(known) | st.binary(max_size=60) | st.builds(bytes.__add__, known, known)


@st.composite
def mangled(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Change, cut or stretch what ``source`` gives."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from("xidr")):
            case "x" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case "i":
                data[place:place] = draw(st.binary(min_size=1, max_size=9))
            case "d":
                del data[place : place + draw(st.integers(1, 4))]
            case _:
                data[place:place] = b"\xff" * draw(st.integers(1, 9))
    return bytes(data)
