"""The settings of the source's candidate network, and those found here."""

from typing import Any, Literal

PresetName = Literal["source", "improved", "small"]

# Widths of the source's tables; other vocabularies take --feature-width.
TABLE_WIDTHS = {"user": 64, "category": 8, "tag": 64, "province": 8, "city": 16, "phone": 16}

PRESETS: dict[str, dict[str, Any]] = {
    "source": {
        "encoder": "lstm-max",
        "form": "window",
        "length": 20,
        "item_width": 64,
        "state_width": 64,
        "tower": (256, 31),
        "tied": False,
        "dropout": 0.0,
        "table_scale": 0.001,
        "user_id": True,
        "features": True,
        "loss": "nce",
        "negatives": 5,
        "shared_negatives": False,
        "noise": "frequency",
        "optimizer": "adagrad",
        "learning_rate": 0.1,
        "weight_decay": 1e-3,
        "warmup": 0,
        "epochs": 1,
        "batch_size": 50,
    },
    "improved": {
        "encoder": "attention",
        "form": "prefix",
        "length": 200,
        "item_width": 128,
        "state_width": 128,
        "tower": (),
        "tied": True,
        "dropout": 0.3,
        "table_scale": 0.02,
        "user_id": False,
        "features": False,
        "loss": "full-softmax",
        "negatives": 512,
        "shared_negatives": True,
        "noise": "uniform",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "warmup": 100,
        "epochs": 60,
        "batch_size": 64,
    },
}
# For histories of some 20 clicks: minutes on two cores. Chosen on the planted log's validation clicks.
PRESETS["small"] = PRESETS["improved"] | {
    "length": 50,
    "item_width": 64,
    "state_width": 64,
    "dropout": 0.1,
    "learning_rate": 2e-3,
    "epochs": 12,
    "batch_size": 32,
}
