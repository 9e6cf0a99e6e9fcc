"""Candidate generation and ranking joined."""
