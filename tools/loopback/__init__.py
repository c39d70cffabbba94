"""A real relay and a real publisher on loopback, for tests and for the quickstart."""
