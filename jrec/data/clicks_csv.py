"""Your own clicks out of a delimited text file."""

from pathlib import Path

import numpy as np

from jrec.data.clicks import Clicks, build_clicks
from jrec.data.own_csv import CsvClicks, numbered_ids, own_columns, seconds_of
from jrec.data.vocabulary import FIRST, Vocabulary


def read_clicks_csv(path: Path, csv: CsvClicks) -> Clicks:
    """A file of clicks, one a line, as `Clicks` without features; a pair that comes again counts again.

    Raises InputError, with file and line, for a missing column, a bad field, or an empty file.
    """
    column, source = own_columns(path, csv, ("user", "item"))
    users, user = numbered_ids(column["user"])
    items, item = numbered_ids(column["item"])
    return build_clicks(
        name=path.stem,
        source=source,
        user=user,
        item=item + FIRST,
        timestamp=seconds_of(column["time"], csv) if csv.time else None,
        user_row=np.arange(FIRST, len(users) + FIRST),
        vocabularies={"user": Vocabulary(users), "item": Vocabulary(items)},
    )
