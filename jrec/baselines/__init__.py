"""Traditional recommenders that any model must beat: each a fit and a predict or a score function.

Ratings: biases, rating_neighbours, content (RatingContent), matrix_factorisation. Next item: popularity,
neighbours, content, ease, implicit_als. Rows are table rows, as everywhere in jrec; a row that has no
ratings, padding (0) and unknown (1) among them, gets what the others tell about everybody.
"""
