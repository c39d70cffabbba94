"""The short form of tools/fuzz: anything at all, said by a relay, ends in one of our errors."""

from __future__ import annotations

import random

import pytest

from tools.fuzzing.campaign import targets

TARGETS = targets(sessions=40, connections=5)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_a_relay_says_breaks_more_than_its_session(name: str) -> None:
    assert TARGETS[name](random.randrange(2**32)) > 0
