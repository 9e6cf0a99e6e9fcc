"""Which modules faults are put into, the tests that are to see them, and faults that are none."""

TESTS: dict[str, tuple[str, ...]] = {
    "losses": ("losses",),
    "ranking_losses": ("ranking_losses",),
    "retrieval_losses": ("retrieval_losses",),
    "full_softmax": ("full_softmax",),
    "sampling": (
        "sampling::test_an_alias_table_gives_each_row_its_mass_exactly",
        "sampling::test_weights_without_meaning_are_refused",
        "sampling::test_settings_without_meaning_are_refused",
        "sampling::test_the_probabilities_are_the_formulas",
        "sampling::test_a_row_of_no_weight_is_not_drawn_by_the_lowest_bits_either",
        "sampling::test_a_row_of_tiny_weight_keeps_its_log_q",
        "sampling::test_draws_follow_the_stated_probabilities",
    ),
    "streaming_frequency": (
        "sampling::test_buckets_are_id_mod_w_and_then_multiplicative_hashes",
        "sampling::test_streaming_frequencies_are_the_loop",
        "sampling::test_more_hashes_undo_collisions",
        "sampling::test_streaming_frequencies_converge",
    ),
    "evaluate/auc": ("ranking_metrics",),
    "evaluate/held_out": (
        "autoencoder::test_star_errors",
        "autoencoder::test_no_held_out_ratings_are_no_predictions",
        "autoencoder::test_held_out_ratings_are_predicted_from_known_ones",
    ),
    "evaluate/item_blocks": (
        "ranks::test_nothing_seen_and_nan_comes_last",
        "ranks::test_lists_of_seen_items_have_any_length",
        "ranks::test_one_target_no_seen_items_and_a_catalogue_of_one",
        "ranks::test_lists_are_those_of_a_full_sort",
        "ranks::test_ranks_are_those_of_a_full_sort",
        "ranks::test_huge_scores_do_not_put_removed_items_back",
        "ranks::test_all_items_seen_leaves_the_target_first",
    ),
    "evaluate/next_item": (
        "ranks::test_an_evaluator_without_users_gives_nan",
        "ranks::test_the_evaluator_gives_means_over_users_with_a_target",
        "ranks::test_lists_and_ranks_agree",
    ),
    "evaluate/per_user": ("significance",),
    "evaluate/ranking_metrics": ("ranking_metrics",),
    "evaluate/ranks": (
        "ranks::test_one_target_no_seen_items_and_a_catalogue_of_one",
        "ranks::test_huge_scores_do_not_put_removed_items_back",
        "ranks::test_ranks_are_those_of_a_full_sort",
        "ranks::test_constant_scores_rank_last_and_nan_does_not_win",
        "ranks::test_a_score_has_the_same_bits_in_any_company",
        "ranks::test_all_items_seen_leaves_the_target_first",
        "ranks::test_scores_that_differ_in_the_last_bit_are_told_apart",
        "ranks::test_ranks_do_not_depend_on_block_batch_or_devices",
    ),
    "evaluate/rating_errors": (
        "results::test_sums_of_errors_by_user_give_the_whole_error",
        "step_and_stream::test_errors_of_no_ratings_are_nan",
        "step_and_stream::test_errors_do_not_depend_on_the_batch",
    ),
    "evaluate/recommended_items": ("ranking_metrics",),
    "evaluate/significance": ("significance",),
    "evaluate/top_k": (
        "ranks::test_nothing_seen_and_nan_comes_last",
        "ranks::test_lists_are_those_of_a_full_sort",
        "ranks::test_lists_and_ranks_agree",
    ),
    "evaluate/watch_time": ("watch_time",),
}
"""Modules of `jrec` and the tests that belong to them, `tests/test_FILE.py` or one of it, quick ones first."""

_SIZE = "how many at a time; results do not depend on it"
_MASKED = "what is masked counts nothing, whatever it is"
_TWICE = "the first or last ids are removed twice"

EQUIVALENT: dict[str, dict[str, str]] = {
    "losses": {
        "0 -> -1 in jnp.where(weight > 0, prediction - target, 0)": _MASKED,
        "0 -> 1 in jnp.where(weight > 0, prediction - target, 0)": _MASKED,
    },
    "ranking_losses": {
        "0 -> -1 in jnp.where(mask, logit, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask, logit, 0)": _MASKED,
    },
    "sampling": {
        "math.log -> math.log1p": "of V times 2^32",
        "mass_V >= _ONE -> mass_V > _ONE": "a row of just the mean takes and gives nothing",
        "np.where(whole, 0, threshold_V) -> threshold_V": "a row that is its own alias",
    },
    "evaluate/held_out": {
        "256 -> 255": _SIZE,
        "256 -> 257": _SIZE,
        "np.arange(batch_size) < len(block) -> np.arange(batch_size) <= len(block)": "what is behind the last user is cut off",
    },
    "retrieval_losses": {
        "0 -> -1 in (:, 0)": "of one column",
        "0 -> 1 in (:, 0)": "of one column; JAX reads the last",
        "0 -> 1 in np.where(drawn_V, log_q_V, 0)": "what is not drawn gets the highest level",
        "0 -> -1 in np.where(drawn_V, log_q_V, 0)": "what is not drawn gets the highest level",
        "0 -> -1 in jnp.where(kept, values, 0)": _MASKED,
        "0 -> 1 in jnp.where(kept, values, 0)": _MASKED,
    },
    "full_softmax": {
        "0 -> -1 in jnp.where(new[:, None], rows, 0)": _MASKED,
        "0 -> 1 in jnp.where(new[:, None], rows, 0)": _MASKED,
        "384 -> 385": _SIZE,
        "False -> True in mask_M.at[target_B].get(mode='fill', fill_value=False, "
        "wrap_negative_indices=False)": "the logit of such a row is NaN",
        "0 -> -1 in jnp.where(mask_B[:, None], users_BD, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask_B[:, None], users_BD, 0)": _MASKED,
        "jnp.where(mask_B, target_B, -1) -> target_B": _MASKED,
    },
    "streaming_frequency": {
        f"0 -> {n} in frequencies.{table}.at[place].get(mode='fill', fill_value=0)": _MASKED
        for n in (-1, 1)
        for table in ("last_HW", "interval_HW")
    },
    "evaluate/item_blocks": {
        "64 -> 65": _SIZE,
        "64 -> 63": _SIZE,
        "0 -> 1 in max(at_least - M, 0)": "a row more that is not recommendable",
        "ids < start + R -> ids <= start + R": "place R is dropped, too",
        "0 -> -1 in jax.lax.fori_loop(0, (used + width - 1) // width, some, score_BR)": _TWICE,
        "used + width - 1 -> used + width + 1": _TWICE,
        "0 -> 1 in jnp.where((ids_BL >= 0).any(0), jnp.arange(1, L + 1, dtype=jnp.int32), 0)": "a column without ids",
        "0 -> -1 in jnp.where((ids_BL >= 0).any(0), jnp.arange(1, L + 1, dtype=jnp.int32), 0)": "a column without ids",
    },
    "evaluate/next_item": {
        "256 -> 255": _SIZE,
        "256 -> 257": _SIZE,
        "4096 -> 4095": _SIZE,
        "4096 -> 4097": _SIZE,
        "16384 -> 16383": _SIZE,
        "16384 -> 16385": _SIZE,
        "np.zeros -> np.ones": "there is nothing in it",
        "1 -> 0 in (0, 1)": "there is nothing in it",
        "1 -> 2 in (0, 1)": "there is nothing in it",
        "positions < count -> positions <= count": "what is behind the last user is cut off",
        "jnp.where(mask, positions, 0) -> positions": "JAX reads the last row; " + _MASKED,
        "0 -> -1 in jnp.where(mask, positions, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask, positions, 0)": _MASKED,
        "1 -> 2 in np.asarray(x).reshape(-1, *x.shape[2:])": "NumPy takes any number below 0",
    },
    "evaluate/top_k": {
        "16384 -> 16383": _SIZE,
        "16384 -> 16385": _SIZE,
        "min -> max in min(item_block, M)": _SIZE,
        "-R // group -> -R * group": _SIZE,
        "1 -> 2 in jnp.where(seen_mask_BL, seen_BL, -1)": "any number below 0 is no item",
        "1 -> 0 in jnp.full((B, K), -1, jnp.int32)": "what is not found is -1 in the end",
        "1 -> 2 in jnp.full((B, K), -1, jnp.int32)": "what is not found is -1 in the end",
        "group < 4 -> group <= 4": "both ways find the same",
        "group < 4 -> group >= 4": "both ways find the same",
    },
    "evaluate/ranking_metrics": {
        "0.0 -> -1.0 in [0.0]": "of no targets; such users have NaN",
        "0.0 -> 1.0 in [0.0]": "of no targets; such users have NaN",
    },
    "evaluate/rating_errors": {
        "4096 -> 4095": _SIZE,
        "4096 -> 4097": _SIZE,
        "0 -> -1 in data['rating'].shape[0]": "of one dimension",
        "jnp.where(mask, positions, 0) -> positions": "JAX reads the last row; " + _MASKED,
        "0 -> -1 in jnp.where(mask, positions, 0)": _MASKED,
        "0 -> 1 in jnp.where(mask, positions, 0)": _MASKED,
    },
    "evaluate/significance": {
        "_CELLS // len(values) -> _CELLS * len(values)": _SIZE,
        "1 -> 2 in max(_CELLS // len(values), 1)": _SIZE,
    },
    "evaluate/watch_time": {
        "np.cumsum(new) - 1 -> np.cumsum(new) + 1": "labels of ties may begin anywhere",
        "1 -> 2 in max(len(predicted), 1)": "one example has one bin, whichever",
    },
}
"""Faults that change nothing that a function promises: module -> fault -> the reason."""
