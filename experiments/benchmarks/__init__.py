"""Measurements: each prints a table, its versions and how busy the machine was."""
