"""Errors of predicted ratings, ranking over whole catalogues, tests of significance."""
