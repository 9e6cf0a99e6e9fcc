"""Deep recommender systems in functional JAX and Flax."""

__version__ = "0.1.0"
