"""The content-addressed store: objects named by the BLAKE3 of their bytes."""
