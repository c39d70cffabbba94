"""What no test may touch, the state that the user's own commands keep; and what many share."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says more about the machine than about casfs.
settings.register_profile(
    "casfs", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("casfs")

# A shell has what it runs in the background ignore SIGINT, and programs inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_of_no_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have commands remember what they found in a directory of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("STATE_DIRECTORY", raising=False)
        yield


@pytest.fixture(params=["aioquic", "qh3"])
def quic_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each QUIC library as the only one that is there."""
    name: str = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed (the extra `fast`)")
    monkeypatch.setattr("ingest.backends.choice.available_backends", lambda: (name,))
    return name
