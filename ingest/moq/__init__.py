"""MoQ for a subscriber: codecs and sessions, one module per protocol family, without I/O."""
