"""Many of these tests shut filesystems down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mounts import filesystems_are_cut

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def turn_of_cut_filesystems() -> Iterator[None]:
    """Let no container start in the middle of a test."""
    with filesystems_are_cut():
        yield
