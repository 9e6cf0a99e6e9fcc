"""Training for any system: state, step, stream, loop, checkpoints; it knows none by name."""
