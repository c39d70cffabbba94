"""Reads settings from where they may stand, and remembers of each from where it came.

The file is TOML: the one named by ``--config`` or ``CASFS_CONFIG``, else the user's
``casfs/config.toml`` below ``XDG_CONFIG_HOME`` (``~/.config``), else ``/etc/casfs/config.toml``.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.config.entries import Entry, entries
from casfs.config.lines import line_of
from casfs.config.schema import Seconds, Settings
from casfs.errors import ConfigError, storage_error
from casfs.quantities import Room, parse_duration, parse_room

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEM_FILE = "/etc/casfs/config.toml"
"""Read when neither flag, environment nor user name a file."""

_MOST_BYTES = 1 << 20


class Origin(Struct, frozen=True):
    """Where a value comes from."""

    kind: str
    """``default``, ``file``, ``environment`` or ``flag``."""
    where: str = ""
    """The file and line, the variable, or the flag."""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}".rstrip()


class Loaded(Struct, frozen=True):
    """The settings in force."""

    settings: Settings
    origins: dict[str, Origin]
    """By the setting's name, such as ``auto-archive.max-workers``."""
    file: str | None
    """The file that was read."""


class _Value(Struct, frozen=True):
    value: object
    origin: Origin


def load(
    flags: Mapping[str, object], environment: Mapping[str, str], file: str | None = None
) -> Loaded:
    """Return the settings in force.

    ``flags``: by the setting's name, as given; None, False and what is empty was not given.
    Raises ConfigError for a file that was asked for and is not there, and for a bad value, whose
    place the message names; StorageError for a file that cannot be read.
    """
    path = file or environment.get("CASFS_CONFIG") or _first(_default_files(environment))
    text = _read(path) if path else ""
    found = _parse(text, path) if path else {}
    chosen: dict[str, _Value] = {}
    for entry in entries(Settings):
        value = _choose(entry, flags, environment)
        if value is None:
            value = _from_file(entry, found, path or "", text)
        if value is not None:
            chosen[entry.name] = value
    origins = {
        entry.name: chosen[entry.name].origin if entry.name in chosen else Origin("default")
        for entry in entries(Settings)
    }
    return Loaded(_assemble(chosen), origins, path)


def load_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], file: str | None = None
) -> Settings:
    """Return the settings in force, as `load`."""
    return load(flags, environment, file).settings


def _default_files(environment: Mapping[str, str]) -> Sequence[str]:
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(
        environment.get("HOME", "/nonexistent"), ".config"
    )
    return [os.path.join(home, "casfs", "config.toml"), SYSTEM_FILE]


def _first(paths: Sequence[str]) -> str | None:
    return next((path for path in paths if os.path.exists(path)), None)


# The file


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"the configuration file {path} does not exist", advice="create it or name another"
        ) from None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    if len(data) > _MOST_BYTES:
        raise _bad_file(path, 0, f"it has more than {_MOST_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _bad_file(path, 0, str(error)) from None


def _parse(text: str, path: str) -> dict[str, object]:
    """Return the file's tables, checked as a whole."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad_file(path, 0, str(error)) from None
    try:
        msgspec.convert(found, Settings, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        place = place.rpartition("$")[2].strip(".`")
        unknown = problem.partition("unknown field `")[2].rstrip("`")
        if unknown:
            place = f"{place}.{unknown}".strip(".")
            problem = _unknown(place)
        else:
            problem = f"{place}: {problem}"
        raise _bad_file(path, line_of(text, place.partition("[")[0]), problem) from None
    return found


def _unknown(name: str) -> str:
    import difflib

    known = [entry.name for entry in entries(Settings)]
    close = difflib.get_close_matches(name, known, n=1)
    return f"there is no setting {name}" + (f", but {close[0]}" if close else "")


def _bad_file(path: str, line: int, problem: str) -> ConfigError:
    where = f"line {line}: " if line else ""
    return ConfigError(
        f"the configuration file {path} is not valid: {where}{problem}",
        advice="docs/commands.md lists all settings",
    )


def _from_file(entry: Entry, found: dict[str, object], path: str, text: str) -> _Value | None:
    value: object = found
    for part in entry.name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    converted = msgspec.convert(value, entry.type, dec_hook=_decode)
    return _Value(converted, Origin("file", f"{path}:{line_of(text, entry.name)}"))


# The environment and the command line


def _choose(
    entry: Entry, flags: Mapping[str, object], environment: Mapping[str, str]
) -> _Value | None:
    given = flags.get(entry.name)
    if given is not None and given is not False and given != ():
        return _Value(_converted(entry, given, entry.flag), Origin("flag", entry.flag))
    variable = environment.get(entry.variable)
    if variable:
        value: object = variable
        if entry.repeats:
            value = tuple(part.strip() for part in variable.split(",") if part.strip())
        return _Value(
            _converted(entry, value, entry.variable), Origin("environment", entry.variable)
        )
    return None


def _converted(entry: Entry, value: object, where: str) -> object:
    try:
        if entry.pairs and isinstance(value, tuple):
            pairs = [str(item).partition("=") for item in value]
            value = {name: field for name, _, field in pairs}
        return msgspec.convert(value, entry.type, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem = str(error).partition(" - at `")[0]
        raise ConfigError(f"{where} is not valid: {problem}") from None


def _decode(kind: type, value: object) -> object:
    """Return what a text says of a type that TOML does not know; raises ValueError."""
    if kind is Seconds:
        if value in ("0", "0s"):
            return Seconds(0)
        if isinstance(value, str):
            return Seconds(parse_duration(value))
        raise ValueError("a duration is a text such as '90s', '15m' or '2h'")
    if kind is Room:
        if isinstance(value, str):
            return parse_room(value)
        raise ValueError("room is a text such as '10G' or '5%'")
    raise NotImplementedError(kind)


def _assemble(chosen: Mapping[str, _Value]) -> Settings:
    """Put values together that are of the right types already."""
    tables: dict[str, dict[str, object]] = {}
    for entry in entries(Settings):
        if entry.name in chosen:
            tables.setdefault(entry.table, {})[entry.member] = chosen[entry.name].value
    defaults = Settings()
    members = tables.pop("", {})
    for name, values in tables.items():
        member = name.replace("-", "_")
        members[member] = msgspec.structs.replace(getattr(defaults, member), **values)
    return msgspec.structs.replace(defaults, **members)
