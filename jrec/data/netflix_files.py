"""The forms that the Netflix Prize data comes in, read as a stream; nothing is ever unpacked."""

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jrec.data.netflix_lines import Lines
from jrec.data.tables import BYTE_ORDER_MARK
from jrec.errors import InputError

_MOVIE_FILE = re.compile(r"mv_(\d{1,7})\.txt")
_COMBINED = re.compile(r"combined_data_\d+\.txt")
_TITLES = ("movie_titles.txt", "movie_titles.csv")
_NESTED = "training_set.tar"
_CHUNK = 1 << 22
_TAR_BLOCK = 1 << 17  # tarfile copies the rest of a block at each read, so larger is slower


@dataclass(frozen=True)
class RawFiles:
    """What was found at a path.

    Attributes:
        kind: `folder` of text files, or `archive`.
        texts: the files with ratings, in order of their names; of an archive itself.
        titles: the titles file of a folder.
    """

    path: Path
    kind: str
    texts: list[Path]
    titles: list[Path]

    @property
    def size(self) -> int:
        """Bytes that reading will go through."""
        return sum(path.stat().st_size for path in self.texts)


@dataclass(frozen=True)
class TitleText:
    """The titles file."""

    place: str
    content: bytes


def find_raw(path: Path) -> RawFiles:
    """Finds the ratings at a path.

    A folder may hold, itself or one level down: `mv_*.txt`, else `combined_data_*.txt`, else
    `training_set.tar`. A file may be a tar archive, compressed or not, of `mv_*.txt` or with a
    `training_set.tar` inside, or one `combined_data_*.txt`.

    Raises InputError where there is none of these.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give nf_prize_dataset.tar.gz, a folder of mv_*.txt, or Kaggle's "
            f"combined_data_*.txt."
        )
    if path.is_dir():
        files = sorted(p for p in [*path.glob("*"), *path.glob("*/*")] if p.is_file())
        titles = [p for p in files if p.name in _TITLES]
        for kind, wanted in (("folder", _MOVIE_FILE), ("folder", _COMBINED), ("archive", _NESTED)):
            texts = sorted((p for p in files if re.fullmatch(wanted, p.name)), key=lambda p: p.name)
            if texts:
                return RawFiles(path, kind, texts, titles)
        raise InputError(
            f"{path} holds no Netflix ratings: no mv_*.txt, combined_data_*.txt or {_NESTED} is in "
            f"it or one folder down; give another folder."
        )
    with path.open("rb") as file:
        head = file.read(512)
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar" or path.suffix == ".tar":
        return RawFiles(path, "archive", [path], [])
    if re.match(rb"\d+:\r?\n", head.removeprefix(BYTE_ORDER_MARK)):
        return RawFiles(path, "folder", [path], [])
    raise InputError(
        f"{path} is neither a tar archive nor a text that begins with a movie line such as '1:'; "
        f"unpack other archives and give the folder."
    )


def read_raw(
    raw: RawFiles, advance: Callable[[int], Any], digest: "hashlib._Hash"
) -> Iterator[Lines | TitleText]:
    """Whole lines in pieces of a few megabytes, and the titles file if there is one.

    Args:
        advance: is called with the number of bytes read from disk, from time to time.
        digest: is fed the archive, or the ratings files one after the other.

    Raises InputError for an empty file, a damaged or truncated archive, or one without ratings.
    """
    for path in raw.titles[:1]:
        yield TitleText(str(path), path.read_bytes())
    for path in raw.texts:
        with path.open("rb") as file:
            counted = _Counted(file, advance, digest)
            if raw.kind == "archive":
                yield from _read_archive(path, counted)
            else:
                yield from _read_text(counted, path.name, str(path))


class _Counted:
    """A file that tells what is read of it."""

    def __init__(self, file: BinaryIO, advance: Callable, digest: "hashlib._Hash") -> None:
        self.file, self.advance, self.digest = file, advance, digest

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        self.advance(len(data))
        return data


def _read_text(file: Any, name: str, place: str) -> Iterator[Lines]:
    movie = _MOVIE_FILE.fullmatch(name)
    movie = int(movie[1]) if movie else None
    line, rest, at_start = 1, b"", True
    while data := file.read(_CHUNK):
        if at_start:
            data, at_start = data.removeprefix(BYTE_ORDER_MARK), False
        cut = data.rfind(b"\n") + 1
        if cut == 0:
            rest += data
            if len(rest) > _CHUNK:
                raise InputError(f"{place} has no line ends; it is no text of ratings.")
            continue
        content = _unix(rest + data[:cut])
        yield Lines(place, movie, line, content)
        line += content.count(b"\n")
        rest = data[cut:]
    if rest:  # the last line has no end; what it says must still be a whole rating
        yield Lines(place, movie, line, _unix(rest + b"\n"))
    elif line == 1:
        raise InputError(f"{place} is empty; fetch the data set again.")


def _unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n") if b"\r" in content else content


def _read_archive(path: Path, file: _Counted) -> Iterator[Lines | TitleText]:
    with path.open("rb") as start:
        compressed = start.read(2) == b"\x1f\x8b"
    stream = gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[arg-type]
    found = False
    try:
        for piece in _read_tar(stream, str(path)):
            found = found or isinstance(piece, Lines)
            yield piece
        while stream.read(_CHUNK):  # the checksum of a compressed file stands at its end
            pass
        if not compressed and not _ends_as_tar(path):
            raise EOFError("its end mark is missing")
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is damaged or cut short ({_plain(error)}); fetch it again."
        ) from error
    if not found:
        raise InputError(f"{path} holds no mv_*.txt and no combined_data_*.txt; is it another one?")


def _read_tar(stream: Any, place: str) -> Iterator[Lines | TitleText]:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_TAR_BLOCK) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            inner = f"{place}/{member.name.removeprefix('./')}"
            if not member.isfile():
                continue
            if name == _NESTED:
                yield from _read_tar(archive.extractfile(member), inner)
            elif name in _TITLES:
                yield TitleText(inner, archive.extractfile(member).read())
            elif _MOVIE_FILE.fullmatch(name) or _COMBINED.fullmatch(name):
                yield from _read_text(archive.extractfile(member), name, inner)


def _ends_as_tar(path: Path) -> bool:
    # An archive that is cut between two members reads like a whole one but for its last block.
    with path.open("rb") as file:
        file.seek(-512, os.SEEK_END)
        return not any(file.read(512))


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
