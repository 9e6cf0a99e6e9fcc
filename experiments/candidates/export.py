"""A trained candidate network as a program that serves without this code base's model code."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST, UNKNOWN
from jrec.models.candidates import CandidateNetwork
from jrec.serving.candidates import export_candidate_model

from .batches import device_clicks
from .network import feature_names


def export_run(
    folder: Path,
    model: CandidateNetwork,
    params: Any,
    clicks: Clicks,
    count_V: np.ndarray,
    length: int,
) -> None:
    """Writes a trained network as a program that serves without this code.

    Args:
        count_V: training clicks of each item row. length: clicks of a history that it reads.
    """
    data = device_clicks(clicks, *feature_names(model))
    tables = {
        name: table
        for name, table in params["params"].items()
        if name not in ("output_table", "bias_table")  # the catalogue holds them
    }
    arrays = {
        "params": {"params": tables},
        "user_features": {
            name: _as_dict(_with_unknown(column)) for name, column in data["user_features"].items()
        },
        "item_features": {name: _as_dict(column) for name, column in data["item_features"].items()},
    }

    def vectors(arrays: Any, item_BL: jax.Array, mask_BL: jax.Array, user_B: jax.Array) -> Any:
        def read(of: str, rows: jax.Array) -> dict[str, Any]:
            return {
                name: _from_dict({key: part[rows] for key, part in column.items()})
                for name, column in arrays.get(of, {}).items()
            }

        batch = {
            "item": item_BL,
            "mask": mask_BL,
            "user_features": read("user_features", user_B),
            "item_features": read("item_features", item_BL),
            "age": jnp.zeros(user_B.shape, jnp.float32),
        }
        return model.apply(arrays["params"], batch, method="last_vectors")

    rows = jnp.arange(FIRST, model.item_rows, dtype=jnp.int32)
    weight_MD, bias_M = model.apply(params, rows, method="outputs")
    scored = np.asarray(weight_MD), np.asarray(bias_M)
    export_candidate_model(folder, vectors, arrays, *scored, clicks, count_V, length)


def _with_unknown(column: Any) -> Any:
    """One row more, of a user of whom nothing is known."""
    if isinstance(column, tuple):
        return tuple(jnp.concatenate([part, jnp.zeros_like(part[:1])]) for part in column)
    return jnp.append(column, jnp.int32(UNKNOWN))


def _as_dict(column: Any) -> dict[str, Any]:
    return (
        dict(zip(("values", "mask"), column, strict=True))
        if isinstance(column, tuple)
        else {"rows": column}
    )


def _from_dict(column: dict[str, Any]) -> Any:
    return column["rows"] if "rows" in column else (column["values"], column["mask"])
