"""``python -m casfs``: the ``casfs`` program."""

from __future__ import annotations

from casfs.cli import main

main()
