"""Asks a stream directory, over HTTP or in a local file: bounded, timed, and only if it changed."""

from __future__ import annotations

import mmap
import os
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import httpx
import trio
from msgspec import Struct
from msgspec.structs import replace

from casfs.errors import ConfigError, DirectoryError
from ingest.directory import Fields, Listing, ListingLimits, announcing_relay, read_listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.digest import Digest

from casfs.digest import digest_of

_MOST_REDIRECTS = 3
_DRIPPING = 4
_CONDITIONS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


class FetchOptions(Struct, frozen=True):
    """How directories are asked."""

    fields: Fields = Fields()
    limits: ListingLimits = ListingLimits()
    token: str | None = None
    """Sent as a bearer token. Secret."""
    ca_file: str | None = None
    connect_timeout: float = 10.0
    timeout: float = 30.0
    """For the whole answer, seconds."""


class Fetcher:
    """One directory, asked again and again. A context manager."""

    def __init__(self, url: str, options: FetchOptions) -> None:
        self._url = url
        self._options = options
        self._path = unquote(urlsplit(url).path) if urlsplit(url).scheme == "file" else None
        self._conditions: dict[str, str] = {}
        self._last: Listing | None = None
        self._last_digest: Digest | None = None
        self._last_stat: tuple[int, int, int] | None = None
        self._client: httpx.Client | None = None

    async def fetch(self) -> Listing:
        """Return what the directory lists now; raises DirectoryError.

        The same object as the last time if nothing changed. It is asked, and read, in a thread.
        """
        ask = self._get if self._path is None else partial(self._read_file, self._path)
        try:
            with trio.fail_after(_DRIPPING * self._options.timeout):
                answer = await trio.to_thread.run_sync(_outcome, ask, abandon_on_cancel=True)
        except trio.TooSlowError:
            # It sends its header drop by drop. That connection is left to itself.
            self._client = None
            raise DirectoryError("it gave no answer in time") from None
        if isinstance(answer, str):
            raise DirectoryError(answer)
        return answer

    def close(self) -> None:
        """End its connections."""
        if self._client is not None:
            self._client.close()

    # Files

    def _read_file(self, path: str) -> Listing:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self._last is not None and stamp == self._last_stat:
                    return self._last
                body = file.read(self._options.limits.bytes + 1)
        except OSError as error:
            raise DirectoryError(f"it cannot be read: {error.strerror or error}") from None
        plain = not body.lstrip().startswith((b"[", b"{"))
        listing = self._read(body, plain=plain)
        self._last_stat = stamp
        return listing

    # HTTP

    def _get(self) -> Listing:
        if self._client is None:
            self._client = self._new_client()
        deadline = time.monotonic() + self._options.timeout
        headers = dict(self._conditions) if self._last is not None else {}
        if self._options.token is not None:
            headers["Authorization"] = f"Bearer {self._options.token}"
        try:
            with self._client.stream("GET", self._url, headers=headers) as response:
                if response.status_code == httpx.codes.NOT_MODIFIED and self._last is not None:
                    return self._last
                if response.status_code != httpx.codes.OK:
                    raise DirectoryError(f"it answers with status {response.status_code}")
                body = self._body(response, deadline)
        except httpx.TimeoutException:
            raise DirectoryError("it does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DirectoryError(f"it cannot be asked: {_why(error)}") from None
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        listing = self._read(body, plain=kind == "text/plain")
        self._conditions = {
            condition: response.headers[name]
            for name, condition in (
                ("etag", "If-None-Match"),
                ("last-modified", "If-Modified-Since"),
            )
            if name in response.headers
        }
        return listing

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        """Return the answer, if it keeps within the limit."""
        if response.headers.get("content-encoding", "identity") != "identity":
            # A small piece can unpack to anything before it is counted.
            raise DirectoryError("its answer is compressed, which was not asked for")
        most = self._options.limits.bytes
        # What is mapped goes back to the system at once; a heap would keep much of it.
        with mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE) as body:
            for piece in response.iter_bytes(1 << 16):
                if body.tell() + len(piece) > most:
                    raise DirectoryError(f"its answer has more than {most} bytes")
                if time.monotonic() > deadline:
                    raise DirectoryError(
                        f"it gave no whole answer in {self._options.timeout:g} seconds"
                    )
                body.write(piece)
            return body[: body.tell()]

    def _new_client(self) -> httpx.Client:
        try:
            context = ssl.create_default_context(cafile=self._options.ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigError(
                f"the CA file {self._options.ca_file} cannot be used", advice="give one in PEM form"
            ) from None
        return httpx.Client(
            verify=context,
            timeout=httpx.Timeout(self._options.timeout, connect=self._options.connect_timeout),
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            trust_env=True,
            headers={"Accept": "application/json, text/plain", "Accept-Encoding": "identity"},
        )

    def _read(self, body: bytes, *, plain: bool) -> Listing:
        digest = digest_of(body)
        if self._last is not None and digest == self._last_digest:
            return self._last
        listing = read_listing(
            body, plain=plain, fields=self._options.fields, limits=self._options.limits
        )
        self._last, self._last_digest = with_relay(listing, announcing_relay(self._url)), digest
        return self._last


def _outcome(ask: Callable[[], Listing]) -> Listing | str:
    """Return what is listed, or what a DirectoryError says.

    What a thread raises, trio holds in a cycle with all its frames until the collector comes by;
    and these hold the answer, which may be large.
    """
    try:
        return ask()
    except DirectoryError as error:
        return error.message


def with_relay(listing: Listing, relay: str | None) -> Listing:
    """Return the listing with a relay for what names none."""
    if relay is None:
        return listing
    return replace(
        listing,
        listed=tuple(
            entry if entry.relays else replace(entry, relays=(relay,)) for entry in listing.listed
        ),
    )


def _why(error: BaseException) -> str:
    """Say what was wrong, in the words of whoever knew it first; never what the server sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
