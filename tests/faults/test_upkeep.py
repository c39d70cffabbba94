"""What looks after an archive is ended at each of its steps: tools/crash upkeep, a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.crashes.disk import UnavailableError
from tools.crashes.keeper import ACTIONS
from tools.crashes.keeping import upkeep

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(filesystems: Sequence[str], action: str, calls: Sequence[str], every: int = 1) -> int:
    try:
        (row,) = upkeep(filesystems, 1, [action], calls, every)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert row.found == ()
    return row.events


@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_what_changes_names_nothing_is_lost(action: str) -> None:
    assert run([], action, ["rename"] if action != "delete" else ["unlink"]) >= 1


@pytest.mark.parametrize(
    ("filesystem", "action"), [("ext4", "collect"), ("xfs", "restore"), ("ext4", "quarantine")]
)
def test_cut_at_some_steps_nothing_is_lost(filesystem: str, action: str) -> None:
    assert run([filesystem], action, [], every=9) >= 1
