"""Errors of predicted ratings; later, ranking over whole catalogues."""
