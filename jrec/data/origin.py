"""Where a data set came from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a data set came from, so that a run can say it.

    Attributes:
        kind: `folder`, `archive`, `file`, `cache`, `grouplens`, `recbole-wheel`, `click-log` or
            `synthetic`.
        location: path, address or description.
        checksum: `sha256:…` of the archive, or of the ratings file of a folder.
        note: anything a reader of the results should know, else empty.
    """

    kind: str
    location: str
    checksum: str
    note: str = ""

    @property
    def in_stars(self) -> bool:
        """Returns whether the source fixes the unit of its ratings: all do but a user's own file."""
        return self.kind != "file"

    @property
    def unit(self) -> str:
        """The unit of ratings, as reports name it."""
        return "stars" if self.in_stars else "the file's unit"
