"""``casfs config``: which settings are in force, and whether a file is sound."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, say
from casfs.cli.settings_options import written
from casfs.config import Settings, load
from casfs.config.entries import entries
from casfs.errors import ConfigError

if TYPE_CHECKING:
    from casfs.config import Loaded


@click.group("config")
def config_group() -> None:
    """Look at the settings: casfs config show, casfs config check."""


@config_group.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def show_command(flags: RootFlags, *, as_json: bool) -> None:
    """Show every setting in force and where it comes from: default, file, environment or flag.

    Of URLs only that is shown which is no secret.

    \b
    Example:
      casfs config show
      casfs --config /etc/casfs/config.toml config show --json
    """
    loaded = flags.load(os.environ, {})
    values = _values(loaded)
    if as_json:
        print_json(
            {
                "file": loaded.file,
                "settings": {
                    name: {"value": value, "origin": str(loaded.origins[name])}
                    for name, value in values.items()
                },
            }
        )
        return
    table = ""
    for entry in entries(Settings):
        if entry.table != table:
            table = entry.table
            say(f"\n[{table}]")
        value = values[entry.name]
        shown = "not set" if value in (None, [], {}) else _toml(value)
        say(f"{entry.key} = {shown}  # {loaded.origins[entry.name]}")


@config_group.command("check")
@click.argument("file", type=click.Path(dir_okay=False))
def check_command(file: str) -> None:
    """Check a configuration file, and say on which line it is wrong; nothing is done with it.

    Looks at names, types and limits. Whether roots, relays and directories are there shows when
    they are used.

    \b
    Example:
      casfs config check /etc/casfs/config.toml
    """
    loaded = load({}, {}, file)
    for key in ("directory", "announced-by", "relay-url", "metrics"):
        value = getattr(loaded.settings.auto_archive, key.replace("-", "_"))
        name = f"auto-archive.{key}"
        try:
            _check_addresses(key, value)
        except ConfigError as error:
            where = loaded.origins[name].where
            raise ConfigError(f"{where}: {name}: {error.message}", advice=error.advice) from None
    say(f"{file} is sound")


def _check_addresses(key: str, value: object) -> None:
    from ingest.directory import check_source_url
    from ingest.plan import loopback_address
    from ingest.relay_url import parse_relay_url

    checks = {"directory": check_source_url, "metrics": loopback_address}
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    for one in values:
        checks.get(key, parse_relay_url)(one)


def _values(loaded: Loaded) -> dict[str, object]:
    found: dict[str, object] = {}
    for entry in entries(Settings):
        holder = loaded.settings
        table = entry.table.replace("-", "_")
        value = getattr(getattr(holder, table) if table else holder, entry.member)
        if entry.key in ("directory", "announced-by"):
            value = [shown_url(url) for url in value]
        elif entry.key == "relay-url" and value is not None:
            value = shown_url(value)
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, float):
            value = written(value)
        found[entry.name] = value
    return found


def shown_url(url: str) -> str:
    """Return what of a URL is fit to be seen: neither user nor query."""
    parts = urlsplit(url)
    hidden = "?..." if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{hidden}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, int):
        return str(value)
    import json

    return json.dumps(value, ensure_ascii=False)
