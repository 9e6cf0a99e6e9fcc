"""Trained models as folders: save, load, predict, recommend."""
