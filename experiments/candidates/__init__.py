"""Candidate generation of Paddle's youtube_recall."""
