"""The units of nix/module.nix under a real systemd, with a real relay and a directory of streams.

One machine is booted for all of it; each test says one thing of what it lived through.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.nix.container import run_scenario, why_not
from tools.units.evaluation import evaluate, nix_is_installed
from tools.units.rendering import render_settings, render_units

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """{
  services.casfs = {
    casRoot = "/pool/cas";
    manifestRoot = "/pool/manifests";
    requireMountPoints = [ "/pool" ];
    archive = {
      enable = true;
      directoryUrl = "https://tv.example/";
      pollInterval = "1s";
      environmentFile = "/run/casfs.env";
      credentials.directory-token = "/etc/casfs/token";
    };
    settings.auto-archive = { min-free = "1M"; directory-token-file = "directory-token"; };
    verify.enable = true;
    mount.enable = true;
  };
}"""
ARCHIVE, MOUNT = "casfs-archive.service", "casfs-mount.service"
WELL = {"code": 0, "Result": "success", "ExecMainStatus": "0"}

_FORBIDDEN = ("Operation not permitted", "Permission denied", "Read-only file system")
"""What the console says where this machine allows no container."""

Facts = dict[str, Any]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Return what `tests.nix.scenario` found."""
    reason = why_not() or ("" if nix_is_installed() else "nix-instantiate is not installed")
    if reason:
        pytest.skip(reason)
    evaluation = evaluate(CONFIGURATION)
    files = {f"/etc/systemd/system/{name}": text for name, text in render_units(evaluation).items()}
    files["/etc/casfs/config.toml"] = render_settings(evaluation)
    directory = tmp_path_factory.mktemp("machine")
    results, console = run_scenario("tests.nix.scenario", directory, files, timeout=250)
    if not (results / "facts.json").exists():
        said = "".join(path.read_text() for path in results.iterdir())
        if not said and any(text in console for text in _FORBIDDEN):
            pytest.skip(f"no container can be started here: {console.strip()}")
        pytest.fail(f"the scenario came to no end: {console}{said}")
    found: Facts = msgspec.json.decode((results / "facts.json").read_bytes())
    assert "failure" not in found, found["failure"]
    return {**found, "directory": str(directory)}


def test_nothing_is_left_of_the_machine(facts: Facts) -> None:
    assert not left_of(facts["directory"])


def test_nothing_is_left_of_a_machine_that_hangs(tmp_path: Path) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with pytest.raises(subprocess.TimeoutExpired):
        run_scenario("http.server", tmp_path, {}, timeout=2)
    assert not left_of(str(tmp_path))


def left_of(directory: str) -> list[str]:
    """Return the mounts and processes that have to do with a machine's directory."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = file.read().splitlines()
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in [*mounts, *told.stdout.splitlines()] if directory in line]


def test_a_required_mount_point_that_is_not_mounted_is_refused(facts: Facts) -> None:
    found = facts["unmounted"]
    assert found["code"] != 0
    assert (found["ActiveState"], found["AssertResult"]) == ("inactive", "no")
    assert found["left"] == []


def test_the_archive_starts_with_its_disk_makes_its_roots_and_says_what_it_does(
    facts: Facts,
) -> None:
    assert facts["started"] == {
        "ActiveState": "active",
        "Type": "notify",
        "status": "running: 1 recording",
    }


def test_secrets_come_from_the_environment_file_and_credentials(facts: Facts) -> None:
    assert facts["token"] == "Bearer secret"


def test_the_archive_writes_its_roots_alone(facts: Facts) -> None:
    outcomes = facts["sandbox"]
    written = {place for place, outcome in outcomes.items() if outcome == "written"}
    assert written == {"/pool/cas", "/pool/manifests"}
    assert set(outcomes.values()) == {"written", "Read-only file system"}
    assert facts["owned"] == ["/run/casfs", "/var/lib/casfs-state", "/var/lib/casfs-verify"]


def test_a_killed_supervisor_comes_back_and_its_recorders_end_in_good_order(facts: Facts) -> None:
    assert facts["killed"] == {"NRestarts": "1", "recorders": 1}
    # By SIGTERM, or because the supervisor's end of a pipe was closed: whichever came first.
    assert [kind for kind, _ in facts["stopped"]["ends"]] == ["stop", "stop"]


def test_a_reload_touches_no_process_and_wrong_settings_fail_it(facts: Facts) -> None:
    found = facts["reloaded"]
    assert found["good"] == 0
    assert found["bad"] != 0
    assert found["same_processes"]
    assert found["ActiveState"] == "active"


def test_the_verification_of_the_timer_reads_everything_and_can_write_nothing(facts: Facts) -> None:
    found = facts["verified"]
    assert found["timer"] == {"ActiveState": "active", "Unit": "casfs-verify.service"}
    assert found["due"]
    assert {name: found[name] for name in WELL} == WELL
    assert found["objects"] == 2
    assert found["probes"] == []


def test_the_mount_is_seen_by_everybody_also_after_its_process_was_killed(facts: Facts) -> None:
    found = facts["mounted"]
    assert found["first"] == ["1", "1"]
    assert found["again"] == ["1", "1"]
    assert found["NRestarts"] == "1"
    assert found["StatusText"].startswith("mounted")


def test_everything_stops_in_good_order_and_the_archive_is_sound(facts: Facts) -> None:
    found = facts["stopped"]
    for unit in (ARCHIVE, MOUNT):
        assert found[unit] == {**WELL, "ActiveState": "inactive"}
    assert found["mounts"] == []
    assert found["verify"] == 0


def test_empty_roots_are_refused_where_an_archive_was_also_without_an_assertion(
    facts: Facts,
) -> None:
    found = facts["unmounted_later"]
    assert found["code"] != 0
    assert found["ActiveState"] == "failed"
    assert found["empty"] == [[], []]
    assert "this machine has kept archive" in found["why"][-1]
