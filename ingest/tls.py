"""Whom to believe: how a relay's certificate is checked.

Four ways, from the usual to the reckless: the system's roots, one's own roots (``ca_file``), one
certificate known by its SHA-256 (``fingerprint``; chain, name and dates do not matter then, as in
WebTransport's serverCertificateHashes), or none at all (``insecure``).
"""

from __future__ import annotations

import hmac
import re
import ssl
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import CertificateError, ConfigError

if TYPE_CHECKING:
    from cryptography import x509

_SHA256_DIGITS = re.compile(r"[0-9a-f]{64}")


class TlsOptions(Struct, frozen=True):
    """How the relay's certificate is checked. At most one of the three may be given."""

    ca_file: str | None = None
    """PEM file with the roots to trust instead of the system's."""
    fingerprint: str | None = None
    """SHA-256 of the certificate (DER), hexadecimal; colons and case do not matter."""
    insecure: bool = False
    """Check nothing: anybody on the way can pose as the relay."""

    @property
    def verifies_chain(self) -> bool:
        """Whether chain, name and dates are checked during the handshake."""
        return self.fingerprint is None and not self.insecure

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is sent.

        Raises:
            ConfigError: a fingerprint that is none, a file that holds no certificate, or settings
                that contradict each other.
        """
        if sum((self.ca_file is not None, self.fingerprint is not None, self.insecure)) > 1:
            raise ConfigError(
                "the TLS settings contradict each other",
                advice="give one of: a CA file, a fingerprint, insecure",
            )
        if self.fingerprint is not None:
            parse_fingerprint(self.fingerprint)
        if self.ca_file is not None:
            _check_ca_file(self.ca_file)


class TrustAnchors(Struct, frozen=True):
    """Where root certificates are: a PEM file, an OpenSSL hash directory, or both."""

    file: str | None
    directory: str | None


def trust_anchors(options: TlsOptions) -> TrustAnchors:
    """Return the roots that ``options`` ask for.

    Raises:
        CertificateError: the system has no root certificates.
    """
    if options.ca_file is not None:
        return TrustAnchors(options.ca_file, None)
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        raise CertificateError(
            "this system has no root certificates",
            advice="install ca-certificates, or name a CA file or a fingerprint",
        )
    return TrustAnchors(paths.cafile, paths.capath)


def parse_fingerprint(text: str) -> bytes:
    """Read a SHA-256 in hexadecimal, as openssl, browsers and relays print it.

    Raises:
        ConfigError: it is something else.
    """
    digits = "".join(text.split()).replace(":", "").lower()
    if not _SHA256_DIGITS.fullmatch(digits):
        raise ConfigError(
            "the certificate fingerprint is not a SHA-256",
            advice="give 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them",
        )
    return bytes.fromhex(digits)


def check_fingerprint(certificate: bytes, expected: str, peer: str) -> None:
    """Compare a certificate (DER) with the fingerprint ``expected`` for ``peer``.

    Raises:
        CertificateError: it is another certificate.
    """
    found = sha256(certificate).digest()
    if not hmac.compare_digest(found, parse_fingerprint(expected)):
        raise CertificateError(
            f"{peer} has another certificate than the expected one: its fingerprint is "
            f"{found.hex()}",
            advice="pin that one only if you know from elsewhere that it is the relay's",
        )


def flaw_of(certificate: bytes, host: str) -> str:
    """Say why a certificate (DER) that was refused is not one for ``host``, now.

    Empty when it could be: then it is the chain to a root that fails. For messages alone: what is
    accepted is decided in the handshake.
    """
    # It is large, and wanted when something is wrong (or by aioquic, which has it anyhow).
    from cryptography import x509

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = _names_of(parsed)
    except ValueError:
        return "it is malformed"
    now = datetime.now(UTC)
    if now < parsed.not_valid_before_utc:
        return f"it is not valid before {parsed.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    if now > parsed.not_valid_after_utc:
        return f"it is no longer valid since {parsed.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if not any(_covers(name, host) for name in names):
        return f"it is for {', '.join(names[:5]) or 'no host'}, not for {host}"
    return "it is self-signed" if parsed.issuer == parsed.subject else ""


def _names_of(certificate: x509.Certificate) -> list[str]:
    """Return the hosts that a certificate is for."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names: list[str] = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [name if name.isprintable() else "?" for name in names] + [str(ip) for ip in addresses]


def _covers(name: str, host: str) -> bool:
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:]
    return name == host


def _check_ca_file(path: str) -> None:
    from cryptography import x509

    try:
        with open(path, "rb") as file:
            x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        raise ConfigError(f"the CA file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(
            f"the CA file {path} holds no certificate", advice="give one in PEM form"
        ) from None
