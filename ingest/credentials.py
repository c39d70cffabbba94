"""The token that opens a relay: from a file, the environment or the URL; never shown.

Relays of moq-dev take it in the query as ``jwt``. A file is read at each connect, so that whoever
renews the token needs to restart nothing.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from msgspec import Struct

from casfs.config.secrets import read_secret
from casfs.errors import ConfigError
from ingest.moving import same_origin

TOKEN_VARIABLE: Final = "CASFS_TOKEN"  # noqa: S105  its name, not its value
_PARAMETER = "jwt"


class Credentials(Struct, frozen=True):
    """Where a token comes from. The file wins over the URL, the URL over the environment."""

    token_file: str | None = None
    """A path, or a bare name: one of systemd's credentials."""
    token: str | None = None
    """From the environment. Secret."""

    def __repr__(self) -> str:
        return f"Credentials(token_file={self.token_file!r})"

    def url(self, url: str) -> str:
        """Return the URL with the token as it is now; both are secret.

        Raises ConfigError if the file cannot be read, or says another token than the URL.
        """
        there = has_token(url)
        if self.token_file is not None:
            if there:
                raise ConfigError(
                    "the relay's URL holds a token, and --token-file gives another",
                    advice="take ?jwt=... out of the URL",
                )
            return _with_token(url, read_secret(self.token_file))
        if self.token and not there:
            if not self.token.isprintable():
                raise ConfigError(f"{TOKEN_VARIABLE} does not hold a token on one line")
            return _with_token(url, self.token.strip())
        return url

    def moved(self, url: str, target: str) -> str:
        """Return ``target``, where the relay at ``url`` sends us, with our token if it may go.

        It may to the same origin, where ``target`` holds none. Raises ConfigError as `url` does.
        """
        if not same_origin(url, target) or _token_of(target) is not None:
            return target
        token = _token_of(self.url(url))
        return target if token is None else _with_token(target, token)


def has_token(url: str) -> bool:
    """Say whether a URL brings its own token."""
    return _token_of(url) is not None


def _token_of(url: str) -> str | None:
    query = parse_qsl(urlsplit(url).query)
    return next((value for name, value in query if name == _PARAMETER), None)


def _with_token(url: str, token: str) -> str:
    parts = urlsplit(url)
    addition = f"{_PARAMETER}={quote(token, safe='')}"
    query = f"{parts.query}&{addition}" if parts.query else addition
    return urlunsplit(parts._replace(query=query))
