"""How sure an accuracy is: 95 % intervals of shares, of single videos and of groups of them."""

import numpy as np
from scipy.stats import binomtest

N_DRAWS = 2000


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `n` independent videos: Wilson, "Probable Inference, the Law
    of Succession, and Statistical Inference", 1927."""
    interval = binomtest(n_right, n).proportion_ci(method='wilson')
    return float(interval.low), float(interval.high)


def by_group(is_right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a share where the videos of a group are alike, as those of one
    recording: groups are drawn with replacement (bootstrap; Efron, 1979), percentiles 2.5 and 97.5.

    is_right: (n,) 0 or 1; groups: (n,) group numbers
    """
    _, numbers = np.unique(groups, return_inverse=True)
    right, total = (np.bincount(numbers, weights).astype(float)
                    for weights in (is_right, np.ones(len(numbers))))
    drawn = np.random.default_rng(0).integers(0, len(total), (N_DRAWS, len(total)))
    shares = right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)
