"""Against a server that shares no code with moq-rs: what it pushes, cuts, keeps back, and leaves.

The server is `tools.loopback.independent_origin`, one for all tests here; each test records one
broadcast in each draft, at the same time.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import GapRecord, GroupRecord
from tests.real.conftest import CertificateAuthority
from tests.real.programs import eventually
from tools.loopback.independent import Unavailable, independent_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import Certificate
    from tests.real.programs import Installation, Program
    from tools.loopback.independent import IndependentOrigin

TRACK = "video0.m4s"
ALL_DRAFTS = ("moqt-18", "moqt-16", "moqt-14")
WITH_FETCH = ("moqt-18", "moqt-16")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def certificate(authority: CertificateAuthority) -> Certificate:
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def origin(certificate: Certificate) -> Iterator[IndependentOrigin]:
    with _running(certificate) as running:
        yield running


@contextmanager
def _running(certificate: Certificate) -> Iterator[IndependentOrigin]:
    try:
        with independent_origin(certificate.certificate, certificate.key) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


class Show:
    """A broadcast of an origin, recorded in one draft; every byte of it by sequence."""

    def __init__(self, origin: IndependentOrigin, name: str, *, push: bool = False) -> None:
        self.name = name
        self.sent: dict[int, bytes] = {}
        self._dice = random.Random(name)
        origin.create(name, TRACK, "a track that nobody wants", push=push)

    def send(
        self,
        origin: IndependentOrigin,
        sequence: int,
        *,
        cut: int | None = None,
        silent: bool = False,
    ) -> None:
        """Send a group of objects of several sizes."""
        objects = [self._dice.randbytes(size) for size in (3000, 1, 40_000)]
        self.sent[sequence] = b"".join(objects)
        origin.group(self.name, TRACK, sequence, objects, cut=cut, silent=silent)

    def wait_for_listener(self, origin: IndependentOrigin, sequence: int) -> None:
        """Send the first group as soon as anybody listens."""
        eventually(lambda: origin.listeners(self.name, TRACK), f"a listener to {self.name}")
        self.send(origin, sequence)


@contextmanager
def recorders(
    installation: Installation,
    authority: CertificateAuthority,
    origin: IndependentOrigin,
    shows: dict[str, Show],
    transport: str,
) -> Iterator[list[Program]]:
    """Record each show in its draft."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                installation.running(
                    *("archive", "--url", origin.url, "--name", show.name, "--track", TRACK),
                    *("--tls-ca", authority.certificate, "--protocol", protocol),
                    *("--transport", transport),
                )
            )
            for protocol, show in shows.items()
        ]


def assert_recorded(installation: Installation, show: Show) -> None:
    """All that was sent is recorded, whole, once, and byte for byte."""
    recorded = installation.recorded(show.name, TRACK)
    assert sorted(recorded) == [(1, sequence) for sequence in sorted(show.sent)]
    outcome = installation.run("cat", show.name, TRACK)
    assert outcome.code == 0, outcome.err
    assert outcome.out == b"".join(payload for _, payload in sorted(show.sent.items()))
    records = installation.records(GroupRecord, show.name, TRACK)
    assert all(record.complete for record in records)
    assert installation.records(GapRecord, show.name, TRACK) == []


def test_a_publisher_that_only_pushes_its_tracks_is_recorded_byte_for_byte(
    installation: Installation, authority: CertificateAuthority, origin: IndependentOrigin
) -> None:
    shows = {draft: Show(origin, f"pushed/{draft}", push=True) for draft in ALL_DRAFTS}
    with recorders(installation, authority, origin, shows, "quic") as programs:
        for show in shows.values():
            show.wait_for_listener(origin, 0)
            for sequence in range(1, 6):
                show.send(origin, sequence)
            origin.end(show.name, TRACK)
        for show in shows.values():
            installation.wait_for(show.name, TRACK, 6)
        for program in programs:
            outcome = program.stop()
            assert outcome.code == 0, outcome.err
    for show in shows.values():
        assert_recorded(installation, show)
    installation.verify_is_sound()


def test_groups_that_were_cut_or_kept_back_are_fetched_whole(
    installation: Installation, authority: CertificateAuthority, origin: IndependentOrigin
) -> None:
    shows = {draft: Show(origin, f"cut/{draft}") for draft in WITH_FETCH}
    with recorders(installation, authority, origin, shows, "webtransport") as programs:
        for show in shows.values():
            show.wait_for_listener(origin, 0)
            show.send(origin, 1, cut=2)
            show.send(origin, 2, silent=True)
            show.send(origin, 3, cut=0)
            show.send(origin, 4)
        for show in shows.values():
            installation.wait_for(show.name, TRACK, 5)
        for program in programs:
            outcome = program.stop()
            assert outcome.code == 0, outcome.err
    for show in shows.values():
        assert_recorded(installation, show)


def test_a_relay_that_says_goaway_is_left_for_where_it_says_and_nothing_is_lost(
    installation: Installation,
    authority: CertificateAuthority,
    certificate: Certificate,
    origin: IndependentOrigin,
) -> None:
    shows = {draft: Show(origin, f"moved/{draft}") for draft in ALL_DRAFTS}
    with (
        recorders(installation, authority, origin, shows, "webtransport") as programs,
        _running(certificate) as successor,
    ):
        for show in shows.values():
            successor.create(show.name, TRACK)
            show.wait_for_listener(origin, 0)
        for show in shows.values():
            origin.leave(show.name, successor.url)
            show.send(origin, 1)  # the old one still delivers
            show.wait_for_listener(successor, 2)
            show.send(successor, 3)
        for show in shows.values():
            installation.wait_for(show.name, TRACK, 4)
        for program in programs:
            outcome = program.stop()
            assert outcome.code == 0, outcome.err
    for show in shows.values():
        assert_recorded(installation, show)
        relays = {
            int(record.sequence): record.relay
            for record in installation.records(GroupRecord, show.name, TRACK)
        }
        assert relays[0] == origin.url.rstrip("/")
        assert relays[3] == successor.url.rstrip("/")
