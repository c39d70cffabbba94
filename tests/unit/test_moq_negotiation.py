"""The two headers that negotiate the protocol, both ways."""

from __future__ import annotations

from typing import cast

import pytest

from casfs.errors import NegotiationError, UsageError
from ingest.moq.interface import Limits, Streams
from ingest.moq.negotiation import (
    PROTOCOLS,
    alpn_offer,
    chosen,
    chosen_by_alpn,
    create_session,
    offer,
)


def test_the_offer_goes_under_both_names_with_the_preferred_first() -> None:
    value = b'"moq-lite-05", "moq-lite-06", "moq-lite-04", "moqt-18", "moqt-16", "moq-00"'
    assert offer() == [
        (b"wt-available-protocols", value),
        (b"sec-webtransport-protocol", value),
    ]


def test_the_user_decides_the_order() -> None:
    assert offer(["moq-lite-04"])[0][1] == b'"moq-lite-04"'


@pytest.mark.parametrize("protocols", [[], ["moq-lite-05", "moq-lite-99"]])
def test_what_we_do_not_speak_is_not_offered(protocols: list[str]) -> None:
    with pytest.raises(UsageError):
        offer(protocols)


@pytest.mark.parametrize(
    "header",
    [
        (b"wt-protocol", b'"moq-lite-04"'),
        (b"wt-protocol", b' "moq-lite-04" ; version=1'),
        (b"wt-protocol", rb'"moq-lite-04";x="\""'),
        (b"wt-protocol", b"moq-lite-04"),
        (b"sec-webtransport-protocol", b'"moq-lite-04"'),
    ],
)
def test_the_choice_is_read_from_either_header(header: tuple[bytes, bytes]) -> None:
    assert chosen([(b":status", b"200"), header]) == "moq-lite-04"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b'"',
        b'"moq-lite-04',
        b'"moq-lite-04" "moq-lite-05"',
        b'"moq-lite-04", "moq-lite-05"',
        rb'"moq\-lite-04"',
        b'"moqt-17"',
        b"\xff",
    ],
)
def test_a_choice_that_was_not_offered_is_an_error(value: bytes) -> None:
    with pytest.raises(NegotiationError, match="not offered"):
        chosen([(b"wt-protocol", value)])


def test_a_protocol_that_we_speak_but_did_not_offer_is_an_error() -> None:
    with pytest.raises(NegotiationError, match="not offered"):
        chosen([(b"wt-protocol", b'"moq-lite-05"')], ["moq-lite-04"])


def test_a_silent_relay_speaks_none_of_ours() -> None:
    with pytest.raises(NegotiationError, match="none of"):
        chosen([(b":status", b"200")], ["moq-lite-05", "moqt-18"])


def test_a_silent_relay_is_taken_for_one_of_draft_14_when_that_is_on_offer() -> None:
    assert chosen([(b":status", b"200")]) == "moqt-14"
    assert chosen([(b"wt-protocol", b'"moq-00"')]) == "moqt-14"


def test_over_raw_quic_the_same_names_stand_in_the_handshake() -> None:
    assert alpn_offer(["moqt-18", "moqt-14"]) == ["moqt-18", "moq-00"]
    assert chosen_by_alpn("moq-00", ["moqt-18", "moqt-14"]) == "moqt-14"
    for name in ("moqt-16", None):
        with pytest.raises(NegotiationError, match="not offered"):
            chosen_by_alpn(name, ["moqt-18"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_on_offer_has_a_session(protocol: str) -> None:
    assert create_session(protocol, cast("Streams", None), Limits()).protocol == protocol


def test_an_unknown_protocol_has_no_session() -> None:
    with pytest.raises(NegotiationError):
        create_session("moqt-99", cast("Streams", None), Limits())
