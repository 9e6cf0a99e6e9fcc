"""Sentences about results that a baseline beats."""

from collections.abc import Mapping


def not_better_than_mean(name: str, rmse: float, mean_rmse: float) -> list[str]:
    """Returns a sentence where the test RMSE of a row is not below the global mean's, else nothing."""
    if rmse < mean_rmse:
        return []
    return [f"{name} has test RMSE {rmse:.4f}, not below the global mean's {mean_rmse:.4f}."]


def below_popularity(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a sentence for each row of one protocol whose NDCG@10 is below popularity's.

    Args:
        metrics: by name of the row; `popularity` is one of them, else nothing is compared.
    """
    if "popularity" not in metrics:
        return []
    least = metrics["popularity"]["ndcg@10"]
    return [
        f"{name} has test NDCG@10 {values['ndcg@10']:.4f}, below popularity's {least:.4f} on the same "
        f"held-out items."
        for name, values in metrics.items()
        if values["ndcg@10"] < least
    ]
