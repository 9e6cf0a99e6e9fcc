"""Benchmarks: each prints a table, names its peer and the versions, and is run by hand."""
