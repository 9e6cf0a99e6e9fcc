"""Each system in one file."""
