"""How a payload is called among the sample tables: by what it is, not by where it was recorded."""

from __future__ import annotations

from msgspec import Struct

from casfs.digest import Digest, digest_of

_PART_BYTES = 8


class PayloadName(Struct, frozen=True, gc=False):
    """Which payload, and what it is taken for."""

    object: Digest
    offset: int
    size: int
    track: str
    init: Digest | None

    def key(self) -> tuple[bytes, bytes]:
        """Return the primary key of its row (`casfs.index.samples`)."""
        said = f"{self.offset} {self.size} {self.init or ''} {self.track}"
        return bytes.fromhex(self.object), bytes.fromhex(digest_of(said.encode()))[:_PART_BYTES]
