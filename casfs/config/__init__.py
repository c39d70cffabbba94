"""Settings: built-in defaults, then the configuration file, then the environment, then flags.

`schema` says what there is; the checks, the flags of ``casfs auto-archive``, the names in the
environment and the documentation all come from there.
"""

from __future__ import annotations

from casfs.config.loading import SYSTEM_FILE, Loaded, Origin, load, load_settings
from casfs.config.schema import AutoArchive, ExpireWhenShort, Settings

__all__ = [
    "SYSTEM_FILE",
    "AutoArchive",
    "ExpireWhenShort",
    "Loaded",
    "Origin",
    "Settings",
    "load",
    "load_settings",
]
