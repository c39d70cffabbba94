"""How far the kernel reads ahead in the mount: 128 KiB by default, which makes many small requests.

Only root may change it, and no unmounting is needed to take it back: it ends with the mount.
"""

from __future__ import annotations

import contextlib
import logging

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 4 << 20
"""What is asked for; a request is never above 1 MiB."""

_SETTING = "/sys/class/bdi/{device}/read_ahead_kb"


def raise_read_ahead(device: str) -> int | None:
    """Have the kernel read further ahead in the filesystem with this device number (``0:39``).

    Returns how far it reads ahead now, bytes; None if the kernel does not tell.
    """
    path = _SETTING.format(device=device)
    try:
        with open(path, "w", encoding="ascii") as setting:
            setting.write(str(READ_AHEAD_BYTES // 1024))
    except OSError as error:
        log.info("the kernel's read-ahead stays as it is: %s: %s", path, error.strerror)
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as setting:
        return int(setting.read()) * 1024
    return None
