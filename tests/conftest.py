"""Small files of our own in every MovieLens layout, and JAX set to be strict."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

# Compilation is most of the time: once for all workers and the commands they start; and quick in `make
# test`, but for the tests marked `bits`, which are for what users compile.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    if os.environ.get("JREC_COMPILE") == "quick" and version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"  # gone from later ones
if os.environ.get("JREC_COMPILE") == "quick":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jrec-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

jax.config.update("jax_numpy_rank_promotion", "raise")
hypothesis_settings.register_profile("jrec", deadline=None, max_examples=25, derandomize=True)
hypothesis_settings.load_profile("jrec")


# The longest files first, so that neither worker waits long for the other at the end.
LONGEST = (
    "test_readme_commands",
    "test_processes",
    "test_candidates_experiment",
    "test_devices",
    "test_own_csv",
    "test_readme",
    "test_fusion_experiment",
    "test_autoencoder_experiment",
    "test_candidates",
    "test_two_stages",
    "test_autoencoder",
    "test_candidates_retrieval",
    "test_embeddings",
    "test_exact_search",
    "test_embedding_mlp",
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def slow_but(quick, names):
    """Parameters of a test: the one named `quick` in `make test`, all of them in `make test-all`."""
    slow = pytest.mark.slow
    return [
        pytest.param(
            *(one if isinstance(one, tuple) else (one,)), marks=[] if one == quick else slow
        )
        for one in names
    ]


class FakeStream(NamedTuple):
    """A stream for `jrec.train.loop.fit` whose chunks are given and whose data is not looked at."""

    steps: int
    given: Callable

    def on_devices(self):
        return None

    def order(self, epoch):
        return None

    def chunk(self, step):
        return self.given


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Frees a file's compiled programs, which would fill a worker's memory."""
    yield
    jax.clear_caches()


def toy_ratings(users=12, items=9, count=80, seed=0):
    """Distinct (user, item) pairs with stars and times, as (user, item, stars, time) tuples."""
    generator = np.random.default_rng(seed)
    pairs = generator.choice(users * items, count, replace=False)
    stars = generator.integers(1, 6, count)
    return [
        (int(p // items) + 1, int(p % items) + 1, int(s), 978300000 + 60 * k)
        for k, (p, s) in enumerate(zip(pairs, stars, strict=True))
    ]


TITLES = [
    "Toy Story (1995)",
    "Jumanji (1995)",
    "Grumpier Old Men (1995)",
    "Usual Suspects, The (1995)",
    "Star Wars: Episode IV (1977)",
    "City of Lost Children, The (1995)",
    "M (1931)",
    "Seven (Se7en) (1995)",
    "Untitled",
]
GENRES = [["Comedy", "Drama"], ["Action"], [], ["Drama", "War", "Western"], ["Comedy"]]


@pytest.fixture
def ml_1m(tmp_path):
    """A folder in the 1M layout: 12 users, 9 items, 80 ratings."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    ages, genders = (1, 18, 25, 35, 45, 50, 56), "MF"
    users = [f"{u}::{genders[u % 2]}::{ages[u % 7]}::{u % 21}::12345" for u in range(1, 13)]
    items = [
        f"{k + 1}::{title}::{'|'.join(GENRES[k % 5]) or '(no genres listed)'}"
        for k, title in enumerate(TITLES)
    ]
    ratings = ["::".join(map(str, row)) for row in toy_ratings()]
    for name, lines in (("users", users), ("movies", items), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


@pytest.fixture
def ml_100k(tmp_path):
    """A folder in the 100K layout."""
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    jobs = ("student", "writer", "none", "administrator")
    users = [f"{u}|{10 + 5 * u}|{'MF'[u % 2]}|{jobs[u % 4]}|12345" for u in range(1, 13)]
    names = ["unknown", "Action", "Comedy", "Drama", "War", "Western"]
    items = []
    for k, title in enumerate(TITLES):
        flags = ["1" if name in GENRES[k % 5] else "0" for name in names]
        items.append("|".join([str(k + 1), title, "01-Jan-1995", "", "http://x", *flags]))
    ratings = ["\t".join(map(str, row)) for row in toy_ratings()]
    genres = [f"{name}|{k}" for k, name in enumerate(names)]
    tables = {"u.user": users, "u.item": items, "u.data": ratings, "u.genre": [*genres, ""]}
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


@pytest.fixture
def ml_csv(tmp_path):
    """A folder in the layout of 20M, 25M and latest: CSV with headers, half stars, no users."""
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    items = ["movieId,title,genres"]
    for k, title in enumerate(TITLES):
        items.append(f'{k + 1},"{title}",{"|".join(GENRES[k % 5]) or "(no genres listed)"}')
    ratings = ["userId,movieId,rating,timestamp"]
    ratings += [f"{u},{f},{s - 0.5},{t}" for u, f, s, t in toy_ratings()]
    (folder / "movies.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    (folder / "ratings.csv").write_text("\n".join(ratings) + "\n", encoding="utf-8")
    return folder
