"""Baselines of every task."""
