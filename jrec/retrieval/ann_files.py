"""An approximate index as a folder, which serves without any model.

It holds faiss's file, the vectors with their ids, its inner coordinates, and a JSON file with the fingerprint of model and catalogue and the checksums of the others.
"""

import hashlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from jrec.errors import InputError
from jrec.files import check_seal, read_json, replacing, sealed, write_json
from jrec.retrieval.ann import AnnIndex, import_faiss
from jrec.retrieval.lists import fingerprint

_FILES = ("index.faiss", "vectors.npy", "ids.npy", "metric.npy")
_RECORD = {"kind": str, "model": str, "items": int, "fingerprint": str, "sha256": dict}


def index_fingerprint(index: AnnIndex) -> str:
    """Returns the `fingerprint` of what the index serves."""
    return fingerprint(index.model, index.ids, index.vectors)


def save_index(index: AnnIndex, folder: Path) -> None:
    """Writes an index and all that its use needs; an older one in the folder is replaced."""
    faiss = import_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        faiss_file, *array_files = (
            stack.enter_context(replacing(folder / name)) for name in _FILES
        )
        try:
            faiss.write_index(index.index, str(faiss_file))
        except RuntimeError as error:  # all that faiss says of a full disk
            raise InputError(
                f"{folder / _FILES[0]} could not be written; free some space or check the rights."
            ) from error
        width = index.vectors.shape[1]
        metric = np.zeros((0, width, width)) if index.metric is None else index.metric
        arrays = (index.vectors, index.ids, metric)
        for path, array in zip(array_files, arrays, strict=True):
            np.save(path, array, allow_pickle=False)
        record = {
            "kind": index.kind,
            "model": index.model,
            "items": len(index.ids),
            "fingerprint": index_fingerprint(index),
            "sha256": dict(zip(_FILES, map(_sha256, (faiss_file, *array_files)), strict=True)),
        }
    write_json(folder / "index.json", sealed(record))


def load_index(folder: Path, expected: str) -> AnnIndex:
    """An index from disk.

    Args:
        expected: the `fingerprint` of the model and catalogue to serve.

    Raises InputError where faiss or a file is missing, one is damaged, or the index is of another model
    or catalogue.
    """
    faiss = import_faiss()
    path = folder / "index.json"
    if not path.exists():
        raise InputError(f"{folder} holds no index (no index.json); build it first.")
    record = read_json(path)
    if not isinstance(record, dict) or any(
        not isinstance(record.get(name), kind) for name, kind in _RECORD.items()
    ):
        raise InputError(f"{path} describes no index; build it again.")
    if record["fingerprint"] != expected:
        raise InputError(
            f"{folder} holds an index of model {record['model']} with {record['items']} items "
            f"({record['fingerprint'][:12]}), made for another model or catalogue than this one "
            f"({expected[:12]}); build it again."
        )
    for name in _FILES:
        try:
            intact = _sha256(folder / name) == record["sha256"].get(name)
        except FileNotFoundError as error:
            raise InputError(f"{folder / name} does not exist; build the index again.") from error
        if not intact:
            raise InputError(f"{folder / name} is damaged; build the index again.")
    check_seal(path, record)
    vectors, ids, metric = (np.load(folder / name, allow_pickle=False) for name in _FILES[1:])
    index = faiss.read_index(str(folder / _FILES[0]))
    return AnnIndex(
        record["kind"],
        index,
        ids,
        vectors,
        record["model"],
        metric if len(metric) else None,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
