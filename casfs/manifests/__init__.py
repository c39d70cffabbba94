"""Manifests: append-only journals of JSON lines, the truth about what the archive holds."""
