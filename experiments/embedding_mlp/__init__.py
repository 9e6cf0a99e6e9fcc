"""The embedding MLP on MovieLens."""
