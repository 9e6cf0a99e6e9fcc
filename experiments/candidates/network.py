"""The candidate network for a data set: which columns it reads, how large its tables are."""

from collections.abc import Sequence

from jrec.data.clicks import Bag, Categorical, Clicks, Continuous
from jrec.errors import InputError
from jrec.models.candidates import CandidateNetwork, FeatureColumn
from jrec.train.devices import device_axis

from .settings import ALL, TABLE_WIDTHS, Train

_KINDS = {Categorical: "categorical", Bag: "bag", Continuous: "continuous"}


def feature_columns(
    clicks: Clicks,
    user_id: bool,
    user_features: Sequence[str] = (ALL,),
    item_features: Sequence[str] = (ALL,),
) -> tuple[FeatureColumn, ...]:
    """Returns the columns that a network reads, in the data's order.

    Args:
        user_id: whether each user has a vector.
        user_features, item_features: names of columns; `all` for every one.

    Raises InputError for a name that the data does not have.
    """
    columns = [FeatureColumn("user", "user", "categorical", "user")] if user_id else []
    given = (clicks.user_features, user_features), (clicks.item_features, item_features)
    for of, (there, names) in zip(("user", "item"), given, strict=True):
        for name in names:
            if name not in (*there, ALL):
                known = ", ".join(there) or "none"
                raise InputError(
                    f"--{of}-features names {name!r}, which the {of}s of {clicks.name} do not have; "
                    f"they have: {known}."
                )
        for name, column in there.items():
            if name in names or ALL in names:
                vocabulary = getattr(column, "vocabulary", "")
                columns.append(FeatureColumn(name, of, _KINDS[type(column)], vocabulary))
    return tuple(columns)


def build_model(settings: Train, clicks: Clicks) -> CandidateNetwork:
    """Returns the network for a data set's tables."""
    columns = feature_columns(
        clicks, settings.user_id, settings.user_features, settings.item_features
    )
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
        axis_name=device_axis(),
        compute=settings.compute,
    )
    if settings.example_age and not clicks.timed:
        raise InputError(f"--example-age needs times, and {clicks.name} has none; leave it out.")
    if not settings.tower and (columns or settings.example_age):
        raise InputError(
            "Without layers of --tower nothing reads features: add some, or leave features out with "
            "--user-features --item-features --no-user-id."
        )
    if settings.tied and model.vector_width != settings.item_width:
        raise InputError(
            f"--tied needs user vectors of --item-width {settings.item_width}, but the network gives "
            f"{model.vector_width}."
        )
    return model


def feature_names(model: CandidateNetwork) -> tuple[list[str], list[str]]:
    """Returns the names of the users' and of the items' columns that a network reads."""
    names = {"user": [], "item": []}
    for column in model.columns:
        names[column.of].append(column.name)
    return names["user"], names["item"]
