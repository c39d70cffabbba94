"""The power goes while recorders write, on real filesystems: tools/crash, a few rounds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.crashes.disk import FILESYSTEMS, UnavailableError
from tools.crashes.power import VARIANTS, Variant, broken, power

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.crashes.results import Row


def run(campaign: Iterator[Row]) -> Row:
    try:
        (row,) = campaign
    except UnavailableError as error:
        pytest.skip(str(error))
    return row


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_was_acknowledged_survives_a_power_cut(filesystem: str, variant: Variant) -> None:
    row = run(power([filesystem], rounds=2, seed=7, variants=[variant]))
    assert row.found == ()
    assert row.passed
    assert row.rounds == 2
    assert row.kept >= 6 * variant.writers


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_was_acknowledged_by_syncfs_survives_a_power_cut(filesystem: str) -> None:
    row = run(power([filesystem], rounds=2, seed=7, variants=VARIANTS[:1], strategy="syncfs"))
    assert row.found == ()
    assert row.rounds == 2
    assert row.kept >= 6


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_writer_that_never_syncs_does_not_survive_it(filesystem: str) -> None:
    """So the cut is one, and the test above could fail."""
    row = run(broken([filesystem], rounds=10, seed=7, writers=["no-sync"]))
    assert row.passed, row.verdict
    assert row.found
