"""What the archive knows about media: pure functions over bytes and values."""
