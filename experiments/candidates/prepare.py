"""A click log as arrays, ready to train on."""

from dataclasses import dataclass
from pathlib import Path

from jrec.data.click_log import prepare_click_log
from jrec.data.vocabulary import FIRST


@dataclass
class Prepare:
    """Turn a click log into arrays: dictionaries, item frequencies, everything that training reads."""

    log: Path
    """The log: lines of `user TAB province TAB city TAB video:category:tag1_tag2;… TAB phone`."""
    out: Path
    """Folder for the prepared form; give it to `train` as --data-dir."""
    feat_appear_limit: int = 20
    """A value keeps a row of its own if it appears more often than this."""
    user_appear_limit: int | None = None
    """The same for users; left out, the same limit."""
    skip_bad_lines: bool = False
    """Leave malformed lines out and count them, instead of stopping."""


def prepare(settings: Prepare) -> None:
    """Writes the prepared form of a log, and says what is in it."""
    clicks = prepare_click_log(
        settings.log,
        settings.out,
        settings.feat_appear_limit,
        settings.skip_bad_lines,
        settings.user_appear_limit,
    )
    print(
        f"{len(clicks):,} clicks of {clicks.users:,} users on "
        f"{clicks.vocabularies['item'].rows - FIRST:,} items in {settings.out}"
    )
    for what, count in (clicks.dropped | clicks.unknown).items():
        if count:
            print(f"  {count:,}: {what}")
