"""A whole supervisor under stress: a bad directory, dying workers, its own death."""
