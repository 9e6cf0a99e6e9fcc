"""A click data set as a folder (see `jrec.data.store`) with the description `clicks.json`."""

from pathlib import Path

from jrec.data.clicks import Clicks, check_clicks
from jrec.data.store import read_store, write_store
from jrec.errors import InputError
from jrec.files import replacing_folder

MANIFEST = "clicks.json"
_FORM = "jrec clicks 2"


def save_clicks(clicks: Clicks, folder: Path) -> None:
    """Writes the whole folder or nothing; a folder that was prepared before is replaced.

    Raises InputError where the folder holds anything else.
    """
    folder = Path(folder)
    if folder.exists() and not is_prepared(folder) and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no prepared click log; give another --out.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as temporary:
        write_store(clicks, temporary, MANIFEST, _FORM)


def load_clicks(folder: Path) -> Clicks:
    """A prepared folder in memory; raises InputError where it is none, or damaged."""
    folder = Path(folder)
    if not is_prepared(folder):
        raise InputError(f"{folder} is no prepared click data set: it lacks {MANIFEST}.")
    clicks = read_store(folder, MANIFEST, _FORM, Clicks, "prepare the log again")
    check_clicks(clicks)
    return clicks


def is_prepared(folder: Path) -> bool:
    """Whether a folder was written by `save_clicks`."""
    return (Path(folder) / MANIFEST).is_file()
