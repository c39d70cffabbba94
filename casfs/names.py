"""Untrusted broadcast and track names as single, safe path components.

A relay chooses the names; we choose what may stand on disk. `encode_name` gives each name one
component of at most 255 bytes of plain ASCII, and no two names the same one:

- bytes outside ``A-Z a-z 0-9 . _ - + = , @`` are written ``%XX`` (upper-case hex of the UTF-8
  byte), so ``/``, control bytes, ``%`` and ``~`` never stand for themselves;
- a leading ``.`` or ``@`` is written ``%2E`` or ``%40``: hidden files, ``..`` and our own
  ``@broadcast`` cannot be reached; ``lost+found``, which filesystems claim, is ``%6Cost+found``;
- on a filesystem that folds case, upper-case letters are written ``%XX`` too;
- an encoding longer than 180 bytes is cut there (never inside an escape) and followed by ``~`` and
  the BLAKE3 of the whole name's UTF-8; the empty name is ``~`` alone.

The full name stands in every record, so nothing ever needs to decode a cut component.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from casfs.digest import digest_of
from casfs.errors import InvalidNameError

MAX_NAME_BYTES = 4096
"""The longest name that the archive takes, UTF-8 bytes."""

EMPTY_NAME = "~"
"""The component of the empty name."""

_CUT_AT = 180
_CUT_MARK = "~"
_PLAIN = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+=,@",
)
_NOT_LEADING = frozenset(b".@")
_CLAIMED = b"lost+found"
_FIRST_OF_CLAIMED = frozenset(b"l")
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def encode_name(name: str, *, fold_case: bool = False) -> str:
    """Return the path component that stands for ``name``; distinct names give distinct ones.

    ``fold_case``: the filesystem takes ``A`` and ``a`` for the same name.
    Raises InvalidNameError if the name is not valid Unicode or above `MAX_NAME_BYTES`.
    """
    raw = name_bytes(name)
    if not raw:
        return EMPTY_NAME
    plain = _PLAIN - _UPPER if fold_case else _PLAIN
    not_leading = _FIRST_OF_CLAIMED if raw == _CLAIMED else _NOT_LEADING
    pieces = [
        chr(byte)
        if byte in plain and not (position == 0 and byte in not_leading)
        else f"%{byte:02X}"
        for position, byte in enumerate(raw)
    ]
    # Escapes hold the digits A to F: on a folding filesystem they must not differ by case alone
    # from a plain letter, which they cannot, for a plain name never holds "%".
    encoded = "".join(pieces)
    if len(encoded) <= _CUT_AT:
        return encoded
    cut = ""
    for piece in pieces:
        if len(cut) + len(piece) > _CUT_AT:
            break
        cut += piece
    return f"{cut}{_CUT_MARK}{digest_of(raw)}"


def decode_name(component: str) -> str | None:
    """Return the name that ``component`` stands for; None if it was cut or is not of our making."""
    if component == EMPTY_NAME:
        return ""
    if not component.isascii() or _CUT_MARK in component or "/" in component:
        return None
    try:
        name = unquote_to_bytes(component).decode("utf-8")
    except UnicodeDecodeError:
        return None
    canonical = (encode_name(name), encode_name(name, fold_case=True))
    return name if component in canonical else None


def name_bytes(name: str) -> bytes:
    """Return the name's UTF-8; raise InvalidNameError if it has none or is too long."""
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidNameError(
            f"the name {name[:80]!a} is not valid Unicode",
            advice="names must be encodable as UTF-8",
        ) from None
    if len(raw) > MAX_NAME_BYTES:
        raise InvalidNameError(
            f"the name {name[:40]!r}... has {len(raw)} bytes",
            advice=f"names of at most {MAX_NAME_BYTES} bytes can be archived",
        )
    return raw
