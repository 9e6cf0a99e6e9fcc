"""Losses, and the samplers of their negatives."""
