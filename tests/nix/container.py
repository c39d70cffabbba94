"""A whole system with systemd as process 1, over this machine's files, for as long as a test wants.

The machine's root is the lower half of an overlay whose upper half is memory; nothing that happens
inside reaches the machine, but for one directory of results. Everything lives in namespaces of one
process: once that has ended there is neither a process nor a mount left.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mounts import mounts_are_copied

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
CHECKOUT = "/opt/checkout"
"""Where this checkout is inside: neither /tmp nor /home, which services do not see."""
RESULTS = "/results"

_WRAPPER = f"""#!/bin/sh
export PYTHONPATH={CHECKOUT} PYTHONDONTWRITEBYTECODE=1
exec {CHECKOUT}/.venv/bin/python -m casfs "$@"
"""
_SCENARIO = """[Unit]
Description=the scenario
Requires=basic.target
After=basic.target

[Service]
Type=oneshot
WorkingDirectory={checkout}
Environment=PYTHONPATH={checkout} PYTHONDONTWRITEBYTECODE=1
ExecStart={checkout}/.venv/bin/python -m {module}
ExecStopPost=/usr/bin/systemctl poweroff --force --force
StandardError=file:{results}/stderr
"""
_BOOT = """
set -eu
mount -t tmpfs -o mode=0755 tmpfs {scratch}
cd {scratch}
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cp -a --no-target-directory {prepared} root
rm -rf root/etc/fstab root/etc/systemd/system/*.wants root/etc/systemd/system/*.requires
mkdir -p root{checkout} root{results}
exec systemd-nspawn --quiet --directory=root --register=no --keep-unit --private-network \\
    --console=pipe --bind-ro={source}:{checkout} --bind={given}:{results} --boot
"""


def why_not() -> str:
    """Return why no container can run here; empty if one can."""
    for program in ("systemd-nspawn", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if os.geteuid() != 0:
        return "only root can start a container with systemd in it"
    if sys.base_prefix.startswith(("/home/", "/root/")):
        return f"services see no home directories, and Python itself is in one: {sys.base_prefix}"
    with mounts_are_copied():
        tried = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if tried.returncode == 0 else f"this machine allows no mounts: {tried.stderr.strip()}"


def run_scenario(
    module: str, directory: Path, files: Mapping[str, str], *, timeout: float
) -> tuple[Path, str]:
    """Boot, run a Python module of this checkout as root, and power off.

    ``files``: what is to stand where, by absolute path. Returns the directory of results, which is
    `RESULTS` inside, and what was said on the console. Raises TimeoutExpired.
    """
    prepared, results, scratch = (directory / name for name in ("prepared", "results", "scratch"))
    for made in (results, scratch):
        made.mkdir()
    scenario = _SCENARIO.format(checkout=CHECKOUT, module=module, results=RESULTS)
    for name, text in {
        "/opt/casfs/.venv/bin/casfs": _WRAPPER,
        "/etc/systemd/system/default.target": scenario_target(),
        "/etc/systemd/system/casfs-scenario.service": scenario,
        **files,
    }.items():
        path = prepared / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "/bin/" in name else 0o644)
    script = _BOOT.format(
        **{name: shlex.quote(str(path)) for name, path in (
            ("scratch", scratch), ("prepared", prepared), ("given", results), ("source", ROOT),
        )},
        checkout=CHECKOUT, results=RESULTS,
    )  # fmt: skip
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (
        mounts_are_copied(),
        subprocess.Popen(
            [*unshare, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            said, _ = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return results, said.decode(errors="replace")


def scenario_target() -> str:
    """Return the target that the system boots to."""
    return "[Unit]\nDescription=nothing but the scenario\nWants=casfs-scenario.service\n"
