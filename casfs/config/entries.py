"""The schema as a list: one entry for each setting, for whoever goes through all of them. Pure."""

from __future__ import annotations

import functools
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entry(Struct, frozen=True):
    """A setting."""

    name: str
    """As in the file: ``auto-archive.max-workers``."""
    member: str
    """As in Python, without its table: ``max_workers``."""
    type: Any
    """With its constraints, as msgspec wants it."""
    default: object
    description: str
    metavar: str = ""

    @property
    def table(self) -> str:
        """The table in the file; empty at the top."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The key in that table."""
        return self.name.rpartition(".")[2]

    @property
    def flag(self) -> str:
        """The command line's option."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment's variable."""
        return "CASFS_" + self.name.replace(".", "_").replace("-", "_").upper()

    @property
    def plain(self) -> Any:  # noqa: ANN401  a type
        """The type without constraints and without None."""
        return _plain(self.type)

    @property
    def repeats(self) -> bool:
        """Whether it may be given often: it is an array or a table in the file."""
        return get_origin(self.plain) in (tuple, dict)

    @property
    def pairs(self) -> bool:
        """Whether it is a table in the file, and NAME=VALUE elsewhere."""
        return get_origin(self.plain) is dict

    @property
    def kind(self) -> str:
        """What the file wants to see: ``string``, ``array of strings`` and the like."""
        plain = self.plain
        if get_origin(plain) is Literal:
            return " or ".join(f'`"{value}"`' for value in get_args(plain))
        if get_origin(plain) is tuple:
            return "array of strings"
        if get_origin(plain) is dict:
            return "table of strings"
        names = {str: "string", int: "integer", bool: "boolean"}
        return names.get(plain) or {"Seconds": "duration", "Room": "size or share"}[plain.__name__]


@functools.cache
def entries(schema: type[Struct], table: str = "") -> Sequence[Entry]:
    """Return every setting of a schema, tables after what stands before them."""
    hints = get_type_hints(schema, include_extras=True)
    defaults = schema()
    found: list[Entry] = []
    for member, name in zip(schema.__struct_fields__, schema.__struct_encode_fields__, strict=True):
        full = f"{table}.{name}" if table else name
        hint = hints[member]
        if isinstance(hint, type) and issubclass(hint, Struct):
            found += entries(hint, full)
            continue
        meta = next(item for item in get_args(hint) if isinstance(item, Meta))
        found.append(
            Entry(
                full,
                member,
                hint,
                getattr(defaults, member),
                meta.description or "",
                (meta.extra or {}).get("metavar", ""),
            )
        )
    return found


def _plain(hint: Any) -> Any:  # noqa: ANN401  types
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        (hint,) = [item for item in get_args(hint) if item is not NoneType]
        return _plain(hint)
    return hint
