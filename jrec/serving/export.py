"""Trained models as files that predict without this package's model code.

An export is a folder with `predict.jaxexport` (a serialised StableHLO program for CPU, CUDA and TPU)
and `arrays.npz` (its parameters and tables). Neither holds code that loading would execute.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jrec.errors import InputError
from jrec.files import replacing

_PROGRAM, _ARRAYS = "predict.jaxexport", "arrays.npz"
_DIGEST = "program_sha256"
_PLATFORMS = ("cpu", "cuda", "tpu")


def save_export(folder: Path, function: Callable, arrays: Any, *examples: Any) -> None:
    """Writes `function(arrays, *examples)` to a folder.

    Args:
        function: pure; jax.jit-able.
        arrays: a pytree of nested dicts with string keys without `/`; saved with the program.
        examples: pytrees of `jax.ShapeDtypeStruct`, one size of which may be symbolic
            (`jax.export.symbolic_shape("b")`).
    """
    flat = flatten(arrays)
    form = jax.tree.structure(arrays)  # has the empty dicts, too

    def from_flat(flat_arrays: dict[str, jax.Array], *inputs: Any) -> Any:
        return function(jax.tree.unflatten(form, [flat_arrays[name] for name in flat]), *inputs)

    shapes = {name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in flat.items()}
    program = jax.export.export(jax.jit(from_flat), platforms=_PLATFORMS)(shapes, *examples)
    folder.mkdir(parents=True, exist_ok=True)
    content = bytes(program.serialize())
    digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    # Both are written before either takes its name: an old program never meets new arrays.
    with replacing(folder / _ARRAYS) as arrays_file, replacing(folder / _PROGRAM) as program_file:
        np.savez(arrays_file, **flat, **{_DIGEST: digest})
        program_file.write_bytes(content)


def load_export(
    folder: Path,
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> Callable[..., Any]:
    """The exported function, with its arrays bound: call it with the inputs alone.

    Args:
        change: given the arrays by name (as `flatten` names them), others of the same shapes to bind.

    Raises InputError where the folder is no export or a file is damaged.
    """
    program, flat = load_program(folder)
    flat = flat if change is None else change(flat)
    flat = {name: jax.numpy.asarray(value) for name, value in flat.items()}
    call = jax.jit(program)
    return lambda *inputs: call(flat, *inputs)


def load_program(folder: Path) -> tuple[Callable[..., Any], dict[str, np.ndarray]]:
    """The exported function, which may be traced into another, and the arrays it takes first, by name.

    Raises InputError as `load_export`.
    """
    flat = load_arrays(folder / _ARRAYS)
    digest = flat.pop(_DIGEST, None)
    if digest is None:
        raise InputError(f"{folder / _ARRAYS} is damaged; train again.")
    try:
        content = (folder / _PROGRAM).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} does not exist; is the run finished?") from error
    if hashlib.sha256(content).digest() != digest.tobytes():
        raise InputError(f"{folder / _PROGRAM} is damaged or of another run; train again.")
    return jax.export.deserialize(bytearray(content)).call, flat


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file; raises InputError where it is missing or damaged."""
    try:
        # Opened here: np.load leaves a file open where the archive in it is damaged.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; is the run finished?") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; give yourself the right (chmod u+r).") from error
    except Exception as error:
        # zipfile, zlib and NumPy each raise kinds of their own for damaged bytes.
        raise InputError(f"{path} is damaged; train again.") from error


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Nested dicts as one dict with keys joined by `/`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def plain_ids(values: np.ndarray) -> np.ndarray:
    """Returns raw ids without Python objects, which an archive would have to execute."""
    return values.astype(np.str_) if values.dtype == object else np.asarray(values)


def check_count(count: int) -> None:
    """Raises InputError where a list is to have no items."""
    if count < 1:
        raise InputError(f"--count must be 1 or more, but is {count}.")


def best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the `count` highest of scores [M], best first, ties by place; -inf is left out."""
    best = np.argsort(-scores, kind="stable")[:count]
    return best[np.isfinite(scores[best])]
