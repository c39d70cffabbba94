"""What goes wrong is said on one line, with the documented exit code, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Struct

from casfs.digest import digest_of
from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse
from tests.real.programs import CASFS, Installation, Station, eventually
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import CertificateAuthority
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

TV = "demo/tv"
VIDEO = "video0.m4s"
NOBODY = "https://127.0.0.1:9"


class Holdings(Struct, frozen=True):
    """An archive that holds something, for tests that change nothing in it."""

    installation: Installation
    station: Station


@pytest.fixture(scope="module")
def holdings(tmp_path_factory: pytest.TempPathFactory) -> Holdings:
    """Return an archive of three groups."""
    installation = Installation(tmp_path_factory.mktemp("holdings"))
    assert installation.run("init").code == 0
    with (
        running_relay() as relay,
        running_publisher(relay.url, relay.fingerprint) as publisher,
    ):
        station = Station(publisher, TV, VIDEO)
        with installation.recording(relay, TV, "--track", VIDEO) as recorder:
            for number in range(3):
                station.send(VIDEO, b"\0 %d" % number * 1000)
            installation.wait_for(TV, VIDEO, 3)
            assert recorder.stop().code == 0
    return Holdings(installation, station)


@pytest.fixture
def recorded(holdings: Holdings) -> Installation:
    """Return that archive."""
    return holdings.installation


def archive(url: str, *arguments: str, name: str = TV) -> tuple[str, ...]:
    return ("archive", "--url", url, "--name", name, *arguments)


# The relay


def test_nobody_listens_at_the_relay(installation: Installation) -> None:
    outcome = installation.run(*archive(NOBODY, "--tls-insecure", "--duration", "1"))
    assert outcome.code == 6
    assert "nothing listens there" in outcome.complaint


def test_a_relay_that_never_answers_is_told_from_a_broadcast_that_is_not_there(
    installation: Installation, relay: Relay
) -> None:
    relay.process.pause()
    outcome = installation.run(*archive(relay.url, "--tls-insecure", "--duration", "2"))
    relay.process.resume()
    assert outcome.code == 6
    assert "no answer from" in outcome.complaint


def test_another_certificate_than_the_pinned_one(installation: Installation, relay: Relay) -> None:
    outcome = installation.run(*archive(relay.url, "--tls-fingerprint", "00" * 32))
    assert outcome.code == 6
    assert relay.fingerprint in outcome.complaint


def test_a_certificate_that_the_system_does_not_trust(
    installation: Installation, relay: Relay
) -> None:
    outcome = installation.run(*archive(relay.url))
    assert outcome.code == 6
    assert "certificate" in outcome.complaint


def test_a_certificate_of_another_authority_and_of_the_right_one(
    installation: Installation, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    issued = authority.issue("127.0.0.1")
    with running_relay(certificate=issued.certificate, key=issued.key) as relay:
        outcome = installation.run(*archive(relay.url, "--tls-ca", stranger.certificate))
        assert outcome.code == 6
        assert "certificate" in outcome.complaint
        with installation.running(*archive(relay.url, "--tls-ca", authority.certificate)) as known:
            known.says("waiting for the broadcast")  # accepted, but nothing is on air


def test_an_unknown_broadcast_is_waited_for_and_the_wait_ends_by_the_duration(
    installation: Installation, relay: Relay
) -> None:
    with installation.recording(relay, "demo/nothing", "--duration", "3") as recorder:
        recorder.says("waiting for the broadcast")
        outcome = recorder.wait()
    assert outcome.code == 4
    assert "'demo/nothing'" in outcome.complaint


def test_a_refused_session(installation: Installation, relay: Relay) -> None:
    outcome = installation.run(
        *archive(relay.url + "/forbidden", "--tls-fingerprint", relay.fingerprint),
        *("--duration", "2"),
    )
    assert outcome.code == 6
    assert "refused" in outcome.complaint


def test_an_insecure_connection_is_warned_of(installation: Installation, relay: Relay) -> None:
    with installation.running(*archive(relay.url, "--tls-insecure")) as recorder:
        recorder.says("warning: the relay's certificate is not checked")
        recorder.says("waiting for the broadcast")


# Usage


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        pytest.param(archive("http://127.0.0.1:9"), "https://", id="not https"),
        pytest.param(archive("nonsense"), "https://", id="no URL"),
        pytest.param(archive("https://"), "no host", id="no host"),
        pytest.param(archive("https://host:99999"), "URL", id="bad port"),
        pytest.param(archive("https://user:secret@host"), "user name", id="user name"),
        pytest.param(archive(NOBODY, "--duration", "soon"), "'soon' is no duration", id="duration"),
        pytest.param(archive(NOBODY, "--duration", "0"), "'0'", id="no duration at all"),
        pytest.param(archive(NOBODY, "--duration", "nan"), "'nan'", id="not a number"),
        pytest.param(archive(NOBODY, "--duration", "-5s"), "'-5s'", id="negative duration"),
        pytest.param(archive(NOBODY, "--tls-fingerprint", "abc"), "SHA-256", id="fingerprint"),
        pytest.param(archive(NOBODY, "--tls-ca", "/nonexistent"), "CA file", id="CA file"),
        pytest.param(
            archive(NOBODY, "--tls-insecure", "--tls-fingerprint", "00" * 32),
            "contradict",
            id="contradiction",
        ),
        pytest.param(archive(NOBODY, "--protocol", "moq-heavy"), "moq-heavy", id="protocol"),
        pytest.param(archive(NOBODY, name="x" * 5000), "5000 bytes", id="long name"),
        pytest.param(archive(NOBODY, name="\udcff"), "not valid Unicode", id="no Unicode"),
        pytest.param(archive(NOBODY, "--track", "\udcff"), "not valid Unicode", id="track"),
        pytest.param(("archive", "--name", TV), "--url", id="no --url"),
        pytest.param(("archive", "--url", NOBODY), "--name", id="no --name"),
        pytest.param(("frobnicate",), "frobnicate", id="no such command"),
        pytest.param(("ls", "--frobnicate"), "--frobnicate", id="no such option"),
        pytest.param(("cat", "nonsense"), "hash", id="no hash"),
        pytest.param(("cat", TV, VIDEO, "--sequence", "x"), "'x'", id="sequence"),
        pytest.param(("cat", TV, VIDEO, "--sequence", "9-3"), "9-3", id="backward range"),
        pytest.param(("cat", TV, VIDEO, "--since", "noon"), "noon", id="time"),
        pytest.param(("verify", "--threads", "0"), "threads", id="threads"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(
    recorded: Installation, arguments: tuple[str, ...], hint: str
) -> None:
    before = sorted(recorded.manifests.rglob("*"))
    outcome = recorded.run(*arguments)
    assert outcome.code == 2, outcome.err
    assert hint in outcome.complaint
    assert "secret" not in outcome.err
    assert sorted(recorded.manifests.rglob("*")) == before


def test_help_is_no_error(recorded: Installation) -> None:
    for arguments in (["--help"], ["archive", "--help"], ["wt-archive", "-h"]):
        outcome = recorded.run(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert b"Example:" in outcome.out
    alone = recorded.run()
    assert alone.code == 2
    assert "Usage: casfs" in alone.err
    assert "Traceback" not in alone.err


# The roots


def test_roots_that_were_never_initialised(tmp_path: Path) -> None:
    bare = Installation(tmp_path)
    for root in (bare.cas, bare.manifests):
        root.mkdir()
    for arguments in (archive(NOBODY), ("ls",), ("verify",), ("cat", TV, VIDEO), ("mount", "/mnt")):
        outcome = bare.run(*arguments)
        assert outcome.code == 5, arguments
        assert "casfs init" in outcome.complaint
    assert not list(bare.cas.iterdir())
    assert not list(bare.manifests.iterdir())


def test_roots_that_do_not_exist_are_not_created(tmp_path: Path) -> None:
    bare = Installation(tmp_path)
    assert bare.run(*archive(NOBODY)).code == 5
    assert not bare.cas.exists()
    assert not bare.manifests.exists()


@pytest.fixture
def stranger_archive(tmp_path: Path) -> Installation:
    directory = tmp_path / "stranger"
    directory.mkdir()
    other = Installation(directory)
    assert other.run("init").code == 0
    return other


def test_the_cas_root_of_another_archive(
    installation: Installation, stranger_archive: Installation
) -> None:
    for arguments in (archive(NOBODY), ("ls",), ("verify",)):
        outcome = installation.run(*arguments, "--cas-root", str(stranger_archive.cas))
        assert outcome.code == 5
        assert "different archives" in outcome.complaint


def test_swapped_roots(installation: Installation) -> None:
    outcome = installation.run(
        *("ls", "--cas-root", str(installation.manifests)),
        *("--manifest-root", str(installation.cas)),
    )
    assert outcome.code == 5
    assert outcome.complaint


def test_overlapping_and_missing_roots(installation: Installation) -> None:
    inside = str(installation.cas / "manifests")
    for command in ("init", "ls"):
        outcome = installation.run(command, "--manifest-root", inside)
        assert outcome.code == 2
        assert "overlap" in outcome.complaint
    del installation.environment["CASFS_CAS_ROOT"]
    outcome = installation.run("ls")
    assert outcome.code == 2
    assert "--cas-root" in outcome.complaint


def test_an_archive_is_initialised_once(installation: Installation) -> None:
    outcome = installation.run("init")
    assert outcome.code == 5
    assert "already" in outcome.complaint


def test_a_second_recorder_of_the_same_broadcast(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with installation.recording(relay, TV, "--track", VIDEO) as first:
        station.send(VIDEO, b"one")
        installation.wait_for(TV, VIDEO, 1)
        with installation.recording(relay, TV) as second:
            outcome = second.wait()
        assert outcome.code == 5
        assert "another process" in outcome.complaint
        station.send(VIDEO, b"two")
        installation.wait_for(TV, VIDEO, 2)
        assert first.stop().code == 0


# Settings


def test_configuration_files_that_cannot_be_used(
    installation: Installation, tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.toml"
    unknown.write_text('cas-roof = "/nowhere"\n')
    broken = tmp_path / "broken.toml"
    broken.write_text("cas-root = \n")
    for path, hint in ((unknown, "cas-roof"), (broken, "not valid"), (tmp_path / "no", "no")):
        outcome = installation.run("ls", "--config", str(path))
        assert outcome.code == 2
        assert hint in outcome.complaint
        assert str(path) in outcome.complaint
    outcome = installation.run("ls", "--config", str(tmp_path))
    assert outcome.code in {2, 7}
    assert outcome.complaint


def test_a_configuration_file_that_nobody_may_read(
    installation: Installation, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    secret = tmp_path / "secret.toml"
    secret.write_text("")
    secret.chmod(0)
    outcome = installation.run("ls", "--config", str(secret))
    assert outcome.code in {2, 7}
    assert str(secret) in outcome.complaint


# Mount points


@contextmanager
def fuse() -> Iterator[None]:
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        pytest.skip(str(error))
    yield


def test_mount_points_that_cannot_be_used(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("")
    for path in (tmp_path / "absent", file, full):
        with fuse():
            outcome = installation.run("mount", str(path))
            assert outcome.code == 2, outcome.err
            assert str(path) in outcome.complaint
    with fuse(), installation.mounted() as mountpoint:
        outcome = installation.run("mount", str(mountpoint))
        assert outcome.code == 2
        assert str(mountpoint) in outcome.complaint
        assert (mountpoint / "broadcasts").is_dir()


# What is not there


def test_what_the_archive_does_not_hold(recorded: Installation) -> None:
    for arguments in (
        ("cat", TV, "audio0.m4s"),
        ("cat", "demo/other", VIDEO),
        ("cat", TV, VIDEO, "--sequence", "99"),
        ("cat", TV, VIDEO, "--epoch", "2"),
        ("cat", TV, VIDEO, "--until", "2000-01-01T00:00:00Z"),
        ("cat", "00" * 32),
        ("ls", "no-*-such"),
    ):
        outcome = recorded.run(*arguments)
        assert (outcome.code, outcome.out) == (4, b""), arguments
        assert outcome.complaint


# Outputs and interruptions


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(recorded: Installation) -> None:
    for command in ("ls", "ls --json", f"cat {TV} {VIDEO}", "verify", "--help"):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; '{CASFS}' {command} | head -c 1 >/dev/null"],
            env=recorded.environment,
            capture_output=True,
            check=False,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.parametrize("command", [("ls",), ("ls", "--json"), ("cat", TV, VIDEO), ("verify",)])
def test_a_disk_that_takes_no_output_is_an_error(
    recorded: Installation, command: tuple[str, ...]
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [CASFS, *command],
            env=recorded.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
    assert done.returncode == 7, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("casfs: error: ")


def test_binary_data_is_not_written_to_a_terminal(recorded: Installation) -> None:
    leader, follower = os.openpty()
    try:
        done = subprocess.run(
            [CASFS, "cat", TV, VIDEO],
            env=recorded.environment,
            stdout=follower,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
        os.set_blocking(leader, False)
        with pytest.raises(BlockingIOError):
            os.read(leader, 1)
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 2
    assert "binary" in done.stderr


def test_an_interrupted_verify_says_so(holdings: Holdings) -> None:
    installation, payload = holdings.installation, holdings.station.sent[VIDEO][0]
    digest = digest_of(payload)
    large = installation.cas / "objects" / "blake3" / digest[:2] / f"{digest}.bin"
    large.chmod(0o644)
    os.truncate(large, 1 << 40)  # sparse, and nobody reads to its end
    try:
        with installation.running("verify") as program:
            eventually(lambda: large in _open_files(program.process.pid), "reading")
            outcome = program.stop(signal.SIGINT)
    finally:
        os.truncate(large, len(payload))
    assert outcome.code == 130, outcome.err
    assert outcome.complaint == "casfs: error: interrupted"


def _open_files(pid: int) -> set[Path]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(descriptor.readlink())
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recorder_in_good_order(
    installation: Installation, relay: Relay, publisher: Publisher, number: signal.Signals
) -> None:
    station = Station(publisher, TV, VIDEO)
    with installation.recording(relay, TV, "--track", VIDEO, "--json") as recorder:
        for sequence in range(40):
            station.send(VIDEO, b"%d" % sequence * 30_000)
        installation.wait_for(TV, VIDEO, 1)
        outcome = recorder.stop(number)
    assert outcome.code == 0, outcome.err
    said = msgspec.json.decode(outcome.out)
    kept = installation.recorded(TV, VIDEO)
    assert said["groups"] == len(kept)
    assert said["gaps"] == 0
    installation.verify_is_sound()
