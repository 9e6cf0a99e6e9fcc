"""Who met what, as a sparse matrix."""

import numpy as np
from scipy import sparse


def interaction_matrix(
    user: np.ndarray, item: np.ndarray, users: int, items: int
) -> sparse.csr_array:
    """float32 [users, items] in rows: 1 where the pair occurs, however often.

    Args:
        user, item: int rows [n]. users, items: table rows N and M.
    """
    matrix = sparse.csr_array((np.ones(len(user), np.float32), (user, item)), shape=(users, items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
