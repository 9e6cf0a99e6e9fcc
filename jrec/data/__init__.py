"""Files to arrays: NumPy and pandas only, no JAX."""
