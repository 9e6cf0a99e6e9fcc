"""The YouTube paper's ranking network."""
