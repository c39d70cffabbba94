"""Proof that nothing has rotted: every line of every manifest, every byte of every object.

The manifests are read from the beginning (never the index, which could hide what they lost), their
chains and the heads in the CAS root are checked, and each object that any record needs is looked
at, as far as the `Plan` says. Nothing stops at a first finding, and nothing is changed unless the
plan asks for quarantine or repair.
"""

from __future__ import annotations

from casfs.verify.plan import Level, Plan
from casfs.verify.report import (
    DamagedObject,
    GroupName,
    ManifestError,
    MissingObject,
    Progress,
    RepairedObject,
    Report,
    UnmendedObject,
)
from casfs.verify.state import VerifyState, default_directory, open_state
from casfs.verify.verification import verify

__all__ = [
    "DamagedObject",
    "GroupName",
    "Level",
    "ManifestError",
    "MissingObject",
    "Plan",
    "Progress",
    "RepairedObject",
    "Report",
    "UnmendedObject",
    "VerifyState",
    "default_directory",
    "open_state",
    "verify",
]
