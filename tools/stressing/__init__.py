"""tools/stress: everything upon one archive at once, for as long as wanted."""
