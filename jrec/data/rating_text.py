"""Ratings as the lines of text that DeepRecommender reads: `user \t item \t rating`."""

from pathlib import Path

import numpy as np

from jrec.data.rating_parts import PARTS, RatingParts, RatingRows

_CHUNK = 1 << 20


def write_original_text(folder: Path, name: str, parts: RatingParts) -> None:
    """Writes `N3M_TRAIN/n3m.train.txt` and the like for the name `n3m`, as the original lays out.

    Users and items have their raw ids (the original numbers them as it meets them, which depends on
    the order of a directory listing, and numbers them again when it reads); ratings are `4.0`.
    """
    for part in PARTS:
        target = folder / f"{name.upper()}_{part.upper()}"
        target.mkdir(parents=True, exist_ok=True)
        with (target / f"{name}.{part}.txt").open("wb") as file:
            for block in text_blocks(parts, getattr(parts, part)):
                file.write(block)


def text_blocks(parts: RatingParts, rows: RatingRows):
    """The text of one part in blocks of whole lines."""
    users, items = _texts(parts.users), _texts(parts.items)
    values = np.unique(rows.rating) if rows.rating.dtype != np.uint8 else np.arange(256)
    stars = _texts(values.astype(np.float64))
    for start in range(0, len(rows), _CHUNK):
        stop = min(start + _CHUNK, len(rows))
        user = np.searchsorted(rows.offsets, np.arange(start, stop), side="right") - 1
        columns = [
            users[user],
            items[rows.item[start:stop]],
            stars[np.searchsorted(values, rows.rating[start:stop])],
        ]
        ends = [np.full((stop - start, 1), ord(mark), np.uint8) for mark in "\t\t\n"]
        cells = [cell for pair in zip(columns, ends, strict=True) for cell in pair]
        flat = np.concatenate(cells, axis=1).ravel()
        yield flat[flat != 0].tobytes()  # shorter numbers were filled up with zero bytes


def _texts(values: np.ndarray) -> np.ndarray:
    """uint8 [count, width]: each value as text, zero bytes after it."""
    texts = np.array([str(value).encode() for value in values.tolist()])
    return texts.view(np.uint8).reshape(len(texts), -1)
