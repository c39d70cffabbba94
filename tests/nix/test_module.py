"""nix/module.nix, evaluated by Nix: what good configurations become, and that bad ones are refused.

nixpkgs' library is not at hand: a stand-in evaluates it (tools/units/standin).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.cli.program import run
from tools.docs.markdown import read_page
from tools.units.evaluation import ROOT, EvaluationError, evaluate, nix_is_installed, run_nix
from tools.units.rendering import render_settings, render_units

if TYPE_CHECKING:
    from pathlib import Path

    from tools.units.evaluation import Evaluation

pytestmark = pytest.mark.skipif(not nix_is_installed(), reason="nix-instantiate is not installed")

ARCHIVE = 'archive.enable = true; archive.directoryUrl = "https://tv.example/api/public-streams";'
EVERYTHING = """
  casRoot = "/pool/cas";
  manifestRoot = "/fast/manifests";
  requireMountPoints = [ "/pool" "/fast-disk" ];
  archive = {
    enable = true;
    directoryUrl = "https://tv.example/api/public-streams";
    relayUrl = "https://relay.example/anon";
    broadcasts = [ "demo/tv" ];
    include = [ "news/*" "demo/*" ];
    exclude = [ "test/*" ];
    pollInterval = "10s";
    maxWorkers = 7;
    environmentFile = "/run/secrets/casfs.env";
    credentials.directory-token = "/run/secrets/token";
    memoryMax = "8G";
    logLevel = "debug";
    extraArgs = [ "--listed-tracks" ];
  };
  settings = {
    auto-archive = { directory-token-file = "directory-token"; log-format = "text"; };
    auto-archive.field.name = "title";
    expire-when-short = { enable = true; keep-last = 48; grace = "1h"; };
  };
  verify.enable = true;
  verify.onCalendar = "Sun 04:00";
  mount.enable = true;
  mount.path = "/srv/tv";
"""


def of(text: str) -> Evaluation:
    """Evaluate what stands in ``services.casfs``."""
    return evaluate(f"{{ services.casfs = {{ {text} }}; }}")


@pytest.fixture(scope="module")
def everything() -> Evaluation:
    return of(EVERYTHING)


# Good ones


def test_nothing_enabled_is_nothing_at_all() -> None:
    found = of('casRoot = "/pool/cas";')
    assert (found.services, found.timers, found.users, found.files) == ({}, {}, {}, {})
    assert found.failed == ()


def test_the_archive_alone_is_one_service_below_var_lib() -> None:
    found = of(ARCHIVE)
    assert found.failed == ()
    assert found.warnings == ()
    assert found.services.keys() == {"casfs-archive"}
    assert found.timers == {}
    assert found.users["casfs"].group == "casfs"
    unit = found.services["casfs-archive"]
    assert unit.service_config["StateDirectory"] == "casfs-state casfs"
    assert "ReadWritePaths" not in unit.service_config
    assert unit.wanted_by == ("multi-user.target",)
    assert not unit.stop_if_changed


def test_everything_at_once_holds(everything: Evaluation) -> None:
    assert everything.failed == ()
    assert everything.warnings == ()
    assert everything.services.keys() == {"casfs-archive", "casfs-verify", "casfs-mount"}
    assert everything.timers["casfs-verify"].timer_config["OnCalendar"] == "Sun 04:00"
    assert everything.fuse.enable
    assert everything.fuse.user_allow_other
    service = everything.services["casfs-archive"].service_config
    assert service["ReadWritePaths"] == ["-/pool/cas", "-/fast/manifests"]
    assert service["StateDirectory"] == "casfs-state"
    assert service["LoadCredential"] == ["directory-token:/run/secrets/token"]
    assert service["EnvironmentFile"] == "/run/secrets/casfs.env"
    assert service["MemoryMax"] == "8G"
    assert service["ExecStart"] == (
        "/opt/casfs/.venv/bin/casfs -vv --config /etc/casfs/config.toml auto-archive"
        " --listed-tracks"
    )


def test_required_mount_points_are_asserted_and_start_what_needs_them(
    everything: Evaluation,
) -> None:
    for unit in everything.services.values():
        assert unit.unit_config["AssertPathIsMountPoint"] == ["/pool", "/fast-disk"]
        assert unit.unit_config["RequiresMountsFor"] == ["/pool/cas", "/fast/manifests"]
    wanted = everything.services["casfs-archive"].wanted_by
    escape = ["systemd-escape", "--path", "--suffix=mount", "/pool", "/fast-disk"]
    if shutil.which("systemd-escape") is not None:
        said = subprocess.run(escape, capture_output=True, text=True, check=True).stdout
        assert wanted == ("multi-user.target", *said.split())


def test_the_archive_never_gives_up(everything: Evaluation) -> None:
    unit = everything.services["casfs-archive"]
    assert unit.service_config["Restart"] == "always"
    assert "RestartPreventExitStatus" not in unit.service_config
    assert unit.unit_config["StartLimitIntervalSec"] == 0


def test_only_another_place_restarts_recordings(everything: Evaluation) -> None:
    unit = everything.services["casfs-archive"]
    assert unit.reload_triggers == (everything.files["casfs/config.toml"],)
    assert unit.restart_triggers == ("/pool/cas", "/fast/manifests")


def test_nothing_that_hides_the_mount_is_set(everything: Evaluation) -> None:
    """Each of these would give it a mount namespace of its own (systemd.exec(5))."""
    service = everything.services["casfs-mount"].service_config
    hiding = """
        BindPaths BindReadOnlyPaths InaccessiblePaths MountFlags PrivateDevices PrivateIPC
        PrivateMounts PrivateNetwork PrivateTmp PrivateUsers ProcSubset ProtectControlGroups
        ProtectHome ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc
        ProtectSystem ReadOnlyPaths ReadWritePaths RootDirectory StateDirectory
        TemporaryFileSystem
    """
    assert not service.keys() & set(hiding.split())


def test_the_verification_may_write_its_own_state_alone(everything: Evaluation) -> None:
    service = everything.services["casfs-verify"].service_config
    assert service["ReadOnlyPaths"] == ["-/pool/cas", "-/fast/manifests"]
    assert service["StateDirectory"] == "casfs-verify"
    assert "ReadWritePaths" not in service


@pytest.mark.parametrize("text", [ARCHIVE, EVERYTHING, "verify.enable = true;"])
def test_the_settings_are_a_file_that_casfs_takes(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(render_settings(of(text)))
    assert run(["config", "check", str(file)]) == 0, capsys.readouterr().err


def test_the_users_own_settings_win_over_defaults(everything: Evaluation) -> None:
    table = everything.settings["auto-archive"]
    assert isinstance(table, dict)
    assert table["log-format"] == "text"
    assert table["field"] == {"name": "title"}
    assert table["max-workers"] == 7


def test_the_names_of_the_predecessor_still_work() -> None:
    found = evaluate("""{
      services.every-channel.ec-node.archive = {
        enable = true;
        outputDir = "/pool/objects";
        manifestDir = "/pool/manifests";
      };
      services.casfs.archive.directoryUrl = "https://tv.example/api/public-streams";
    }""")
    assert found.failed == ()
    assert found.settings["cas-root"] == "/pool/objects"
    assert found.settings["manifest-root"] == "/pool/manifests"
    assert "casfs-archive" in found.services
    assert len(found.warnings) == 3
    assert all("renamed to `services.casfs" in warning for warning in found.warnings)


def test_a_token_in_a_url_is_warned_of() -> None:
    (warning,) = of(ARCHIVE.replace("streams", "streams?token=7")).warnings
    assert "environmentFile" in warning


# Bad ones


CANNOT_WORK = [
    ('casRoot = "/pool"; manifestRoot = "/pool/manifests";', "neither of casRoot and"),
    ('casRoot = "/pool/a/b"; manifestRoot = "/pool/a";', "neither of casRoot and"),
    ('casRoot = "/pool"; manifestRoot = "/pool";', "neither of casRoot and"),
    ('casRoot = "/pool/../fast";', "must not hold"),
    ('casRoot = "/home/tv/cas";', "cannot lie in /home"),
    ("archive.directoryUrl = null;", "nothing says what to record"),
    ('archive.broadcasts = [ "demo/tv" ];', "need a relayUrl"),
]


@pytest.mark.parametrize(("text", "message"), CANNOT_WORK)
def test_a_configuration_that_cannot_work_fails_an_assertion(text: str, message: str) -> None:
    failed = of(with_an_archive(text)).failed
    assert any(message in item for item in failed), failed


def test_roots_whose_names_begin_alike_are_not_nested() -> None:
    assert of(f'{ARCHIVE} casRoot = "/pool/tv"; manifestRoot = "/pool/tv-manifests";').failed == ()


WRONG = [
    ('casRoot = "pool/cas";', "casRoot' is not of type"),
    ('casRoot = "/pool/my tv";', "casRoot' is not of type"),
    ('casRoot = "/pool/%n";', "casRoot' is not of type"),
    ('manifestRoot = "/pool/";', "manifestRoot' is not of type"),
    ("casRoot = 7;", "casRoot' is not of type"),
    ('archive.directoryUrl = "tv.example/api";', "directoryUrl' is not of type"),
    ('archive.relayUrl = "moq://relay.example";', "relayUrl' is not of type"),
    ("archive.maxWorkers = 0;", "maxWorkers' is not of type"),
    ('archive.maxWorkers = "7";', "maxWorkers' is not of type"),
    ('archive.pollInterval = "often";', "pollInterval' is not of type"),
    ('archive.include = "news/*";', "include' is not of type"),
    ('archive.extraArgs = [ "a b" ];', "extraArgs' is not of type"),
    ('archive.logLevel = "loud";', "logLevel' is not of type"),
    ("archive.enabel = true;", "archive.enabel' does not exist"),
    ("mount.paht = 1;", "mount.paht' does not exist"),
    ('settings.auto-archive.poll-interval = "1m";', "conflicting definitions"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_type_or_name_is_refused(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        of(with_an_archive(f"mount.enable = true; {text}"))


def with_an_archive(text: str) -> str:
    """Enable the archive beside ``text``, with a directory unless that names one."""
    return ("archive.enable = true;" if "directoryUrl" in text else ARCHIVE) + text


def test_nixpkgs_own_library_says_the_same_of_all_of_these() -> None:
    nixpkgs = os.environ.get("CASFS_TEST_NIXPKGS", "")
    if not nixpkgs:
        pytest.skip("CASFS_TEST_NIXPKGS does not say where nixpkgs, or its lib, is")
    texts = ["", ARCHIVE, EVERYTHING, "verify.enable = true;", "mount.enable = true;"]
    texts += [with_an_archive(text) for text, _ in CANNOT_WORK]
    texts += [with_an_archive(f"mount.enable = true; {text}") for text, _ in WRONG]
    for text in texts:
        said: list[object] = []
        for place in ("", nixpkgs):
            try:
                said.append(evaluate(f"{{ services.casfs = {{ {text} }}; }}", nixpkgs=place))
            except EvaluationError:
                said.append("refused")
        assert said[0] == said[1], text


# What systemd says


@pytest.mark.parametrize(
    "text",
    [ARCHIVE, "verify.enable = true;", "mount.enable = true;", EVERYTHING],
    ids=["archive", "verify", "mount", "everything"],
)
def test_systemd_takes_every_unit(text: str, tmp_path: Path) -> None:
    assert not complaints_of_systemd(tmp_path, render_units(of(text)))


def test_a_unit_that_systemd_does_not_take_is_found(tmp_path: Path, everything: Evaluation) -> None:
    units = render_units(everything)
    name = "casfs-archive.service"
    for number, (good, bad) in enumerate(
        [("Restart=always", "Restart=odd"), ("KillMode=", "KilMode="), ("/usr/bin/true", "/no")]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        text = units[name].replace("/opt/casfs/.venv/bin/casfs", "/usr/bin/true")
        assert good in text
        assert complaints_of_systemd(directory, {name: text.replace(good, bad)})


@pytest.mark.parametrize(
    ("name", "threshold"), [("casfs-archive", 20), ("casfs-verify", 10), ("casfs-mount", 40)]
)
def test_the_sandbox_is_tight(
    name: str, threshold: int, tmp_path: Path, everything: Evaluation
) -> None:
    """Exposure as systemd reckons it, from 0 to 100: less is better."""
    _need_systemd()
    file = tmp_path / f"{name}.service"
    file.write_text(render_units(everything)[file.name])
    result = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true",
         f"--threshold={threshold}", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


def complaints_of_systemd(directory: Path, units: dict[str, str]) -> str:
    """Return what systemd says of these units, with programs that this machine has."""
    _need_systemd()
    for name, text in units.items():
        here = text.replace("/opt/casfs/.venv/bin/casfs", "/usr/bin/true")
        (directory / name).write_text(here)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
         *(str(directory / name) for name in units)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stderr or "it says nothing" if result.returncode else ""


def _need_systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")


# Everything else in Nix


def test_every_nix_file_can_be_read() -> None:
    standins = ROOT.glob("tools/units/standin/**/*.nix")
    files = [ROOT / "flake.nix", *ROOT.glob("nix/*.nix"), *standins]
    assert len(files) > 4
    for file in files:
        run_nix("--parse", str(file))


def nix_blocks(*names: str) -> list[str]:
    """Return the code in Nix on these pages; settings alone are made a module."""
    return [
        f"{{ {block.text} }}" if block.text.startswith("services.") else block.text
        for name in names
        for block in read_page((ROOT / name).read_text(encoding="utf-8")).blocks
        if block.language == "nix"
    ]


def test_all_nix_in_the_documentation_can_be_read() -> None:
    pages = [
        "README.md",
        "nix/README.md",
        *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
    ]
    blocks = nix_blocks(*pages)
    assert len(blocks) >= 2
    for block in blocks:
        run_nix("--parse", "--expr", block)


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_configurations_in_the_documentation_hold(page: str) -> None:
    blocks = [block for block in nix_blocks(page) if "services.casfs" in block]
    for block in blocks:
        found = evaluate(block)
        assert (found.failed, found.warnings) == ((), ())
        assert "casfs-archive" in found.services
    assert blocks or page == "README.md"


def test_the_drop_in_for_roots_elsewhere_says_what_the_module_says() -> None:
    """docs/operations.md shows both, for the same roots."""
    page = read_page((ROOT / "docs/operations.md").read_text(encoding="utf-8"))
    (drop_in,) = [block.text for block in page.blocks if block.language == "ini"]
    (configuration,) = nix_blocks("docs/operations.md")
    unit = render_units(evaluate(configuration))["casfs-archive.service"]
    said, meant = _words(unit), _words(drop_in)
    for name in ("RequiresMountsFor", "AssertPathIsMountPoint", "ReadWritePaths", "ExecStartPre"):
        assert said[name] == meant[name]
    assert said["WantedBy"] == ["multi-user.target", *meant["WantedBy"]]


def _words(unit: str) -> dict[str, list[str]]:
    """Return the words that each key of a unit has, over all its lines."""
    found: dict[str, list[str]] = {}
    for line in unit.replace("\\\n", "").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name, []).extend(value.split())
    return found
