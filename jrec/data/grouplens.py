"""Finds a MovieLens data set: a given folder or archive, the cache, the GroupLens host, or a package index."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jrec.data.movielens import LAYOUTS, detect_layout, read_movielens
from jrec.data.origin import Source
from jrec.data.ratings import Ratings
from jrec.data.tables import Files
from jrec.errors import InputError

_HOST = "https://files.grouplens.org/datasets/movielens"

# The checksums that GroupLens publishes beside its archives. The two "latest" archives change, so
# theirs is read from the host when they are fetched.
PUBLISHED_MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}

_WHEEL = "recbole-1.2.1-py3-none-any.whl"
_WHEEL_MEMBERS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}


def load_movielens(name: str, data_dir: Path | None = None) -> Ratings:
    """Returns a MovieLens data set from the first place that has it.

    Order: `data_dir` (folder or archive) if given; the cache; the GroupLens archive, checked against its
    published checksum; for ml-100k, when that host cannot be reached, the same data out of the recbole wheel.

    Args:
        name: a key of `jrec.data.movielens.DATASET_LAYOUTS`.

    Raises InputError for missing or damaged files, or no reachable source.
    """
    if data_dir is not None:
        files = Files.at(Path(data_dir))
        return read_movielens(name, files, _describe(name, files))
    path, source = _from_cache(name) or _fetch(name)
    return read_movielens(name, Files.at(path), source)


def cache_dir() -> Path:
    """Where fetched archives stay: $JREC_CACHE, else the user's cache folder."""
    if given := os.environ.get("JREC_CACHE"):
        return Path(given)
    import pooch  # slow to import, as requests is: `--help` shall not wait

    return Path(pooch.os_cache("jrec"))


def _describe(name: str, files: Files) -> Source:
    if files.path.is_dir():
        ratings_file = LAYOUTS[detect_layout(files)][0]
        return Source("folder", str(files.path), files.checksum(ratings_file), "ratings file's sum")
    note = ""
    if name in PUBLISHED_MD5 and not _md5_is(files.path, PUBLISHED_MD5[name]):
        note = "not the archive that GroupLens publishes (another checksum)"
    return Source("archive", str(files.path), files.checksum(), note)


def _md5_is(path: Path, md5: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def _from_cache(name: str) -> tuple[Path, Source] | None:
    archive = cache_dir() / f"{name}.zip"
    if archive.exists():
        if name in PUBLISHED_MD5 and not _md5_is(archive, PUBLISHED_MD5[name]):
            raise InputError(
                f"{archive} has another checksum than GroupLens publishes; delete it to fetch again."
            )
        return archive, Source("cache", str(archive), Files.at(archive).checksum())
    wheel = cache_dir() / _WHEEL
    if name == "ml-100k" and wheel.exists():
        return wheel, _checked_wheel(wheel)
    return None


def _fetch(name: str) -> tuple[Path, Source]:
    import pooch
    import requests

    address = f"{_HOST}/{name}.zip"
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The cache {cache_dir()} cannot be made ({error.strerror}); set JREC_CACHE to a folder."
        ) from error
    pooch.get_logger().setLevel("WARNING")  # the run itself says where its data came from
    try:
        md5 = PUBLISHED_MD5.get(name) or _md5_on_host(name)
        fetched = pooch.retrieve(
            address,
            known_hash=f"md5:{md5}",
            fname=f"{name}.zip",
            path=cache_dir(),
            downloader=pooch.HTTPDownloader(progressbar=False, timeout=15),
        )
    except (requests.RequestException, OSError) as error:
        if name == "ml-100k":
            return _fetch_wheel(address)
        raise InputError(
            f"{address} cannot be reached ({type(error).__name__}); "
            f"give the archive or its folder with --data-dir."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{address} has another checksum than GroupLens publishes; try again later, or give "
            f"the archive with --data-dir."
        ) from error
    path = Path(fetched)
    return path, Source("grouplens", address, Files.at(path).checksum())


def _md5_on_host(name: str) -> str:
    import requests

    # Written as `MD5 (ml-latest.zip) = <32 hexadecimal digits>`, or the digits first.
    answer = requests.get(f"{_HOST}/{name}.zip.md5", timeout=15)
    answer.raise_for_status()
    for word in answer.text.split():
        if len(word) == 32 and set(word) <= set("0123456789abcdef"):
            return word
    raise requests.RequestException("no checksum beside the archive")


def _fetch_wheel(unreachable: str) -> tuple[Path, Source]:
    """The same 100K ratings from the package index, as a file; nothing of it is installed."""
    wheel = cache_dir() / _WHEEL
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        pip += ["--disable-pip-version-check", "--dest", folder, "recbole==1.2.1"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        fetched = Path(folder) / _WHEEL
        if done.returncode != 0 or not fetched.exists():
            raise InputError(
                f"Neither {unreachable} nor the package index can be reached; "
                f"give MovieLens-100K (ml-100k.zip or its folder) with --data-dir."
            )
        source = _checked_wheel(fetched)
        shutil.move(fetched, wheel)
    return wheel, Source(source.kind, str(wheel), source.checksum, source.note)


def _checked_wheel(wheel: Path) -> Source:
    files = Files.at(wheel)
    for member, sha256 in _WHEEL_MEMBERS.items():
        if files.checksum(member) != f"sha256:{sha256}":
            raise InputError(f"{files.place(member)} has a wrong checksum; delete {wheel}.")
    note = "MovieLens-100K out of the recbole 1.2.1 wheel (GroupLens host not reached)"
    return Source("recbole-wheel", str(wheel), files.checksum(), note)
