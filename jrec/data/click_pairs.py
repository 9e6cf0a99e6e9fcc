"""Clicks out of a file of `user item` lines, as SASRec's and gSASRec's."""

import hashlib
import re
from pathlib import Path

import numpy as np

from jrec.data.click_lines import opened
from jrec.data.clicks import Clicks, build_clicks
from jrec.data.origin import Source
from jrec.data.tables import BYTE_ORDER_MARK, whole_number
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError

_SAS_FILES = ("ml-1m_sas.txt.gz", "ml-1m_sas.txt")
# Of the unpacked file behind SASRec's and gSASRec's published numbers.
_SAS_SHA256 = "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2"


def read_pairs(name: str, path: Path) -> Clicks:
    """A file of `user item` lines, each user's in time order, plain or compressed with gzip.

    Args:
        path: the file, or the folder that holds `ml-1m_sas.txt.gz` or `ml-1m_sas.txt`.

    Raises InputError where it is missing or damaged, and for the first malformed line.
    """
    if path.is_dir():
        found = [path / file for file in _SAS_FILES if (path / file).is_file()]
        if not found:
            raise InputError(f"{path} holds neither {' nor '.join(_SAS_FILES)}; give the file.")
        path = found[0]
    with opened(path) as file:
        content = file.read()
    user, item = _pairs(content.removeprefix(BYTE_ORDER_MARK), path)
    digest = hashlib.sha256(content).hexdigest()
    note = "" if digest == _SAS_SHA256 else "not the file of the published numbers (another sum)"
    vocabularies = {"user": Vocabulary.of(user), "item": Vocabulary.of(item)}
    return build_clicks(
        name=name,
        source=Source("file", str(path), f"sha256:{digest} (unpacked)", note),
        user=vocabularies["user"].encode(user) - FIRST,
        item=vocabularies["item"].encode(item),
        timestamp=None,
        user_row=np.arange(FIRST, vocabularies["user"].rows),
        vocabularies=vocabularies,
    )


def _pairs(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not content.strip():
        raise InputError(f"{path} is empty; fetch it again.")
    if re.fullmatch(rb"(?:[0-9]{1,18} [0-9]{1,18}\n)*", content):
        user, item = np.array(content.split(), np.bytes_).astype(np.int64).reshape(-1, 2).T
        return user, item
    # Something is unusual: other blanks, no last line end, or a fault, whose line is to be named.
    pairs = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        fields = line.decode("utf-8", "backslashreplace").split()
        where = f"{path}, line {number}"
        if len(fields) not in (0, 2):
            raise InputError(
                f"{where}: {len(fields)} fields where there should be 2; write 'user item'."
            )
        if fields:
            names = zip(("user", "item"), fields, strict=True)
            pairs.append([whole_number(text, where, what) for what, text in names])
    if not pairs:
        raise InputError(f"{path} is empty; fetch it again.")
    user, item = np.array(pairs, np.int64).T
    return user, item
