"""Units, a configuration file and a user, as text. Pure.

As NixOS writes units: a line for each item of a list, truth as ``true`` and ``false``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tools.units.evaluation import Evaluation, Setting, Unit, User

HEADER = "# Generated from nix/module.nix by `python -m tools.units`: do not edit.\n"

_FIRST = ("Type", "NotifyAccess", "User", "Group")


def render_units(evaluation: Evaluation) -> dict[str, str]:
    """Return the text of each unit by its file's name."""
    services = {f"{name}.service": unit for name, unit in evaluation.services.items()}
    timers = {f"{name}.timer": unit for name, unit in evaluation.timers.items()}
    return {name: render_unit(unit) for name, unit in (services | timers).items()}


def render_unit(unit: Unit) -> str:
    """Return the text of a unit."""
    relations = {
        "Description": unit.description,
        "Documentation": " ".join(unit.documentation),
        "Wants": " ".join(unit.wants),
        "Requires": " ".join(unit.requires),
        "After": " ".join(unit.after),
        "Before": " ".join(unit.before),
    }
    sections = {
        "Unit": [
            *_lines({name: value for name, value in relations.items() if value}),
            *_lines(unit.unit_config),
        ],
        "Service": [
            *(f"Environment={json.dumps(f'{name}={value}')}" for name, value in
              unit.environment.items()),
            *_lines(_in_order(unit.service_config)),
        ],
        "Timer": [*_lines(unit.timer_config)],
        "Install": [f"WantedBy={name}" for name in unit.wanted_by],
    }  # fmt: skip
    return HEADER + "".join(
        f"\n[{name}]\n" + "".join(f"{line}\n" for line in lines)
        for name, lines in sections.items()
        if lines
    )


def render_settings(evaluation: Evaluation) -> str:
    """Return the configuration file (TOML)."""
    return "".join(f"{line}\n" for line in _toml(evaluation.settings, ""))


def render_user(name: str, user: User) -> str:
    """Return what systemd-sysusers makes the user of (sysusers.d(5))."""
    return f'{HEADER}u {name} - "{user.description}" {user.home}\n'


def _in_order(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Put first what a reader looks for first."""
    names = sorted(settings, key=lambda name: (name not in _FIRST, not name.startswith("Exec")))
    return {name: settings[name] for name in names}


def _lines(settings: Mapping[str, Setting]) -> Iterator[str]:
    for name, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"{name}={_text(item)}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml(table: Mapping[str, object], path: str) -> Iterable[str]:
    # JSON's texts, numbers, truths and arrays are TOML's, too.
    for name, value in table.items():
        if not isinstance(value, dict):
            yield f"{name} = {json.dumps(value)}"
    for name, value in table.items():
        if isinstance(value, dict):
            yield ""
            yield f"[{path}{name}]"
            yield from _toml(value, f"{path}{name}.")
