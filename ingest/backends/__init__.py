"""QUIC without I/O, by one of two libraries that are alike to everything above."""
