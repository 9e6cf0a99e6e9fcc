"""Embedding tables updated by the rows that a batch reads."""
