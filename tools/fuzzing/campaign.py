"""What is fuzzed, each a function of a seed that tries some examples and returns their number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, seed, settings

from ingest.backends.choice import available_backends
from ingest.moq.negotiation import PROTOCOLS
from tools.fuzzing.connections import Move, check_connection, moves
from tools.fuzzing.sessions import Step, check_session, scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.backends.choice import BackendName

_SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def targets(*, sessions: int = 100, connections: int = 8) -> dict[str, Callable[[int], int]]:
    """Return every target by its name; the numbers are examples of a round."""
    found: dict[str, Callable[[int], int]] = {}
    for protocol in PROTOCOLS:
        found[f"session {protocol}"] = partial(_sessions, protocol, sessions)
        for backend in available_backends():
            name = f"connection {protocol} {backend}"
            found[name] = partial(_connections, protocol, backend, connections)
    return found


def _sessions(protocol: str, examples: int, number: int) -> int:
    tried = 0

    @seed(number)
    @settings(_SETTINGS, max_examples=examples)
    @given(scripts(protocol))
    def check(script: list[Step]) -> None:
        nonlocal tried
        tried += 1
        check_session(protocol, script)

    check()
    return tried


def _connections(protocol: str, backend: BackendName, examples: int, number: int) -> int:
    tried = 0

    @seed(number)
    @settings(_SETTINGS, max_examples=examples)
    @given(moves(protocol))
    def check(script: list[Move]) -> None:
        nonlocal tried
        tried += 1
        check_connection(protocol, backend, script)

    check()
    return tried
