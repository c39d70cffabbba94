"""What a machine with casfs on it lives through; runs inside of `tests.nix.container`, as root.

Facts are written down as they come; tests.nix.test_systemd says which they must be.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import TYPE_CHECKING

from tests.nix.container import CHECKOUT, RESULTS
from tools.loopback.directory import running_directory
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.loopback.publisher import Publisher

CASFS = "/opt/casfs/.venv/bin/casfs"
ARCHIVE, VERIFY, MOUNT = "casfs-archive.service", "casfs-verify.service", "casfs-mount.service"
CONFIG = "/etc/casfs/config.toml"
POOL = "/pool"
BROADCAST, TRACK = "demo/tv", "video0.m4s"
_PATIENCE = 30.0

facts: dict[str, object] = {}


def main() -> None:
    """Live through everything."""
    try:
        live()
    except BaseException:  # noqa: BLE001  whatever it is, the test shows it
        facts["failure"] = traceback.format_exc() + run("journalctl", "-n60", "--no-pager")[1]
    with open(f"{RESULTS}/facts.json", "w", encoding="utf-8") as file:
        json.dump(facts, file)


def live() -> None:
    """Have a relay, a publisher and a directory, and do to the units what becomes of units."""
    prepare()
    with (
        running_relay() as relay,
        running_publisher(relay.url, relay.fingerprint) as publisher,
        running_directory() as directory,
    ):
        directory.entries = [{"relay_url": relay.url, "broadcast_name": BROADCAST}]
        with open("/run/casfs.env", "w", encoding="utf-8") as file:
            file.write(f"CASFS_AUTO_ARCHIVE_DIRECTORY={directory.url}\n")
            file.write(f"CASFS_AUTO_ARCHIVE_TLS_FINGERPRINT={relay.fingerprint}\n")
        publisher.create_broadcast(BROADCAST)
        publisher.create_track(BROADCAST, TRACK)
        publisher.announce(BROADCAST)
        publisher.append_group(BROADCAST, TRACK, [b"0"])
        step("unmounted", refuse_the_unmounted_disk)
        step("started", start_with_the_disk)
        facts["token"] = directory.requests[-1].get("authorization")
        step("sandbox", look_at_the_sandbox)
        step("killed", lambda: kill_the_archive(publisher))
        step("reloaded", reload_the_archive)
        step("verified", verify_read_only)
        step("mounted", show_the_mount)
        step("stopped", stop_everything)
    step("owned", find_what_is_owned)
    step("unmounted_later", refuse_the_unmounted_disk_without_assertion)


def step(name: str, do: Callable[[], object]) -> None:
    """Note what a step found, and how long it took."""
    began = time.monotonic()
    facts[name] = do()
    print(f"{name}: {time.monotonic() - began:.2f} s", file=sys.stderr, flush=True)


def prepare() -> None:
    """Do what the administrator of a machine without NixOS does."""
    must("systemd-sysusers", f"{CHECKOUT}/docs/systemd/casfs.sysusers.conf")
    must("mknod", "-m", "0666", "/dev/fuse", "c", "10", "229")
    with open("/etc/fuse.conf", "a", encoding="utf-8") as file:
        file.write("user_allow_other\n")
    with open("/etc/casfs/token", "w", encoding="utf-8") as file:
        file.write("secret\n")
    os.chmod("/etc/casfs/token", 0o600)
    os.makedirs(POOL)
    for unit in (ARCHIVE, MOUNT):
        drop_in(unit, "restart", "[Service]\nRestartSec=100ms\n")
    must("systemctl", "--quiet", "enable", ARCHIVE, MOUNT, "casfs-verify.timer")


def refuse_the_unmounted_disk() -> dict[str, object]:
    code, _ = run("systemctl", "start", ARCHIVE)
    return {"code": code, **show(ARCHIVE, "ActiveState", "AssertResult"), "left": os.listdir(POOL)}


def start_with_the_disk() -> dict[str, object]:
    """Nobody starts the units: the disk does."""
    must("mount", "-t", "tmpfs", "-o", "size=64M,mode=0755", "tmpfs", POOL)
    wait_for("the archive is active", lambda: state(ARCHIVE) == "active")
    wait_for("a recording", lambda: "1 recording" in status_text())
    wait_for("the first group", lambda: recorded() == b"0")
    return {**show(ARCHIVE, "ActiveState", "Type"), "status": status_text()}


def look_at_the_sandbox() -> dict[str, str]:
    """Try, as root in the service's own view of the files, to write in several places."""
    outcomes = {}
    for place in (
        "/etc",
        "/usr",
        "/opt/casfs",
        "/var/lib",
        POOL,
        f"{POOL}/cas",
        f"{POOL}/manifests",
    ):
        probe = f"{place}/probe"
        code, said = run("nsenter", "-t", main_pid(ARCHIVE), "-m", "touch", probe)
        outcomes[place] = "written" if code == 0 else said.rpartition(": ")[2].strip()
        if code == 0:
            must("nsenter", "-t", main_pid(ARCHIVE), "-m", "rm", probe)
    return outcomes


def kill_the_archive(publisher: Publisher) -> dict[str, object]:
    before = main_pid(ARCHIVE)
    others = processes(ARCHIVE) - {before}
    recording = recorders()
    os.kill(int(before), signal.SIGKILL)
    wait_for("a new start", lambda: is_started_anew(ARCHIVE, before))
    publisher.append_group(BROADCAST, TRACK, [b"1"])
    wait_for("the second group", lambda: recorded() == b"01")
    wait_for("the end of what was there before", lambda: not others & processes(ARCHIVE))
    return {**show(ARCHIVE, "NRestarts"), "recorders": len(recording)}


def reload_the_archive() -> dict[str, object]:
    before = main_pid(ARCHIVE), recorders()
    good, _ = run("systemctl", "reload", ARCHIVE)
    with open(CONFIG, encoding="utf-8") as file:
        text = file.read()
    with open(CONFIG, "a", encoding="utf-8") as file:
        file.write("\n[auto-archiv]\n")
    bad, _ = run("systemctl", "reload", ARCHIVE)
    with open(CONFIG, "w", encoding="utf-8") as file:
        file.write(text)
    return {
        "good": good,
        "bad": bad,
        "same_processes": (main_pid(ARCHIVE), recorders()) == before,
        **show(ARCHIVE, "ActiveState"),
    }


def verify_read_only() -> dict[str, object]:
    """Run what the timer runs, with an attempt to write before it."""
    probes = [f"{POOL}/cas/probe", f"{POOL}/manifests/probe", "/var/lib/probe"]
    tries = "".join(f"ExecStartPre=-/usr/bin/touch {probe}\n" for probe in probes)
    drop_in(VERIFY, "probes", f"[Service]\n{tries}")
    must("systemctl", "start", "casfs-verify.timer")
    code, _ = run("systemctl", "start", VERIFY)
    with open("/var/lib/casfs-verify/report.json", encoding="utf-8") as file:
        report = json.load(file)
    return {
        "code": code,
        **show(VERIFY, "Result", "ExecMainStatus"),
        "timer": show("casfs-verify.timer", "ActiveState", "Unit"),
        "due": bool(show("casfs-verify.timer", "NextElapseUSecRealtime")["NextElapseUSecRealtime"]),
        "objects": report["objects"],
        "probes": [probe for probe in probes if os.path.exists(probe)],
    }


def show_the_mount() -> dict[str, object]:
    """Look at what the disk started, too, from outside and also as another user."""
    wait_for("the mount is active", lambda: state(MOUNT) == "active")
    before = main_pid(MOUNT)
    first = mounted()
    os.kill(int(before), signal.SIGKILL)
    wait_for("a new start", lambda: is_started_anew(MOUNT, before))
    return {"first": first, "again": mounted(), **show(MOUNT, "NRestarts", "StatusText")}


def mounted() -> list[str]:
    """Return what the latest group in the mount holds, for root and for nobody."""
    latest = f"/run/casfs/broadcasts/{BROADCAST}/{TRACK}/latest.m4s"
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return [run("cat", latest)[1], run(*nobody, "cat", latest)[1]]


def stop_everything() -> dict[str, object]:
    results: dict[str, object] = {}
    for unit in (MOUNT, ARCHIVE):
        code, _ = run("systemctl", "stop", unit)
        results[unit] = {"code": code, **show(unit, "ActiveState", "Result", "ExecMainStatus")}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        results["mounts"] = [line for line in file if "fuse.casfs" in line]
    ends = []
    for path, _, names in os.walk(f"{POOL}/manifests"):
        if path.endswith("@broadcast"):
            for name in sorted(names):
                with open(f"{path}/{name}", encoding="utf-8") as file:
                    ends += [json.loads(line) for line in file]
    results["ends"] = [
        (record["kind"], record.get("reason"))
        for record in ends
        if record["kind"] in ("stop", "lost-session")
    ]
    results["verify"], results["said"] = run(CASFS, "verify")
    return results


def find_what_is_owned() -> list[str]:
    """Return what belongs to the service's user outside of the disk."""
    places = ("/etc", "/opt", "/run", "/srv", "/usr/local", "/var")
    return sorted(must("find", *places, "-xdev", "-user", "casfs", "-print", "-prune").split())


def refuse_the_unmounted_disk_without_assertion() -> dict[str, object]:
    """Two empty roots, and nothing but the memory of an archive says that they should not be."""
    must("umount", POOL)
    drop_in(ARCHIVE, "no-assertion", "[Unit]\nAssertPathIsMountPoint=\n[Service]\nRestart=no\n")
    code, _ = run("systemctl", "start", ARCHIVE)
    empty = [os.listdir(f"{POOL}/{root}") for root in ("cas", "manifests")]
    said = run("journalctl", "-u", ARCHIVE, "-n", "20", "--no-pager", "-o", "cat")[1]
    why = [line for line in said.splitlines() if line.startswith("casfs: error:")]
    return {"code": code, **show(ARCHIVE, "ActiveState"), "empty": empty, "why": why}


# Details


def run(*command: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it says."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=_PATIENCE
    )
    return result.returncode, result.stdout.decode(errors="replace")


def must(*command: str) -> str:
    code, said = run(*command)
    if code:
        raise RuntimeError(f"{command} ended with {code}: {said}")
    return said


def show(unit: str, *properties: str) -> dict[str, str]:
    said = must("systemctl", "show", unit, *(f"--property={name}" for name in properties))
    return dict(line.split("=", 1) for line in said.splitlines())


def state(unit: str) -> str:
    return show(unit, "ActiveState")["ActiveState"]


def main_pid(unit: str) -> str:
    return show(unit, "MainPID")["MainPID"]


def status_text() -> str:
    return show(ARCHIVE, "StatusText")["StatusText"]


def is_started_anew(unit: str, before: str) -> bool:
    """Say whether a unit whose main process was killed runs again, by another process."""
    # In this order: the state is the old one until systemd has noticed the death.
    return main_pid(unit) not in (before, "0") and state(unit) == "active"


def recorders() -> set[str]:
    """Return the processes that record; each has a child that keeps the index."""
    found = set()
    for pid in processes(ARCHIVE):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"--stop-with-stdin" in file.read().split(b"\0"):
                found.add(pid)
    return found


def processes(unit: str) -> set[str]:
    """Return the ids of all processes of a unit."""
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{process}/cgroup", encoding="utf-8") as file,
        ):
            if f"/{unit}\n" in file.read():
                found.add(process)
    return found


def recorded() -> bytes:
    """Return the payload of the track, as the archive has it."""
    result = subprocess.run(
        [CASFS, "cat", BROADCAST, TRACK], capture_output=True, check=False, timeout=_PATIENCE
    )
    return result.stdout


def drop_in(unit: str, name: str, text: str) -> None:
    directory = f"/run/systemd/system/{unit}.d"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/{name}.conf", "w", encoding="utf-8") as file:
        file.write(text)
    must("systemctl", "daemon-reload")


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            status = run("systemctl", "status", "--no-pager", "--full", ARCHIVE, MOUNT)[1]
            raise TimeoutError(f"not {what}: {status}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
