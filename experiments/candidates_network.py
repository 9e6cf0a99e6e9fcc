"""The candidate network for a data set: which columns it reads, how large its tables are."""

from experiments.candidates_presets import TABLE_WIDTHS
from experiments.candidates_settings import Train
from jrec.data.clicks import Bag, Categorical, Clicks, Continuous
from jrec.errors import InputError
from jrec.models.candidates import CandidateNetwork, FeatureColumn

_KINDS = {Categorical: "categorical", Bag: "bag", Continuous: "continuous"}


def feature_columns(clicks: Clicks, user_id: bool, features: bool) -> tuple[FeatureColumn, ...]:
    """The columns that a network reads: the user's own vector, and all that the data describes."""
    columns = [FeatureColumn("user", "user", "categorical", "user")] if user_id else []
    if features:
        for of, given in (("user", clicks.user_features), ("item", clicks.item_features)):
            for name, column in given.items():
                vocabulary = getattr(column, "vocabulary", "")
                columns.append(FeatureColumn(name, of, _KINDS[type(column)], vocabulary))
    return tuple(columns)


def build_model(settings: Train, clicks: Clicks, axis_name: str | None = None) -> CandidateNetwork:
    """The network for a data set's tables."""
    columns = feature_columns(clicks, settings.user_id, settings.features)
    model = CandidateNetwork(
        item_rows=clicks.vocabularies["item"].rows,
        table_rows={name: vocabulary.rows for name, vocabulary in clicks.vocabularies.items()},
        table_widths={
            name: TABLE_WIDTHS.get(name, settings.feature_width) for name in clicks.vocabularies
        },
        columns=columns,
        example_age=settings.example_age,
        encoder=settings.encoder,
        item_width=settings.item_width,
        state_width=settings.state_width,
        layers=settings.layers,
        heads=settings.heads,
        tower=settings.tower,
        tied=settings.tied,
        dropout=settings.dropout,
        table_scale=settings.table_scale,
        axis_name=axis_name,
        compute=settings.compute,
    )
    if not settings.tower and (columns or settings.example_age):
        raise InputError(
            "Without layers of --tower nothing reads features: add some, or leave features out with "
            "--features False --user-id False."
        )
    if settings.tied and model.vector_width != settings.item_width:
        raise InputError(
            f"--tied needs user vectors of --item-width {settings.item_width}, but the network gives "
            f"{model.vector_width}."
        )
    return model
