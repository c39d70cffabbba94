"""tools/crash: writers that are cut off, killed and failed, and the check of what they promised."""
