"""Secrets: in files of their own or systemd's credentials, never in settings or the log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from casfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_BYTES = 64 << 10


def read_secret(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the secret in the file ``name``; a bare name is one of systemd's credentials.

    Surrounding white space does not count. Raises ConfigError, which does not show it.
    """
    path = name
    if "/" not in name:
        directory = environment.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(
                f"there is no credential {name}: $CREDENTIALS_DIRECTORY is not set",
                advice="set LoadCredential= in the unit, or give the path of a file",
            )
        path = os.path.join(directory, name)
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read(_MOST_BYTES + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"the secret {path} cannot be read: {reason}") from None
    if not secret or len(secret) > _MOST_BYTES or not secret.isprintable():
        raise ConfigError(f"the file {path} does not hold a secret on one line")
    return secret
