"""Settings that every experiment has: where a run goes, how long it trains, and on what."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jrec.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class RunFlags:
    """The run: its folder, length, checkpoints, devices and processes."""

    run_dir: Path | None = None
    """Where the run goes; left out: runs/SYSTEM-DATASET-TIME."""
    resume: bool = False
    """Resume the run in --run-dir from its last checkpoint."""
    seed: int = 0
    """Of the initial parameters, the order of examples, dropout and noise."""
    epochs: int = 1
    """Passes over the training examples."""
    patience: int = 0
    """Stop after this many epochs without a better validation metric; 0: never."""
    chunk_steps: int = 500
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Also save a checkpoint each time this many steps are done; 0: at epoch ends only."""
    devices: int | None = None
    """Devices that share each batch (left out: one; of several processes, all that they have)."""
    coordinator: str | None = None
    """To train in several processes: HOST:PORT of process 0, the same for all; `auto` on SLURM and TPU pods."""
    processes: int | None = None
    """How many processes there are; not with `auto`."""
    process: int | None = None
    """Which of them this is, from 0; not with `auto`."""


# May differ between a run and its continuation: no number depends on them.
_FREE = {"run_dir", "resume", "devices", "coordinator", "processes", "process", "data_dir"}
_AT_LEAST = {"epochs": 1, "chunk_steps": 1, "checkpoint_steps": 0, "patience": 0, "seed": 0}


def check_flags(flags: RunFlags) -> None:
    """Raises InputError for flags that make no sense."""
    check_at_least(flags, _AT_LEAST)
    if flags.resume and flags.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to resume.")


def check_at_least(settings: Any, lowest: dict[str, int], prefix: str = "") -> None:
    """Raises InputError where a named field is below its lowest value, or not below 2^31."""
    for name, least in lowest.items():
        value = getattr(settings, name)
        if not least <= value < 2**31:
            flag = f"--{prefix}{name.replace('_', '-')}"
            raise InputError(f"{flag} must be {least} or more (and below 2^31), but is {value}.")


def check_rate(rate: float) -> None:
    """Raises InputError for a learning rate that is no positive float32."""
    if not 0 < rate < float(np.finfo(np.float32).max):
        raise InputError(f"--learning-rate must be above 0, but is {rate}.")


def check_patience(flags: RunFlags, validated: bool) -> None:
    """Raises InputError for patience without a validation part."""
    if flags.patience and not validated:
        raise InputError("--patience needs validation ratings; set --valid-fraction above 0.")


def kept_settings(settings: Any) -> dict[str, Any]:
    """Returns the settings, nested as they are, that a resumed run must repeat."""

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: kept(value) if isinstance(value, dict) else value
            for name, value in values.items()
            if name not in _FREE
        }

    return kept(dataclasses.asdict(settings))


def settings_of(kind: type[T], written: Any, file: Path) -> T:
    """Returns the settings that a run has written as JSON, as the dataclass that they came from.

    Raises InputError where the names differ: the run is of another version.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(written, dict) or names != written.keys():
        raise InputError(
            f"{file}: the run was made by another version of jrec, whose settings have other names; "
            f"use that version, or train again."
        )
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value_of(hints[name], written[name], file) for name in names})


def _value_of(hint: Any, value: Any, file: Path) -> Any:
    if dataclasses.is_dataclass(hint):
        return settings_of(hint, value, file)
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    is_path = hint is Path or (isinstance(hint, types.UnionType) and Path in typing.get_args(hint))
    return Path(value) if is_path and value is not None else value


def same_settings(folder: Path, written: Any, asked: Any) -> None:
    """Raises InputError, with the first difference, where a finished run had other settings than those asked for.

    Args:
        written: what the run has written as JSON. asked: the same dataclass, now.
    """
    ran = kept_settings(settings_of(type(asked), written, folder / "results.json"))
    now = kept_settings(asked)
    ran, now = ({**kept.pop("data"), **kept.pop("run"), **kept} for kept in (ran, now))
    for name, value in now.items():
        if ran[name] != value:
            raise InputError(
                f"{folder} holds a run with {name} = {ran[name]!r}, but now it is {value!r}; give another "
                f"--run-dir."
            )
