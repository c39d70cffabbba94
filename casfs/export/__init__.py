"""Takes a part of the archive out of it, to where other programs can use it."""
