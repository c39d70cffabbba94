"""Whom to believe, and how a relay is named, before anything is sent."""

from __future__ import annotations

import datetime as dt
import ipaddress
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import CertificateError, ConfigError
from ingest.relay_url import parse_relay_url
from ingest.tls import TlsOptions, check_fingerprint, flaw_of, parse_fingerprint

if TYPE_CHECKING:
    from pathlib import Path


@given(digest=st.binary(min_size=32, max_size=32), upper=st.booleans(), colons=st.booleans())
def test_a_fingerprint_is_read_in_every_usual_form(
    digest: bytes, *, upper: bool, colons: bool
) -> None:
    text = digest.hex(":") if colons else digest.hex()
    assert parse_fingerprint(text.upper() if upper else text) == digest


@pytest.mark.parametrize("text", ["", "12", "g" * 64, "0" * 63, "0" * 65, "sha256"])
def test_what_is_no_sha256_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ConfigError, match="not a SHA-256"):
        TlsOptions(fingerprint=text).check()


@given(certificate=st.binary(), other=st.binary())
def test_only_the_pinned_certificate_passes(certificate: bytes, other: bytes) -> None:
    pinned = sha256(certificate).hexdigest()
    check_fingerprint(certificate, pinned, "relay")
    if other != certificate:
        with pytest.raises(CertificateError, match=sha256(other).hexdigest()):
            check_fingerprint(other, pinned, "relay")


def _certificate(*, issuer: str = "authority", first: int = -1, last: int = 1) -> bytes:
    """Return one for ``relay`` that is valid from and until so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("*.example.test"), x509.DNSName("relay.test")]
    names.append(x509.IPAddress(ipaddress.ip_address("192.0.2.7")))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=first))
        .not_valid_after(now + dt.timedelta(days=last))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_the_flaw_of_a_certificate_is_named() -> None:
    assert "no longer valid since" in flaw_of(_certificate(first=-3, last=-1), "relay.test")
    assert "not valid before" in flaw_of(_certificate(first=1, last=3), "relay.test")
    assert flaw_of(_certificate(issuer="relay"), "relay.test") == "it is self-signed"
    assert flaw_of(b"no certificate", "relay.test") == "it is malformed"
    for host in ("other.test", "example.test", "a.b.example.test", "192.0.2.8"):
        assert f"192.0.2.7, not for {host}" in flaw_of(_certificate(), host)


@pytest.mark.parametrize("host", ["relay.test", "RELAY.test", "a.example.test", "192.0.2.7"])
def test_a_certificate_for_the_host_has_no_flaw_of_its_own(host: str) -> None:
    assert flaw_of(_certificate(), host) == ""


def test_contradicting_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="contradict"):
        TlsOptions(fingerprint="0" * 64, insecure=True).check()


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TlsOptions(ca_file=str(tmp_path / "absent.pem")).check()
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    with pytest.raises(ConfigError, match="holds no certificate"):
        TlsOptions(ca_file=str(empty)).check()


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "authority"),
    [
        ("https://relay.test", "relay.test", 443, "/", "relay.test"),
        ("https://Relay.test:4443/a/b", "relay.test", 4443, "/a/b", "relay.test:4443"),
        ("https://127.0.0.1:1?jwt=x", "127.0.0.1", 1, "/?jwt=x", "127.0.0.1:1"),
        ("https://[::1]:4443/", "::1", 4443, "/", "[::1]:4443"),
        ("https://bücher.test/", "xn--bcher-kva.test", 443, "/", "xn--bcher-kva.test"),
    ],
)
def test_a_relay_url_is_taken_apart(
    url: str, host: str, port: int, target: str, authority: str
) -> None:
    relay = parse_relay_url(url)
    assert (relay.host, relay.port, relay.target) == (host, port, target)
    assert relay.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.test",
        "http://relay.test/secret",
        "moq://relay.test/secret",
        "https:///secret",
        "https://relay.test:0/secret",
        "https://relay.test:66000/secret",
        "https://relay.test:x/secret",
        "https://user:secret@relay.test/",
        "https://relay.test/secret#part",
        "https://relay.test/a secret",
        "https://relay.test/ä-secret",
        "https://[::1/secret",
        "https://" + "a" * 70 + ".test/secret",
    ],
)
def test_what_is_no_relay_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_relay_url(url)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_no_text_breaks_the_reader(url: str) -> None:
    try:
        relay = parse_relay_url(url)
    except ConfigError:
        return
    assert relay.host


def test_a_relay_url_does_not_show_its_secrets() -> None:
    relay = parse_relay_url("https://relay.test/token?jwt=secret")
    assert "token" not in repr(relay) + str(relay)
    assert "secret" not in repr(relay) + str(relay)
