"""tools/quickstart: a broadcast from a real relay, archived, verified, mounted and decoded.

Everything runs on this machine: a MoQ relay on loopback, ffmpeg's test picture (or --input FILE)
as a live broadcast, and the casfs commands just as you would type them. What it starts is gone
when it ends; the archive stays.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tools.demo import checks
from tools.demo.steps import (
    Commands,
    Interrupted,
    StepError,
    await_true,
    end_on_signals,
    heading,
    show,
)
from tools.loopback.media import INIT_TRACK, MEDIA_TRACKS, OnAir
from tools.loopback.process import START_TIMEOUT, LineProcess, LoopbackError
from tools.loopback.relay import running_relay

BROADCAST = "demo/tv"
MARKER = "made-by-quickstart"


def main() -> int:
    """Run the quickstart and return its exit code."""
    arguments = parse_arguments()
    end_on_signals()
    try:
        Quickstart(arguments).run()
    except (StepError, LoopbackError, OSError) as error:
        sys.stdout.flush()
        print(f"\nquickstart: failed: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        sys.stdout.flush()
        print("\nquickstart: interrupted; everything that it started has ended", file=sys.stderr)
        return interrupted.exit_code
    return 0


class Arguments(msgspec.Struct, frozen=True):
    """What the user asked for."""

    seconds: float
    input: str | None
    directory: Path | None


def parse_arguments() -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="N", help="archive for N seconds (20)"
    )
    parser.add_argument("--input", metavar="FILE", help="broadcast this video file, repeated")
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="keep the archive in DIR, and go on with the one that is there"
        " (default: a fresh one in place of the last quickstart's)",
    )
    return Arguments(**vars(parser.parse_args()))


def default_directory() -> Path:
    """Return where the archive lies unless the user says otherwise (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "casfs" / "quickstart"


class Quickstart:
    """The steps, in their order."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._fresh = arguments.directory is None
        self._directory = (arguments.directory or default_directory()).absolute()
        self._cas_root = self._directory / "cas"
        self._manifest_root = self._directory / "manifests"
        self._mountpoint = self._directory / "mount"
        self._roots = {
            "CASFS_CAS_ROOT": str(self._cas_root),
            "CASFS_MANIFEST_ROOT": str(self._manifest_root),
        }
        self._commands = Commands(self._roots)

    def run(self) -> None:
        """Do all of it."""
        self._prepare()
        self._archive()
        self._verify()
        self._mount()
        self._summary()

    def _prepare(self) -> None:
        heading("An archive")
        if self._mountpoint.is_mount():
            self._unmount("-z")  # an earlier run was killed
        if self._fresh and self._directory.exists():
            if not (self._directory / MARKER).exists():
                raise StepError(
                    f"{self._directory} exists and is not from a quickstart; use --directory"
                )
            print(f"(replaces the last quickstart's in {self._directory})")
            shutil.rmtree(self._directory)
        self._mountpoint.mkdir(parents=True, exist_ok=True)
        (self._directory / MARKER).touch()
        for name, root in self._roots.items():
            print(f"$ export {name}={shlex.quote(root)}")
        if (self._cas_root / ".casfs" / "format.json").exists():
            print("(goes on with the archive that is there)")
        else:
            self._commands.run("casfs", "init")

    def _archive(self) -> None:
        seconds = f"{self._arguments.seconds:g}"
        with ExitStack() as stack:
            heading("A relay and a broadcast on this machine")
            show(["python", "-m", "tools.loopback.relay"], " &")
            relay = stack.enter_context(running_relay())
            print(f"relay: {relay.url}, certificate {relay.fingerprint}")
            options = ["--url", relay.url, "--fingerprint", relay.fingerprint, "--name", BROADCAST]
            if self._arguments.input is not None:
                options += ["--input", self._arguments.input]
            show(["python", "-m", "tools.loopback.media", *options], " &")
            media = stack.enter_context(LineProcess("tools.loopback.media", options))
            on_air = msgspec.json.decode(media.receive(START_TIMEOUT), type=OnAir)
            print(f"on air: {on_air.broadcast}: catalog.json, {', '.join(on_air.tracks)}")

            heading(f"Archive it for {seconds} seconds")
            self._commands.run(
                *("casfs", "archive", "--url", relay.url, "--name", BROADCAST),
                *("--tls-fingerprint", relay.fingerprint, "--duration", seconds),
                timeout=self._arguments.seconds + 60,
            )

    def _verify(self) -> None:
        heading("Verify every byte")
        self._commands.run("casfs", "verify", timeout=600)
        self._commands.run("casfs", "ls")

    def _mount(self) -> None:
        heading("Mount it")
        try:
            with self._commands.running(
                "casfs", "mount", str(self._mountpoint), ready=self._mountpoint.is_mount
            ) as mount:
                self._look_around()
                heading("Unmount it")
                self._unmount()
                await_true(lambda: mount.poll() is not None, "casfs mount outlived its mount")
                if mount.returncode:
                    raise StepError(f"casfs mount ended with code {mount.returncode}")
        finally:
            if self._mountpoint.is_mount():  # it did not end as it should have
                self._unmount("-z")

    def _look_around(self) -> None:
        broadcast = self._mountpoint / "broadcasts" / BROADCAST
        print("\n".join([f"{broadcast}/", *checks.tree(broadcast, 4, "  ")]))

        heading("Each object read through the mount hashes to its name")
        hashed = checks.hash_objects(self._mountpoint / "objects")
        print(f"{hashed.objects} objects, {hashed.bytes:,} bytes: all do; one of them:")
        print(f"BLAKE3 {hashed.example.stem}\n  of   {hashed.example}")

        heading("Init and groups read through the mount decode")
        init = checks.groups(broadcast / INIT_TRACK)[-1]
        for kind, track in MEDIA_TRACKS.items():
            if not (broadcast / track).exists():
                print(f"({track} was not broadcast)")
                continue
            media = checks.groups(broadcast / track)
            print(f"$ cat {INIT_TRACK}/.../{init.name} {track}/*/*/* | ffprobe -count_frames -")
            for stream in checks.decode(init, media):
                if stream.codec_type == kind:
                    print(f"{len(media)} groups, {checks.describe(stream)}")
                    if not int(stream.nb_read_frames):
                        raise StepError(f"ffprobe decoded nothing of {track}")

    def _unmount(self, *options: str) -> None:
        command = ["fusermount3", "-u", *options, str(self._mountpoint)]
        show(command)
        if subprocess.run(command, check=False).returncode:
            raise StepError(f"could not unmount {self._mountpoint}")

    def _summary(self) -> None:
        heading("Done: sound, mounted, decoded, and everything started here has ended")
        print(f"objects:     {self._cas_root}/objects/blake3/")
        print(f"manifests:   {self._manifest_root}/")
        print("Next, for instance:")
        for name, root in self._roots.items():
            print(f"  export {name}={shlex.quote(root)}")
        casfs = str(Path(sys.executable).parent / "casfs")
        for words in (["--help"], ["ls", "--json"], ["mount", str(self._mountpoint)]):
            print(f"  {shlex.join([casfs, *words])}")


if __name__ == "__main__":
    sys.exit(main())
