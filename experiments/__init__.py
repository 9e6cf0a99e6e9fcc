"""One script a system; each can be read, forked and run alone."""
