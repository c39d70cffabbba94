"""A real relay and a real publisher for each test that names them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from ingest.tls import TlsOptions
from tests.real.programs import Installation
from tools.loopback.publisher import Publisher, running_publisher
from tools.loopback.relay import Relay, running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Return a relay that this test may do anything to; it refuses sessions for /forbidden."""
    with running_relay(reject=["/forbidden"]) as running:
        yield running


@pytest.fixture
def publisher(relay: Relay) -> Iterator[Publisher]:
    """Return a publisher connected to ``relay``."""
    with running_publisher(relay.url, relay.fingerprint) as running:
        yield running


@pytest.fixture
def tls(relay: Relay) -> TlsOptions:
    """Return the options that accept ``relay``'s certificate."""
    return TlsOptions(fingerprint=relay.fingerprint)


class Certificate(Struct, frozen=True):
    """PEM files."""

    certificate: str
    key: str


class CertificateAuthority:
    """Issues certificates for tests; its own is at ``certificate``."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        root = self._builder(self._name, self._key, days=2).add_extension(basic, critical=True)
        self.certificate = self._write(f"{name}.pem", root.sign(self._key, hashes.SHA256()))

    def issue(
        self, *hosts: str, name: str = "relay", days: int = 1, san: bool = True
    ) -> Certificate:
        """Return a certificate for ``hosts`` that is valid until ``days`` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, days=days)
        if san:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        key_file = self._directory / f"{name}.key"
        key_file.write_bytes(pem)
        signed = builder.sign(self._key, hashes.SHA256())
        return Certificate(self._write(f"{name}.pem", signed), str(key_file))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=30))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> str:
        path = self._directory / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Return a certificate authority that nobody else knows."""
    return CertificateAuthority(tmp_path, "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> CertificateAuthority:
    """Return another one."""
    return CertificateAuthority(tmp_path, "stranger")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Return a fresh archive and the casfs command to use it with."""
    installed = Installation(tmp_path)
    outcome = installed.run("init")
    assert outcome.code == 0, outcome.err
    return installed


@pytest.fixture
def quic_of_recorders(installation: Installation, quic_backend: str) -> None:
    """Run the test with recorders that use one QUIC library, then with the other."""
    installation.quic = quic_backend
