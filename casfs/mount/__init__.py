"""The archive as a filesystem: `serve` mounts it, read-only and live."""

from __future__ import annotations

from casfs.mount.service import MountOptions, serve
from casfs.mount.verified import Verification
from casfs.mount.views import ArchiveView

__all__ = ["ArchiveView", "MountOptions", "Verification", "serve"]
