"""Files from elsewhere: nothing in them is executed, and archives write nothing anywhere."""

import ast
import gc
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.data.click_log import load_clicks, prepare_click_log
from jrec.data.movielens import LAYOUTS
from jrec.data.netflix_files import find_raw
from jrec.data.netflix_table import read_table
from jrec.data.rating_parts import load_rating_parts, rating_parts, save_rating_parts
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError
from jrec.evaluate.significance import read_per_user
from jrec.retrieval.vector_files import load_vectors, save_vectors
from jrec.serving.export import load_arrays, load_export, save_export
from jrec.train.checkpoints import Checkpoints
from jrec.train.step import TrainState
from tests.stores import array_file

ROOT = Path(__file__).parents[1]


class Trap:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def trap(tmp_path):
    """An array that must be unpickled, and the file that doing so would make."""
    sprung = tmp_path / "sprung"
    array = np.empty(3, object)
    array[:] = [Trap(sprung)] * 3
    # The trap works: this is what a careless reader would do.
    pickle.loads(pickle.dumps(array[0])).close()
    assert sprung.exists()
    sprung.unlink()
    return array, sprung


def refused(read, sprung):
    with pytest.raises(InputError):
        read()
    assert not sprung.exists()


def test_exports_are_not_unpickled(trap, tmp_path):
    array, sprung = trap
    row = jax.ShapeDtypeStruct((), jnp.int32)
    save_export(tmp_path, lambda held, k: held["w"][k], {"w": jnp.ones(3)}, row)
    np.savez(tmp_path / "arrays.npz", w=array, program_sha256=np.zeros(32, np.uint8))
    refused(lambda: load_export(tmp_path), sprung)
    np.savez(tmp_path / "catalogue.npz", users=array)
    refused(lambda: load_arrays(tmp_path / "catalogue.npz"), sprung)
    np.savez(tmp_path / "per_user.npz", user=array)
    refused(lambda: read_per_user(tmp_path), sprung)
    (tmp_path / "predict.jaxexport").write_bytes(pickle.dumps(array))
    refused(lambda: load_export(tmp_path), sprung)


def test_stores_are_not_unpickled(trap, tmp_path):
    array, sprung = trap
    (tmp_path / "log").write_text("a\tp\tc\tv1:k:t;v2:k:t\tx\n" * 3)
    prepare_click_log(tmp_path / "log", tmp_path / "prepared", 0)
    manifest = next(path for path in (tmp_path / "prepared").glob("*.json"))
    described = json.loads(manifest.read_text())
    del described["sum"]  # as a forger would
    described["files"] = {}
    np.save(array_file(tmp_path / "prepared", manifest.name, "item"), array)
    manifest.write_text(json.dumps(described))
    refused(lambda: load_clicks(tmp_path / "prepared"), sprung)

    ratings = synthetic_ratings(SyntheticSize(8, 6, 60), 0)
    save_rating_parts(tmp_path / "parts", rating_parts(ratings, split_ratings(ratings)))
    users = array_file(tmp_path / "parts", "parts.json", "users")
    np.save(users, array)
    described = json.loads((tmp_path / "parts" / "parts.json").read_text())
    del described["sum"]
    content = users.read_bytes()
    import hashlib

    described["files"][users.name] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (tmp_path / "parts" / "parts.json").write_text(json.dumps(described))
    refused(lambda: load_rating_parts(tmp_path / "parts"), sprung)

    save_vectors(tmp_path / "vectors", "items", np.arange(3), np.ones((3, 2)))
    np.save(tmp_path / "vectors" / "items_ids.npy", array)
    refused(lambda: load_vectors(tmp_path / "vectors", "items"), sprung)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_checkpoints_are_not_unpickled(trap, tmp_path):
    array, sprung = trap
    state = TrainState(jnp.int32(1), jax.random.key(0), {"w": jnp.ones(3)}, ())
    kept = Checkpoints(tmp_path / "last", keep=1)
    kept.save(state, {"epoch": 1})
    kept.close()
    (tmp_path / "last" / "1" / "manifest.json").unlink()  # as a forger would
    for path in sorted((tmp_path / "last" / "1").rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(array))
        kept = Checkpoints(tmp_path / "last", keep=1)
        try:
            kept.restore(state)
        except InputError:
            pass
        finally:
            kept.close()
        assert not sprung.exists(), path
        path.write_bytes(content)
    gc.collect()  # so that what Orbax broke off is told here, where it is expected, and not in a later test


def test_nothing_here_unpickles_or_evaluates():
    for path in [*ROOT.glob("jrec/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in ("pickle", "marshal", "shelve", "dill", "yaml"), (
                    path
                )
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pd.read_pickle"), path
                if called == "np.load":
                    flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert flags.get("allow_pickle") == "False", (path, node.lineno)
                assert called.rsplit(".", 1)[-1] not in ("extractall", "unpack_archive"), path


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_archives_write_nothing(tmp_path):
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    with zipfile.ZipFile(place / "ml.zip", "w") as file:
        for folder in ("ml/", "../../", "/tmp/jrec-evil/"):
            header = LAYOUTS["csv"][1].header
            file.writestr(f"{folder}ratings.csv", f"{header}\n1,1,4,5\n1,2,3,6\n")
            file.writestr(f"{folder}movies.csv", "movieId,title,genres\n1,A,War\n2,B,War\n")
    text = b"5:\n" + b"".join(b"%d,3,2005-01-02\n" % k for k in range(1, 9))
    with tarfile.open(place / "nf.tar.gz", "w:gz") as file:
        for name in ("../../mv_0000005.txt", "/tmp/jrec-evil/notes.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            file.addfile(member, io.BytesIO(text))
        link = tarfile.TarInfo("training_set/mv_0000006.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    before = everything(tmp_path)
    assert len(load_ratings("ml-latest-small", place / "ml.zip")) == 2
    table = read_table(find_raw(place / "nf.tar.gz"), 0, lambda size: None)
    assert table.movies.tolist() == [5] and len(table.users) == 8  # the link is no file
    assert everything(tmp_path) == before and not Path("/tmp/jrec-evil").exists()
