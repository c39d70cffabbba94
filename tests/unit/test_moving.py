"""Where a relay may send us, and where our token goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from casfs.errors import ConfigError
from ingest.credentials import Credentials
from ingest.moving import MAX_URI_BYTES, next_url
from ingest.sleeping import SleepWatch

if TYPE_CHECKING:
    from pathlib import Path

HERE = "https://relay.example/anon?jwt=ours"


@pytest.mark.parametrize(
    "uri", ["https://other.example/anon?jwt=theirs", "moqt://relay.example:4443/"]
)
def test_a_relay_may_send_us_to_another_that_proves_itself(uri: str) -> None:
    assert next_url(HERE, uri, checked=True) == uri


def test_an_empty_uri_is_the_same_place() -> None:
    assert next_url(HERE, "", checked=True) == HERE


@pytest.mark.parametrize(
    "uri",
    [
        "http://other.example/",
        "file:///etc/passwd",
        "/elsewhere",
        "https://user:secret@other.example/",
        "https://other.example/\n",
        "https://other.example:0/",
        "https://\udcff/",
        "https://other.example/" + "a" * MAX_URI_BYTES,
        "https://127.0.0.1/",
        "https://[::1]:4443/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://localhost/",
        "https://printer.local/",
    ],
)
def test_what_could_do_harm_is_not_followed(uri: str) -> None:
    assert next_url(HERE, uri, checked=True) is None


def test_within_our_own_network_a_relay_may_send_us_on() -> None:
    assert next_url("https://127.0.0.1:1/", "https://127.0.0.1:2/", checked=True)


def test_nobody_is_sent_elsewhere_whose_relay_proves_nothing() -> None:
    assert next_url(HERE, "https://other.example/", checked=False) is None
    assert next_url(HERE, "https://relay.example/b", checked=False) == "https://relay.example/b"


# Tokens


def test_a_token_file_is_read_at_each_connect(tmp_path: Path) -> None:
    file = tmp_path / "token"
    credentials = Credentials(str(file))
    for token in ("first", "second"):
        file.write_text(token + "\n")
        assert credentials.url("https://relay.example/anon") == (
            f"https://relay.example/anon?jwt={token}"
        )
    file.unlink()
    with pytest.raises(ConfigError):
        credentials.url("https://relay.example/anon")


def test_a_token_is_escaped_and_joins_what_is_asked_already() -> None:
    credentials = Credentials(token="a+b/c&d=")
    assert (
        credentials.url("https://r.example/?x=1") == "https://r.example/?x=1&jwt=a%2Bb%2Fc%26d%3D"
    )


def test_the_urls_own_token_wins_over_the_environment_but_not_over_a_file(tmp_path: Path) -> None:
    assert Credentials(token="other").url(HERE) == HERE
    with pytest.raises(ConfigError) as error:
        Credentials(str(tmp_path / "token")).url(HERE)
    assert "ours" not in str(error.value)


def test_our_token_goes_to_the_same_origin_and_to_no_other() -> None:
    for credentials, here in (
        (Credentials(), HERE),
        (Credentials(token="ours"), "https://relay.example/anon"),
    ):
        moved = credentials.moved(here, "https://relay.example/b")
        assert moved == "https://relay.example/b?jwt=ours"
        for elsewhere in ("https://other.example/b", "https://relay.example:4443/b"):
            assert credentials.moved(here, elsewhere) == elsewhere
        theirs = "https://other.example/b?jwt=theirs"
        assert credentials.moved(here, theirs) == theirs


def test_credentials_do_not_show_their_secret() -> None:
    assert "ours" not in repr(Credentials(token="ours"))


# Sleep


def test_a_machine_that_slept_is_noticed_once() -> None:
    boot, mono = [100.0], [40.0]
    watch = SleepWatch(lambda: boot[0], lambda: mono[0])
    boot[0], mono[0] = 110.0, 50.0
    assert watch.slept() == 0
    boot[0], mono[0] = 711.0, 51.0
    assert watch.slept() == 600
    assert watch.slept() == 0
