"""Pure Flax (Linen) modules, one system a file."""
