"""Ratings as clicks: every rating is a watch."""

import numpy as np

from jrec.data.clicks import (
    Bag,
    Categorical,
    Clicks,
    Continuous,
    build_clicks,
    take,
    with_stand_ins,
)
from jrec.data.ratings import Ratings
from jrec.data.vocabulary import FIRST


def clicks_of_ratings(ratings: Ratings) -> Clicks:
    """Every rating as a watch, whatever its stars, which become the event feature `rating`.

    Ratings of users or items that the data set's own files lack are dropped.
    """
    kept = (ratings.user >= FIRST) & (ratings.item >= FIRST)
    users = np.unique(ratings.user[kept])
    items = np.arange(FIRST, ratings.vocabularies["item"].rows)
    stars = ratings.rating[kept]
    return build_clicks(
        name=ratings.name,
        source=ratings.source,
        user=np.searchsorted(users, ratings.user[kept]),
        item=ratings.item[kept],
        timestamp=ratings.timestamp[kept],
        user_row=users,
        vocabularies=ratings.vocabularies,
        user_features={
            name: Categorical(by_row[users], name) for name, by_row in ratings.user_features.items()
        },
        item_features={
            name: with_stand_ins(take(Bag(by_row, name), items))
            for name, by_row in ratings.item_features.items()
        },
        event_features={"rating": Continuous(stars, np.ones(len(stars), bool))},
        dropped={
            "repeated (user, item)": ratings.repeated,
            "ratings of users or items without a line of their own": int((~kept).sum()),
        },
    )
