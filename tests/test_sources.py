"""Where data comes from when no folder is given; the network is replaced, never used."""

import hashlib
import subprocess
import zipfile

import pooch
import pytest
import requests

from jrec.data import grouplens
from jrec.data.sources import load_ratings
from jrec.errors import InputError
from tests.conftest import GENRES, TITLES, toy_ratings


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("JREC_CACHE", str(folder))
    return folder


def offline(*args, **kwargs):
    raise requests.ConnectionError("no route")


def zip_of(folder, archive):
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"{folder.name}/{path.name}")
    return archive


def recbole_members():
    """The wheel's three files, in its form: a header, ages in years, the year in its own column."""
    inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    inter += ["\t".join(map(str, row)) for row in toy_ratings()]
    item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    for k, title in enumerate(TITLES):
        head, year = (title[:-7], title[-5:-1]) if title.endswith(")") else (title, "unkonwn")
        item.append(f"{k + 1}\t{head}\t{year}\t{' '.join(GENRES[k % 5]) or 'unknown'}")
    user = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    jobs = ("student", "writer", "none", "administrator")
    user += [f"{u}\t{10 + 5 * u}\t{'MF'[u % 2]}\t{jobs[u % 4]}\t12345" for u in range(1, 13)]
    tables = {"inter": inter, "item": item, "user": user}
    return {f"ml-100k.{name}": "\n".join(lines) + "\n" for name, lines in tables.items()}


def write_wheel(path, monkeypatch):
    members = recbole_members()
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(f"recbole/dataset_example/ml-100k/{name}", text)
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in members.items()}
    monkeypatch.setattr(grouplens, "_WHEEL_MEMBERS", sums)


def test_the_host_is_asked_once_then_the_cache(ml_1m, cache, monkeypatch):
    asked = []

    def retrieve(address, known_hash, fname, path, downloader):
        asked.append((address, known_hash))
        return str(zip_of(ml_1m, cache / fname))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(grouplens, "_md5_is", lambda path, md5: True)
    assert load_ratings("ml-1m").source.kind == "grouplens"
    assert load_ratings("ml-1m").source.kind == "cache"
    published = "md5:c4d9eecfca2ab87c1945afe126590906"
    assert asked == [("https://files.grouplens.org/datasets/movielens/ml-1m.zip", published)]


def test_100k_comes_out_of_the_wheel_where_the_host_is_away(ml_100k, cache, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", offline)

    def pip(command, **kwargs):
        assert "install" not in command and "--no-deps" in command
        write_wheel(f"{command[command.index('--dest') + 1]}/{grouplens._WHEEL}", monkeypatch)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(grouplens.subprocess, "run", pip)
    fetched = load_ratings("ml-100k")
    assert fetched.source.kind == "recbole-wheel" and "recbole 1.2.1" in fetched.source.note
    assert [path.name for path in cache.iterdir()] == [grouplens._WHEEL]
    # The second time nothing is run, and the form is that of the official files.
    monkeypatch.setattr(grouplens.subprocess, "run", offline)
    again, official = load_ratings("ml-100k"), load_ratings("ml-100k", ml_100k)
    for name in ("user", "item", "rating"):
        assert getattr(again, name).tolist() == getattr(official, name).tolist()
    assert again.titles == official.titles
    for name, by_row in official.user_features.items():
        assert again.user_features[name].tolist() == by_row.tolist()
    for name, ragged in official.item_features.items():
        assert again.item_features[name].values.tolist() == ragged.values.tolist()


def test_a_changed_wheel_is_refused_and_not_kept(cache, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", offline)

    def pip(command, **kwargs):
        write_wheel(f"{command[command.index('--dest') + 1]}/{grouplens._WHEEL}", monkeypatch)
        monkeypatch.setitem(grouplens._WHEEL_MEMBERS, "ml-100k.user", "0" * 64)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(grouplens.subprocess, "run", pip)
    with pytest.raises(InputError, match="wrong checksum"):
        load_ratings("ml-100k")
    assert list(cache.iterdir()) == []


def test_latest_is_checked_against_the_checksum_on_the_host(ml_csv, cache, monkeypatch):
    digits = "0123456789abcdef" * 2
    answer = requests.Response()
    answer.status_code, answer._content = 200, f"MD5 (ml-latest-small.zip) = {digits}\n".encode()
    monkeypatch.setattr(requests, "get", lambda address, timeout: answer)

    def retrieve(address, known_hash, fname, path, downloader):
        assert known_hash == f"md5:{digits}"
        return str(zip_of(ml_csv, cache / fname))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(load_ratings("ml-latest-small")) == 80


def test_made_up_data_never_stands_in(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(InputError, match=r"cannot be reached.*--data-dir"):
        load_ratings("ml-1m")
