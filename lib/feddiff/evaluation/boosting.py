"""Gradient-boosted trees as the one judge of propensity and column utility, on tables of numbers and categories.

The papers' judge is XGBoost; scikit-learn's histogram boosting is the same kind of model and already a dependency. The
number of trees is bounded, as a target of 30 classes costs 30 trees a round: `TREES` in all, the learning rate raised
where that leaves few rounds.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from feddiff.evaluation.columns import CONTINUOUS, kinds_of, numbers, shared_codes
from feddiff.evaluation.utility import MOST_LEVELS

TREES = 300
ROUNDS = 50
LEAVES = 16


def features(
    first: pd.DataFrame, second: pd.DataFrame, kinds: Mapping[str, str], sides: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both tables as float64 (rows, d), columns in the order of `first`, and the mask of the categories (d,).

    Categories become codes 0, 1, ... of the MOST_LEVELS most frequent levels of `first`; any other value and missing
    ones are NaN, which trees take as they are.
    """
    blocks: list[list[np.ndarray]] = [[], []]
    kinds = kinds_of(first, kinds)
    for name, kind in kinds.items():
        if kind in CONTINUOUS:
            columns = [numbers(frame[name], f"column {name!r} of the {side} table")
                       for frame, side in zip((first, second), sides)]
        else:
            *codes, count = shared_codes(first[name], second[name], name, sides)
            often = np.argsort(-np.bincount(codes[0][codes[0] >= 0], minlength=count), kind="stable")
            ranks = np.full(count + 1, np.nan)
            kept = np.sort(often[:MOST_LEVELS])
            ranks[kept] = np.arange(len(kept))
            columns = [ranks[column] for column in codes]
        for block, column in zip(blocks, columns):
            block.append(column)
    mask = np.array([kind not in CONTINUOUS for kind in kinds.values()])
    return np.column_stack(blocks[0]), np.column_stack(blocks[1]), mask


def classifier(classes: int, categorical: np.ndarray, random_state: int) -> HistGradientBoostingClassifier:
    """Return an unfitted classifier: ROUNDS rounds of trees, fewer (never below 10) above TREES / ROUNDS classes."""
    trees = 1 if classes == 2 else classes
    rounds = max(10, min(ROUNDS, TREES // trees))
    return HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=_rate(rounds), max_leaf_nodes=LEAVES, early_stopping=False,
        # Rare classes have leaves that run away without a penalty.
        l2_regularization=1.0 if classes > 2 else 0.0, categorical_features=categorical, random_state=random_state,
    )


def regressor(categorical: np.ndarray, random_state: int) -> HistGradientBoostingRegressor:
    """Return an unfitted regressor of the median (absolute error, what D2 measures): ROUNDS rounds of trees."""
    return HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=ROUNDS, learning_rate=_rate(ROUNDS), max_leaf_nodes=LEAVES,
        early_stopping=False, categorical_features=categorical, random_state=random_state,
    )


def _rate(rounds: int) -> float:
    return min(0.3, 5.0 / rounds)
