"""The settings of the deep autoencoder's published table, and those found here."""

from dataclasses import dataclass
from typing import Any, Literal

PresetName = Literal[
    "ml-1m",
    "improved",
    "netflix-3m",
    "netflix-3m-notebook",
    "netflix-6m",
    "netflix-1y",
    "netflix-full",
]

_SOURCE: dict[str, Any] = {
    "activation": "selu",
    "optimizer": "momentum",
    "learning_rate": 0.005,
    "batch_size": 128,
    "refeed": 1,
    "milestones": (24, 36, 48, 66, 72),
    "weight_decay": 0.0,
    "input_noise": 0.0,
    "centre": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    # What the original program was measured with on MovieLens-1M.
    "ml-1m": _SOURCE | {"hidden": (128, 256, 256), "dropout": 0.65, "epochs": 41},
    # Chosen on validation, see BUILD_NOTES.md.
    "improved": _SOURCE
    | {"hidden": (128, 256, 256), "dropout": 0.5, "epochs": 80}
    | {"learning_rate": 0.03, "input_noise": 0.7, "centre": True},
    "netflix-3m": _SOURCE | {"hidden": (128, 256, 256), "dropout": 0.65, "epochs": 100},
    # The run that the source's notebook prints.
    "netflix-3m-notebook": _SOURCE | {"hidden": (512, 512, 1024), "dropout": 0.8, "epochs": 10},
    "netflix-6m": _SOURCE | {"hidden": (256, 256, 512), "dropout": 0.8, "epochs": 100},
    "netflix-1y": _SOURCE | {"hidden": (256, 256, 512), "dropout": 0.8, "epochs": 100},
    "netflix-full": _SOURCE | {"hidden": (512, 512, 1024), "dropout": 0.8, "epochs": 100},
}


@dataclass(frozen=True)
class Published:
    """A figure of the source: test RMSE in stars after training on a date split."""

    split: str
    rmse: float
    layers: str


PUBLISHED = (
    Published("Netflix 3 months", 0.9373, "n,128,256,256,dp .65,256,128,n"),
    Published("Netflix 3 months, 10 epochs", 0.9746, "n,512,512,1024,dp .8,512,512,n"),
    Published("Netflix 6 months", 0.9207, "n,256,256,512,dp .8,256,256,n"),
    Published("Netflix 1 year", 0.9225, "n,256,256,512,dp .8,256,256,n"),
    Published("Netflix full", 0.9099, "n,512,512,1024,dp .8,512,512,n"),
)
