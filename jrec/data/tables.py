"""Reads delimited text from a folder or a zip archive; a bad line is named with its number."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jrec.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Mark that some programs write at the start of UTF-8 text; readers leave it out of the first field."""


@dataclass(frozen=True)
class Files:
    """The files of a folder or zip archive, found by their base names; nothing is ever unpacked.

    Attributes:
        path: the folder or archive.
        members: base name -> path inside it.
    """

    path: Path
    members: dict[str, str]

    @classmethod
    def at(cls, path: Path) -> "Files":
        """Lists a folder (one level of sub-folders included) or a zip archive.

        Raises InputError where the path is missing, or is no complete zip archive.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist; give --data-dir a folder or a .zip archive.")
        if path.is_dir():
            found = [*path.glob("*/*"), *path.glob("*")]
            files = [p for p in found if p.is_file()]
            names = [p.name for p in files]
            for name in ("ratings.csv", "ratings.dat", "u.data", "movies.csv", "movies.dat"):
                if names.count(name) > 1:
                    raise InputError(f"{path} holds {name} twice; give --data-dir one data set.")
            return cls(path, {p.name: str(p.relative_to(path)) for p in files})
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{path} is not a complete zip archive ({error}); fetch it again."
            ) from error
        return cls(path, {name.rsplit("/", 1)[-1]: name for name in names})

    def place(self, name: str) -> str:
        """How messages name a member."""
        return f"{self.path / self.members.get(name, name)}"

    def read(self, name: str) -> bytes:
        """A member's bytes; raises InputError where it is missing or damaged."""
        if name not in self.members:
            raise InputError(f"{self.path} lacks the file {name}; is it the whole data set?")
        if self.path.is_dir():
            try:
                return (self.path / self.members[name]).read_bytes()
            except PermissionError as error:
                raise InputError(
                    f"{self.place(name)} may not be read; give yourself the right (chmod u+r)."
                ) from error
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.members[name])
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"{self.place(name)} has a password or an unknown compression; unpack the archive "
                f"and give its folder with --data-dir."
            ) from error
        except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{self.place(name)} is damaged ({error}); fetch the archive again."
            ) from error

    def lines(self, name: str, encoding: str) -> Iterator[tuple[int, str]]:
        """(line number from 1, text without its end) of a text member, without a byte-order mark and empty lines.

        Raises InputError with the line where the text is not in `encoding`.
        """
        content = self.read(name).removeprefix(BYTE_ORDER_MARK)
        for number, line in enumerate(content.split(b"\n"), start=1):
            try:
                text = line.decode(encoding).rstrip("\r")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.place(name)}, line {number}: not {encoding} text; save it as {encoding}."
                ) from error
            if text.strip():
                yield number, text

    def checksum(self, name: str | None = None) -> str:
        """`sha256:…` of the archive, or of one member where a name is given."""
        digest = hashlib.sha256()
        if name is not None:
            digest.update(self.read(name))
        else:
            with self.path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def decimal_number(text: str) -> float:
    """A number as files write it, perhaps infinite; NaN for what Python alone would take (`1_0`, `inf`)."""
    text = text.strip(" \t")
    return float(text) if _DECIMAL.fullmatch(text) else float("nan")


def is_whole_number(text: str) -> bool:
    """Whether a text is a whole number from 0 to 2^63 - 1 in the digits 0 to 9."""
    # Python refuses to read thousands of digits at all.
    return text.isdecimal() and text.isascii() and len(text) < 1000 and int(text) < 2**63


def whole_number(text: str, where: str, what: str) -> int:
    """Returns a non-negative integer field; raises InputError that names the place and the field."""
    if not is_whole_number(text):
        raise InputError(
            f"{where}: {what} is {shown(text)}; it should be a whole number of 0 or more."
        )
    return int(text)


def shown(text: str) -> str:
    """Returns a field as messages quote it, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
