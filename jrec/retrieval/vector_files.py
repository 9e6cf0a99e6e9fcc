"""Vectors with their raw ids on disk: `.npy` pairs, and the text lines of the Paddle source."""

from pathlib import Path

import numpy as np

from jrec.errors import InputError
from jrec.files import replacing


def save_vectors(folder: Path, name: str, ids: np.ndarray, vectors_ND: np.ndarray) -> None:
    """Writes `name.npy` (float32 [N, D]) and `name_ids.npy` ([N], int or str) into a folder.

    Both are written before either takes its name.
    """
    ids, vectors_ND = np.asarray(ids), np.asarray(vectors_ND, np.float32)
    if len(ids) != len(vectors_ND):
        raise ValueError(f"{len(ids)} ids for {len(vectors_ND)} vectors")
    folder.mkdir(parents=True, exist_ok=True)
    vectors_path, ids_path = _paths(folder, name)
    with replacing(vectors_path) as vectors_file, replacing(ids_path) as ids_file:
        np.save(vectors_file, vectors_ND, allow_pickle=False)
        np.save(ids_file, ids, allow_pickle=False)


def load_vectors(folder: Path, name: str, mapped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(ids [N], vectors float32 [N, D]) as `save_vectors` wrote them.

    Args:
        mapped: leave the vectors on disk and map them (they are then not checked for NaN).

    Raises InputError where a file is missing or damaged, or the two do not belong together.
    """
    vectors_path, ids_path = _paths(folder, name)
    vectors_ND, ids = _load(vectors_path, "r" if mapped else None), _load(ids_path, None)
    if vectors_ND.ndim != 2 or vectors_ND.dtype != np.float32 or ids.shape != vectors_ND.shape[:1]:
        raise InputError(
            f"{vectors_path} and {ids_path.name} do not belong together; write the vectors again."
        )
    if not mapped and not np.isfinite(vectors_ND).all():
        raise InputError(f"{vectors_path} holds numbers that are not finite; write it again.")
    return ids, vectors_ND


def write_text_vectors(path: Path, vectors_ND: np.ndarray) -> None:
    """The source's text form: one vector a line, numbers joined by commas, in the order of the rows.

    Nine significant digits, so that `read_text_vectors` gives the same float32 numbers back.
    """
    import pandas as pd  # slow to import

    with replacing(path) as temporary:
        pd.DataFrame(np.asarray(vectors_ND, np.float32)).to_csv(
            temporary, header=False, index=False, float_format="%.9g", lineterminator="\n"
        )


def read_text_vectors(path: Path) -> np.ndarray:
    """float32 [N, D] from text lines; raises InputError naming the first bad line."""
    import pandas as pd  # slow to import

    try:
        vectors_ND = pd.read_csv(path, header=None, dtype=np.float32, skip_blank_lines=False)
        vectors_ND = vectors_ND.to_numpy()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; write the vectors first.") from error
    except pd.errors.EmptyDataError as error:
        if path.stat().st_size:  # a first line without anything looks empty to pandas
            raise _bad_line(path) from error
        return np.zeros((0, 0), np.float32)
    except (ValueError, UnicodeDecodeError) as error:  # ParserError is a ValueError
        raise _bad_line(path) from error
    if not np.isfinite(vectors_ND).all():
        raise _bad_line(path)
    return vectors_ND


def _bad_line(path: Path) -> InputError:
    """What is wrong where; reads line by line, so it runs only after the fast reader stumbled."""
    width = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split(",")
            width = width or len(fields)
            try:
                finite = bool(np.isfinite(np.array(fields, np.float32)).all())
            except ValueError:
                finite = False
            if not finite or len(fields) != width:
                return InputError(
                    f"{path}, line {number}: not {width} finite numbers joined by commas; "
                    f"write the vectors again."
                )
    return InputError(f"{path} holds no vectors; write them again.")


def _load(path: Path, mode: str | None) -> np.ndarray:
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; write the vectors first.") from error
    except (
        Exception
    ) as error:  # of damaged bytes NumPy and its tokenizer each raise kinds of their own
        raise InputError(f"{path} is damaged; write the vectors again.") from error


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.npy", folder / f"{name}_ids.npy"
