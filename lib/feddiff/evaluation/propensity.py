"""Can a classifier tell synthetic rows from real ones? The propensity part of SiloFuse's resemblance.

p is a row's chance of being synthetic, by boosting on equally many rows of both tables. Three traps are closed here.
Probabilities are out of fold, as a model that has seen a row knows its label. Folds keep equal rows of the two tables
together: a real row whose synthetic twin was in training with the other label would be called synthetic, and a
perfect copy would seem separable. And the model is kept calm, as boosting to the end finds chance differences: two
halves of Loan score .92, independent silos .78 and independent columns .61, but .67, .46 and .15 by XGBoost's defaults.
What fresh real rows score is therefore the ceiling to print beside it. One gap stays: trees that look at one column at
a time see nothing at the root where all marginals are exactly equal, so a real table with shuffled columns passes in
sample; out of fold chance opens the way.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from feddiff import seeds
from feddiff.evaluation.boosting import features
from feddiff.evaluation.columns import check_pair
from feddiff.evaluation.membership import auc

MAX_ROWS = 5_000
FOLDS = 5
CALM = {"max_iter": 50, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 50, "l2_regularization": 10.0}
# XGBoost's defaults, as far as the names of histogram boosting go.
STRONG = {"max_iter": 100, "learning_rate": 0.3, "max_depth": 6, "max_leaf_nodes": None, "l2_regularization": 1.0}


def propensity(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
    strength: Mapping[str, object] = CALM,
    out_of_fold: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's chance of being synthetic, of the real and of the synthetic rows, both float64 (m,).

    m = min(rows of either table, max_rows), drawn by `seed`; the draw and the folds depend on the rows' content alone,
    not on their order. .5 everywhere: indistinguishable, which equal tables are exactly. strength: parameters of
    scikit-learn's HistGradientBoostingClassifier (CALM, STRONG); out_of_fold=False: the faulty form, the model judges
    the rows it was trained on. One thread.
    """
    check_pair(real, synthetic)
    if isinstance(max_rows, bool) or not isinstance(max_rows, (int, np.integer)) or max_rows < 2 * FOLDS:
        raise ValueError(f"max_rows must be an integer >= {2 * FOLDS}, got {max_rows!r}")
    rows = min(len(real), len(synthetic), int(max_rows))
    if rows < 2 * FOLDS:
        raise ValueError(f"propensity needs at least {2 * FOLDS} rows of either table, got {rows}")
    first, second, categorical = features(real, synthetic, kinds, ("real", "synthetic"))
    contents = _contents(first, second)
    tables, drawn = [], []
    for table, content in zip((first, second), contents):
        # The same stream for both: of equal tables the same rows are drawn.
        chosen = seeds.numpy_generator(seed, "propensity", "rows").permutation(len(table))[:rows]
        order = np.argsort(content, kind="stable")[chosen]
        tables.append(table[order])
        drawn.append(content[order])
    folds = np.concatenate(_folds(*drawn, seeds.numpy_generator(seed, "propensity", "folds")))
    table, label = np.concatenate(tables), np.repeat([0, 1], rows)
    chances = np.empty(2 * rows)
    with threadpool_limits(limits=1):
        for fold in range(FOLDS if out_of_fold else 1):
            judged = folds == fold if out_of_fold else np.ones(2 * rows, dtype=bool)
            trained = ~judged if out_of_fold else judged
            model = HistGradientBoostingClassifier(
                early_stopping=False, categorical_features=categorical, random_state=0, **strength
            )
            chances[judged] = model.fit(table[trained], label[trained]).predict_proba(table[judged])[:, 1]
    return chances[:rows], chances[rows:]


def indistinguishable(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Return 1 - 2 mean |p - .5|, in [0, 1], 1 best: no row is surely real or surely synthetic."""
    return float(1 - 2 * np.abs(np.concatenate([real, synthetic]) - 0.5).mean())


def unordered(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Return 1 - |2 AUC - 1| of p, in [0, 1], 1 best: synthetic rows are ranked above real ones as often as below."""
    return 1 - abs(2 * auc(synthetic, real) - 1)


def reversed_form(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Return 1 - mean |label - p|: a faulty form found in public code, .5 for equal tables and 1 for separable ones."""
    return float(1 - np.concatenate([real, 1 - synthetic]).mean())


def _contents(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number per row, the same for rows of equal content in either table, ascending with the content."""
    # NaN equals nothing, not even itself: unique would call every row with a missing value new.
    both = np.concatenate([first, second])
    filled = np.where(np.isnan(both), -np.inf, both)
    _, content = np.unique(filled, axis=0, return_inverse=True)
    content = content.ravel()
    return content[: len(first)], content[len(first) :]


def _folds(real: np.ndarray, synthetic: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Return a fold for every row; each fold takes whole couples of a real and a synthetic row, equal ones if it can.

    The k-th real row of some content is coupled with the k-th synthetic one; what is left over is coupled at random.
    """
    rows = len(real)
    copies = [pd.Series(content).groupby(content).cumcount().to_numpy() for content in (real, synthetic)]
    keys = [content * np.int64(rows + 1) + copy for content, copy in zip((real, synthetic), copies)]
    _, in_real, in_synthetic = np.intersect1d(*keys, return_indices=True)
    places = []
    for paired in (in_real, in_synthetic):
        left = np.setdiff1d(np.arange(rows), paired)
        places.append(np.concatenate([paired, generator.permutation(left)]))
    fold = generator.permutation(np.arange(rows) % FOLDS)
    result = [np.empty(rows, dtype=np.int64) for _ in range(2)]
    for folds, place in zip(result, places):
        folds[place] = fold
    return result
