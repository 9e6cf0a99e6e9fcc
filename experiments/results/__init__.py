"""Tables of results over systems and seeds."""
