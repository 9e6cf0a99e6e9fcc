"""What is known of a MovieLens user, in words."""

from jrec.data.ratings import Ratings
from jrec.data.vocabulary import FIRST

# What the codes stand for, in their order (README of MovieLens-1M).
ATTRIBUTE_LABELS: dict[str, tuple[str, ...]] = {
    "gender": ("M", "F"),
    "age": ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+"),
    "occupation": (
        "other",
        "academic/educator",
        "artist",
        "clerical/admin",
        "college/grad student",
        "customer service",
        "doctor/health care",
        "executive/managerial",
        "farmer",
        "homemaker",
        "K-12 student",
        "lawyer",
        "programmer",
        "retired",
        "sales/marketing",
        "scientist",
        "self-employed",
        "technician/engineer",
        "tradesman/craftsman",
        "unemployed",
        "writer",
    ),
}


def user_labels(ratings: Ratings, row: int) -> dict[str, str]:
    """Returns a user's attributes in words: `{"gender": "F", "age": "under 18", ...}`; empty without any."""
    rows = {name: int(by_row[row]) for name, by_row in ratings.user_features.items()}
    return {
        name: ATTRIBUTE_LABELS[name][k - FIRST] if k >= FIRST else "unknown"
        for name, k in rows.items()
    }
