"""The lines of a click log as numbers: fields split, values numbered, bad lines named."""

import gzip
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jrec.data.tables import BYTE_ORDER_MARK
from jrec.errors import InputError

NULL = "NULL"
PROFILE = ("province", "city", "phone")
_LONGEST = 256  # bytes; NumPy gives every value of a vocabulary the room of the longest


@dataclass(frozen=True)
class Named:
    """Values by number.

    Attributes:
        names: str, distinct. codes: int32, each row's number in `names`.
    """

    names: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class LogLines:
    """The well-formed lines of a log, as many rows as lines and as many codes as clicks.

    Attributes:
        profile: `user`, `province`, `city` and `phone` of each line, "NULL" where unknown.
        lengths: int64 [lines], clicks of each line.
        clicks: int32 [clicks], each click's token: a distinct (video, category, tags); a token without
            clicks may be among them.
        video, category: of each token, "NULL" where unknown.
        tags: one token's after the other's; token t has the places `tag_offsets[t]` to `tag_offsets[t + 1]`.
        malformed: lines left out.
    """

    profile: dict[str, Named]
    lengths: np.ndarray
    clicks: np.ndarray
    video: Named
    category: Named
    tags: Named
    tag_offsets: np.ndarray
    malformed: int


def read_log_lines(path: Path, skip_bad_lines: bool = False) -> LogLines:
    """Reads a log, plain or compressed with gzip, in one pass.

    Raises InputError where it is missing or damaged, and for the first malformed line unless
    `skip_bad_lines` leaves such lines out; in any case where no line is good.
    """
    numberings = {key: _Numbering(_value) for key in ("user", *PROFILE)}
    tokens = _Numbering(_token)
    codes = {key: array("i") for key in numberings}
    clicks, lengths = array("i"), array("q")
    malformed = 0
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                fields = [field.strip() for field in line.split(b"\t")]
                if len(fields) != 5:
                    raise _Fault(
                        f"{len(fields)} fields between tabs where there should be 5 "
                        f"(user, province, city, clicks, phone)"
                    )
                user, province, city, shown, phone = fields
                if not user:
                    raise _Fault("the user is empty; write NULL for an unknown one")
                # All of a line is numbered before any of it is kept.
                profile = (user, province, city, phone)
                numbers = [
                    numbering[value]
                    for numbering, value in zip(numberings.values(), profile, strict=True)
                ]
                shown = shown.removesuffix(b";")
                is_empty = shown in (b"", b"NULL")
                clicked = [] if is_empty else [tokens[token] for token in shown.split(b";")]
            except _Fault as fault:
                if not skip_bad_lines:
                    raise InputError(
                        f"{path}, line {number}: {fault}; mend the line, or have such lines left "
                        f"out (--skip-bad-lines)."
                    ) from None
                malformed += 1
                continue
            for column, code in zip(codes.values(), numbers, strict=True):
                column.append(code)
            lengths.append(len(clicked))
            clicks.extend(clicked)
    if not lengths:
        raise InputError(
            f"{path} holds no line that can be read ({malformed} malformed); a line should be "
            f"user, province, city, clicks and phone between tabs."
        )
    tags = [token[2] for token in tokens.values_]
    return LogLines(
        profile={
            key: Named(np.array(numberings[key].values_, np.str_), np.frombuffer(column, np.int32))
            for key, column in codes.items()
        },
        lengths=np.frombuffer(lengths, np.int64),
        clicks=np.frombuffer(clicks, np.int32) if clicks else np.zeros(0, np.int32),
        video=_named([token[0] for token in tokens.values_]),
        category=_named([token[1] for token in tokens.values_]),
        tags=_named([tag for of_token in tags for tag in of_token]),
        tag_offsets=np.concatenate([[0], np.cumsum([len(x) for x in tags])]).astype(np.int64),
        malformed=malformed,
    )


def _named(values: list[str]) -> Named:
    numbering = {value: number for number, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter((numbering[value] for value in values), np.int32, len(values))
    return Named(np.array(list(numbering), np.str_), codes)


class _Fault(Exception):
    """Why a line is malformed."""


class _Numbering(dict):
    """Bytes -> number, in the order they first come; each is checked and decoded once."""

    def __init__(self, decode: Callable[[bytes], object]) -> None:
        super().__init__()
        self.decode = decode
        self.values_: list = []

    def __missing__(self, key: bytes) -> int:
        value = self.decode(key)  # raises before anything is kept
        self[key] = number = len(self)
        self.values_.append(value)
        return number


def _value(raw: bytes) -> str:
    if len(raw) > _LONGEST:
        raise _Fault(f"the value {_shown(raw)} is longer than {_LONGEST} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _Fault(f"{_shown(raw)} is not UTF-8 text") from None
    if "\0" in text:
        raise _Fault(f"the value {_shown(raw)} holds a NUL character")
    return text or NULL


def _token(raw: bytes) -> tuple[str, str, list[str]]:
    parts = raw.split(b":")
    if len(parts) != 3:
        raise _Fault(f"the click {_shown(raw)} is not of the form video:category:tag_tag")
    if not parts[0]:
        raise _Fault(f"the click {_shown(raw)} names no video; write NULL for an unknown one")
    return _value(parts[0]), _value(parts[1]), [_value(tag) for tag in parts[2].split(b"_")]


def _shown(raw: bytes) -> str:
    cut = raw if len(raw) <= 40 else raw[:37] + b"..."
    return repr(cut.decode("utf-8", "backslashreplace"))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, unpacked where it is compressed with gzip.

    Raises InputError where it is missing, no file or damaged, also while it is being read.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the log file, or a folder that was prepared.")
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if is_gzip else plain as file:
                yield file
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give the path of the log.") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; give yourself the right (chmod u+r).") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); fetch or compress it again.") from error
