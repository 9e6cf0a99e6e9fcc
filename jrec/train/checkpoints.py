"""Orbax checkpoints of a train state, with a small JSON record beside each."""

import glob
import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jrec.errors import InputError
from jrec.files import check_seal, read_json, sealed, write_json
from jrec.train.devices import as_global, as_local, current_devices, whole_sharding
from jrec.train.processes import is_first, wait_for_all
from jrec.train.step import TrainState

_MANIFEST = "manifest.json"  # written after Orbax is done; a crash may leave it out


class Checkpoints:
    """A folder of checkpoints named by step; only the newest `keep` stay.

    Orbax writes to a temporary name and renames, so that a half-written one is never seen. Writing
    is synchronous: an asynchronous copy could read a buffer that the next chunk was given.

    Several processes save and restore together. A state is restored onto the current devices, whichever
    saved it.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        import orbax.checkpoint as ocp  # slow to import: `--help` shall not wait

        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._folder = folder
        self._devices = current_devices() or tuple(jax.local_devices()[:1])
        # Orbax finds the files to merge by a glob of the whole path, in which `[1]`, `*` and `?` match
        # others: below such a path each array gets files of its own. Either form is read anywhere.
        merged = not glob.has_magic(str(folder.absolute()))
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(use_ocdbt=merged),
            "record": ocp.JsonCheckpointHandler(),
        }
        try:
            with _quiet():
                self._manager = ocp.CheckpointManager(
                    folder.absolute(), options=options, item_handlers=handlers
                )
        except PermissionError as error:
            raise InputError(
                f"{folder} may not be read or written; give yourself the right (chmod u+rwx)."
            ) from error

    def latest_step(self) -> int | None:
        """Steps taken in the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, record: dict[str, Any]) -> None:
        """Saves a state; one of the same step is replaced."""
        import orbax.checkpoint as ocp

        step = int(state.step)
        if step in self._manager.all_steps():
            self._manager.delete(step)
        plain = as_global(_plain(state), self._devices)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(plain), record=ocp.args.JsonSave(record)
        )
        try:
            with _quiet():
                self._manager.save(step, args=args, force=True)
            if is_first():
                folder = self._folder / str(step)
                manifest = {"files": _digests(folder), "shapes": _shapes(plain)}
                write_json(folder / _MANIFEST, sealed(manifest))
            wait_for_all(f"saved {step}")
        except (OSError, ValueError) as error:
            # TensorStore raises ValueError for whatever the system refuses.
            if isinstance(error, ValueError) and "space" not in str(error):
                raise
            raise InputError(
                f"The checkpoint {self._folder / str(step)} cannot be written (no space left, or no "
                f"right to); make room and resume with --resume."
            ) from error

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint, in the shapes of `template` (arrays or shape structs).

        Raises InputError where there is none, where it is damaged, or of another model.
        """
        import orbax.checkpoint as ocp

        step = self.latest_step()
        if step is None:
            raise InputError(f"{self._folder} holds no complete checkpoint to resume from.")
        folder = self._folder / str(step)
        remedy = "delete that folder to resume from the one before it"
        # Orbax must not be the one to find damage: it raises many kinds, and from threads too.
        plain = jax.eval_shape(_plain, template)
        if (folder / _MANIFEST).exists():
            if not _is_whole(folder):
                raise InputError(f"The checkpoint {folder} is damaged; {remedy}.")
            manifest = read_json(folder / _MANIFEST)
            if manifest.get("shapes") != _shapes(plain):
                raise InputError(f"The checkpoint {folder} is of another model; {remedy}.")
        # Not onto the devices that it was saved from: these may be others.
        sharding = whole_sharding(self._devices)
        plain = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), plain
        )
        wanted = ocp.checkpoint_utils.construct_restore_args(plain)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(plain, restore_args=wanted),
            record=ocp.args.JsonRestore(),
        )
        try:
            with _quiet():
                restored = self._manager.restore(step, args=args)
        except Exception as error:
            raise InputError(
                f"The checkpoint {folder} is damaged or of another model "
                f"({type(error).__name__}); {remedy}."
            ) from error
        state = TrainState(**as_local(restored["state"], self._devices))
        return state._replace(key=jax.random.wrap_key_data(state.key)), restored["record"]

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax's threads print the tracebacks of what it raises anyway; asyncio's and TensorStore's even later."""
    logs, hook = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)

    def but_late_ones(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    sys.unraisablehook = but_late_ones
    yield
    # Not where something was raised: late ones are yet to come.
    sys.unraisablehook = hook
    for log, level in zip(logs, levels, strict=True):
        log.setLevel(level)


def _plain(state: TrainState) -> dict[str, Any]:
    """A dict of ordinary arrays: Orbax knows no named tuples, and not every version typed keys."""
    return state._replace(key=jax.random.key_data(state.key))._asdict()


def _is_whole(folder: Path) -> bool:
    try:
        manifest = read_json(folder / _MANIFEST)
        if not isinstance(manifest, dict):
            return False
        check_seal(folder / _MANIFEST, manifest)
    except InputError:
        return False
    return manifest.get("files") == _digests(folder)


def _shapes(tree: Any) -> dict[str, list[int]]:
    """Shape by path, with paths in one form for dicts and for Optax's tuples of states."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape)
        for path, leaf in leaves
    }


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a checkpoint's folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
