"""What libraries print instead of saying it to their caller."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def standard_error_to(said: list[str]) -> Iterator[None]:
    """Append to ``said`` what libfuse and fusermount3 print: they have no other way to say it."""
    saved = os.dup(2)
    with os.fdopen(os.memfd_create("said"), "r+b") as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            captured.seek(0)
            said.append(captured.read().decode(errors="replace"))
