"""Which certificates of a real relay are accepted, and what is said of those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from casfs.errors import CertificateError
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from tests.real.conftest import Certificate, CertificateAuthority
    from tools.loopback.relay import Relay

pytestmark = pytest.mark.usefixtures("quic_backend")


async def _open(url: str, tls: TlsOptions) -> str:
    async with open_session(url, tls=tls, options=SessionOptions()) as session:
        return session.protocol


async def _open_as(
    certificate: Certificate, ca_file: str | None, *, host: str = "127.0.0.1"
) -> str:
    """Connect to ``host`` where a relay presents ``certificate``."""
    with running_relay(certificate=certificate.certificate, key=certificate.key) as relay:
        return await _open(f"https://{host}:{relay.port}", TlsOptions(ca_file=ca_file))


async def test_the_pinned_certificate_is_accepted_in_any_spelling(relay: Relay) -> None:
    digits = relay.fingerprint.upper()
    spelt = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    assert await _open(relay.url, TlsOptions(fingerprint=spelt))


async def test_another_certificate_than_the_pinned_one_is_not(relay: Relay) -> None:
    with pytest.raises(CertificateError, match=relay.fingerprint):
        await _open(relay.url, TlsOptions(fingerprint="0" * 64))


async def test_a_self_signed_certificate_is_not_accepted_by_default(relay: Relay) -> None:
    with pytest.raises(CertificateError, match="self-signed"):
        await _open(relay.url, TlsOptions())


async def test_insecure_accepts_anything(relay: Relay) -> None:
    assert await _open(relay.url, TlsOptions(insecure=True))


async def test_a_certificate_of_the_named_authority_is_accepted(
    authority: CertificateAuthority,
) -> None:
    certificate = authority.issue("localhost", "127.0.0.1")
    assert await _open_as(certificate, authority.certificate)
    assert await _open_as(certificate, authority.certificate, host="localhost")


async def test_a_certificate_of_another_authority_is_not(
    authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    certificate = authority.issue("localhost", "127.0.0.1")
    with pytest.raises(CertificateError, match="issuer"):
        await _open_as(certificate, stranger.certificate)


async def test_a_certificate_for_another_host_is_not(authority: CertificateAuthority) -> None:
    certificate = authority.issue("elsewhere.test")
    with pytest.raises(CertificateError, match="elsewhere"):
        await _open_as(certificate, authority.certificate, host="localhost")


async def test_a_certificate_for_a_name_is_not_one_for_the_address(
    authority: CertificateAuthority,
) -> None:
    certificate = authority.issue("localhost")
    with pytest.raises(CertificateError, match=r"127\.0\.0\.1"):
        await _open_as(certificate, authority.certificate)


async def test_a_certificate_that_has_expired_is_not(authority: CertificateAuthority) -> None:
    certificate = authority.issue("localhost", "127.0.0.1", days=-1)
    with pytest.raises(CertificateError, match="no longer valid"):
        await _open_as(certificate, authority.certificate)
