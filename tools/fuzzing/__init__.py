"""Whatever a relay says: tools/fuzz."""
