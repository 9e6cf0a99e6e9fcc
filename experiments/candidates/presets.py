"""The settings of the source's candidate network, and those found here."""

from typing import Any, Literal

PresetName = Literal["source", "source-listing", "improved", "small"]

# Widths of the source's tables, by the data's names of vocabularies; others take --feature-width.
# A click log calls its tags `tags`, KuaiRand-Pure `tag`.
TABLE_WIDTHS = {"user": 64, "category": 8, "tags": 64, "tag": 64}
TABLE_WIDTHS |= {"province": 8, "city": 16, "phone": 16}
# In place of the names of features.
ALL = "all"

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
        "user_features": (ALL,),
        "item_features": (ALL,),
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
        "user_features": (),
        "item_features": (),
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
# The inputs of the first layer as the source's document lists them; its program has them all.
PRESETS["source-listing"] = PRESETS["source"] | {
    "user_features": ("city", "phone"),
    "item_features": (),
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
