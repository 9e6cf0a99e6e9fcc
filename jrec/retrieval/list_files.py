"""Ranked lists as one file with raw ids, written part by part, so that a killed run goes on.

Parts stand in a hidden folder beside the file until all are there; then they become the file. Parquet
needs the extra `parquet`; TSV needs nothing.
"""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jrec.errors import InputError
from jrec.files import plain, read_json, replacing, write_json
from jrec.retrieval.lists import Lists, ListSource

if TYPE_CHECKING:  # slow to import
    import pandas as pd


def default_suffix() -> str:
    """`.parquet` where pyarrow is installed, else `.tsv`."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return ".tsv"
    return ".parquet"


def write_lists(
    path: Path,
    key: str,
    key_ids: np.ndarray,
    item_ids: np.ndarray,
    lists: ListSource,
    settings: dict[str, Any],
    chunk: int = 8192,
) -> Generator[int, None, int]:
    """Writes N lists to a `.parquet` or `.tsv` file with columns key, rank, item, score and rule.

    Yields how many keys are done, after each part, and returns how many lists the file holds: an empty list has
    no line. A run that was stopped anywhere is gone on with by
    the same call and ends with the same bytes.

    Args:
        key: the first column's name: `user`, `category`, or `source` for item-to-item lists.
        key_ids: [N], raw id of each list. item_ids: [M], raw id of each item row.
        lists: given start and stop, those lists.
        settings: JSON-like, all else that decides the lists (the vectors' fingerprint, the rules); parts
            made with other settings are refused.
        chunk: lists a part; two parts are in memory at a time.

    Raises InputError for another kind of file, one whose package is missing, and parts of another run.
    """
    if path.suffix not in (".parquet", ".tsv"):
        raise InputError(f"{path} must end in .parquet or .tsv; choose one of the two.")
    if path.suffix == ".parquet" and default_suffix() == ".tsv":
        raise InputError(
            "Parquet needs pyarrow, which is not installed; pip install 'jrec[parquet]' brings it, "
            "or let the file end in .tsv."
        )
    key_ids, item_ids = np.asarray(key_ids), np.asarray(item_ids)
    folder = path.with_name(f".{path.name}.parts")
    record = {"key": key, "lists": len(key_ids), "chunk": chunk, "form": _FORM, **settings}
    record |= {"key_ids": _digest(key_ids), "item_ids": _digest(item_ids)}
    _open_parts(folder, plain(record))
    starts = range(0, max(len(key_ids), 1), chunk)
    parts = [folder / f"{number:06d}{path.suffix}" for number in range(len(starts))]
    whole, held = folder / f"whole{path.suffix}", 0
    with _joining(whole, [key, *_COLUMNS]) as append, ThreadPoolExecutor(1) as writer:

        def write(part: Path, ids: np.ndarray, some: Lists | None) -> None:
            nonlocal held
            if some is not None:
                _write_part(part, key, ids, item_ids, some)
            held += _lists_in(part) if some is None else int(some.mask.any(1).sum())
            append(part)

        written = writer.submit(lambda: None)
        for start, part in zip(starts, parts, strict=True):
            ids = key_ids[start : start + chunk]
            # Made while the part before is written.
            some = None if part.exists() else lists(start, start + len(ids))
            written.result()
            if start > 0:
                yield start
            written = writer.submit(write, part, ids, some)
        written.result()
        yield len(key_ids)
    whole.replace(path)
    shutil.rmtree(folder)
    return held


def read_lists(path: Path) -> "pd.DataFrame":
    """The table that `write_lists` wrote; raises InputError where it is missing or damaged."""
    import pandas as pd  # slow to import

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # Ids such as "NA" or "" are ids, not gaps.
        kinds = defaultdict(lambda: str, rank=np.int32, score=np.float32)
        frame = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=kinds)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; mine the lists first.") from error
    except Exception as error:
        # pandas and Arrow each raise kinds of their own for damaged bytes.
        raise InputError(f"{path} is damaged; mine the lists again.") from error
    if frame.columns[1:].tolist() != list(_COLUMNS):
        raise InputError(f"{path} holds no lists; mine them again.")
    if (frame["rank"] < 1).any() or not np.isfinite(frame["score"]).all():
        raise InputError(f"{path} is damaged; mine the lists again.")
    for name in (frame.columns[0], "item"):
        frame[name] = _numbers_if_all(frame[name])
    return frame


def _numbers_if_all(ids: "pd.Series") -> "pd.Series":
    """Whole numbers where each text is one as it is written; `007` or `1e3` keep all of them text."""
    plain_number = r"0|[1-9]\d{0,17}"
    return ids.astype(np.int64) if ids.str.fullmatch(plain_number).all() else ids


def watch_lists(done: Generator[int, None, int], total: int, what: str, console: Console) -> int:
    """Drains `write_lists` with a progress bar and returns what it does; `what` are its keys: users, items."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # elsewhere it would leave an empty line
    )
    with bar:
        task = bar.add_task("", total=total)
        while True:
            try:
                bar.update(task, completed=next(done))
            except StopIteration as finished:
                return finished.value


_COLUMNS = ("rank", "item", "score", "rule")
_FORM = 2  # of the parts' files: those of another form are refused


def _write_part(
    path: Path, key: str, key_ids: np.ndarray, item_ids: np.ndarray, lists: Lists
) -> None:
    mask_NK = lists.mask
    list_E = np.repeat(np.arange(len(mask_NK)), mask_NK.sum(1))
    rank_E = np.cumsum(mask_NK, 1, dtype=np.int32)[mask_NK]
    row_E, score_E = lists.rows[mask_NK], lists.scores[mask_NK].astype(np.float32)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            import pyarrow as arrow  # slow to import
            from pyarrow import parquet

            def taken(values: np.ndarray, places: np.ndarray) -> arrow.Array:
                array = arrow.array(values)
                if arrow.types.is_string(array.type):  # what pandas 3 writes, and reads faster
                    array = array.cast(arrow.large_string())
                return array.take(arrow.array(places))

            rules = taken(lists.rules, list_E)
            columns = [taken(key_ids, list_E), rank_E, taken(item_ids, row_E), score_E, rules]
            table = arrow.table(columns, [key, *_COLUMNS])
            # To be read once: neither compressed nor looked through for repeats, but where all are.
            repeated = [key, "rank", "item", "rule"]
            parquet.write_table(table, temporary, compression="none", use_dictionary=repeated)
        else:
            import pandas as pd  # slow to import

            columns = (key_ids[list_E], rank_E, item_ids[row_E], score_E, lists.rules[list_E])
            frame = pd.DataFrame(dict(zip((key, *_COLUMNS), columns, strict=True)))
            frame.to_csv(temporary, sep="\t", header=False, index=False, lineterminator="\n")


def _lists_in(part: Path) -> int:
    """Returns the number of lists that a part of an earlier run holds."""
    if part.suffix == ".parquet":
        from pyarrow import parquet  # slow to import

        rank = parquet.read_table(part, columns=["rank"])["rank"].to_numpy()
    else:
        import pandas as pd  # slow to import

        if part.stat().st_size == 0:
            return 0
        rank = pd.read_csv(part, sep="\t", header=None, usecols=[1])[1].to_numpy()
    return int((rank == 1).sum())


def _open_parts(folder: Path, record: dict[str, Any]) -> None:
    path = folder / "settings.json"
    if not path.exists():  # nothing was begun, or not even the record was written
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        return
    old = read_json(path)
    if not isinstance(old, dict):
        raise InputError(f"{path} holds no settings; delete {folder}.")
    # Digests differ because a setting does: that one is to be named.
    for name in sorted(old.keys() | record.keys(), key=lambda name: (name.endswith("_ids"), name)):
        if old.get(name) != record.get(name):
            raise InputError(
                f"{folder} holds parts of a run with {name} = {old.get(name)!r}, but now it is "
                f"{record.get(name)!r}; finish that run, or delete the folder."
            )


@contextmanager
def _joining(whole: Path, columns: list[str]) -> Iterator[Callable[[Path], None]]:
    """Gives a function that puts one part after the other into a new file."""
    with ExitStack() as stack:
        if whole.suffix == ".tsv":
            out = stack.enter_context(whole.open("wb"))
            out.write("\t".join(columns).encode() + b"\n")

            def append(part: Path) -> None:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)

        else:
            from pyarrow import parquet

            writer: parquet.ParquetWriter | None = None

            def append(part: Path) -> None:
                nonlocal writer
                # Part by part: memory stays that of one.
                table = parquet.read_table(part)
                if writer is None:
                    # Hardly any two scores are one, so a dictionary of them is only work.
                    repeated = [name for name in columns if name != "score"]
                    writer = parquet.ParquetWriter(whole, table.schema, use_dictionary=repeated)
                    stack.enter_context(writer)
                writer.write_table(table)

        yield append


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256("\n".join(map(str, ids.tolist())).encode()).hexdigest()
