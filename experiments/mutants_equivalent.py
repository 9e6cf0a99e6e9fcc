"""Faults that are none: they change nothing that a function promises. Module -> fault -> the reason."""

_SIZE = "how many at a time; results do not depend on it"
_MASKED = "what is masked counts nothing, whatever it is"

EQUIVALENT: dict[str, dict[str, str]] = {
    "losses": {
        "0 -> -1 in jnp.where(weight > 0, prediction - target, 0)": _MASKED,
        "0 -> 1 in jnp.where(weight > 0, prediction - target, 0)": _MASKED,
    },
    "ranking_losses": {
        "0 -> -1 in jnp.where(mask, logit, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask, logit, 0)": _MASKED,
    },
    "evaluate/ranking_metrics": {
        "0.0 -> -1.0 in [0.0]": "of no targets; such users have NaN",
        "0.0 -> 1.0 in [0.0]": "of no targets; such users have NaN",
    },
    "evaluate/rating_errors": {
        "4096 -> 4095": _SIZE,
        "4096 -> 4097": _SIZE,
        "0 -> -1 in data['rating'].shape[0]": "of one dimension",
        "jnp.where(mask, positions, 0) -> positions": "JAX reads the last row; " + _MASKED,
        "0 -> -1 in jnp.where(mask, positions, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask, positions, 0)": _MASKED,
    },
    "evaluate/significance": {
        "_CELLS // len(values) -> _CELLS * len(values)": _SIZE,
        "1 -> 2 in max(_CELLS // len(values), 1)": _SIZE,
    },
    "evaluate/watch_time": {
        "np.cumsum(new) - 1 -> np.cumsum(new) + 1": "labels of ties may begin anywhere",
        "1 -> 2 in max(len(predicted), 1)": "one example has one bin, whichever",
    },
}
