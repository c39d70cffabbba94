"""What of an archive can be played: sample tables found, timelines put together, files laid out."""
