"""Orbax checkpoints of a train state, with a small JSON record beside each."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jrec.errors import InputError
from jrec.train.step import TrainState


class Checkpoints:
    """A folder of checkpoints named by step; only the newest `keep` stay.

    Orbax writes to a temporary name and renames, so that a half-written one is never seen. Writing
    is synchronous: an asynchronous copy could read a buffer that the next chunk was given.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest_step(self) -> int | None:
        """Steps taken in the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, record: dict[str, Any]) -> None:
        """Saves a state; one of the same step is replaced."""
        step = int(state.step)
        if step in self._manager.all_steps():
            self._manager.delete(step)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)), record=ocp.args.JsonSave(record)
        )
        self._manager.save(step, args=args, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint, in the shapes of `template` (arrays or shape structs).

        Raises InputError where there is none, where it is damaged, or of another model.
        """
        step = self.latest_step()
        if step is None:
            raise InputError(f"{self._folder} holds no complete checkpoint to resume from.")
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.eval_shape(_plain, template)),
            record=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:
            # Orbax and TensorStore raise many kinds; to the user they all say the same.
            raise InputError(
                f"The checkpoint {self._folder / str(step)} is damaged or of another model "
                f"({type(error).__name__}); delete that folder to resume from the one before it."
            ) from error
        state = TrainState(**restored["state"])
        return state._replace(key=jax.random.wrap_key_data(state.key)), restored["record"]

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


def _plain(state: TrainState) -> dict[str, Any]:
    """A dict of ordinary arrays: Orbax knows no named tuples, and not every version typed keys."""
    return state._replace(key=jax.random.key_data(state.key))._asdict()
