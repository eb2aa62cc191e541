"""Text shards: finding them, knowing them again, and reading their rows."""
