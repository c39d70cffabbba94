"""casfs: a content-addressed archive and filesystem for live television over MoQ."""

__version__ = "0.1.0"
