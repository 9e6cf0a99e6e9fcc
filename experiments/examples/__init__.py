"""Forks of the experiments, small enough to copy."""
