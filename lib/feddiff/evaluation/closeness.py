"""How near synthetic rows come to real ones: distance to the closest record (DCR). A copy detector, not privacy.

A release that repeats training rows shows here; one that passes may still leak all of them: a copy of every row moved
by one standard deviation passes every test of this kind (Ganev & De Cristofaro, 2025; Yao et al., 2025, "The DCR
Delusion"). Report it beside membership attacks and a formal epsilon, never instead.

The distance is Euclidean over columns: numbers divided by their range in the training rows, a differing category or a
value missing on one side counts 1 (one-hot vectors divided by sqrt 2; TabSyn's eval_dcr is the L1 version). An exact
copy is at exactly 0 (`nearest`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes
from feddiff.evaluation.nearest import NearestRecord

LABEL = "copy detector, not privacy"


@dataclass(frozen=True)
class CopyReport:
    """What `copy_detector` saw; distances as in this module, shares in [0, 1].

    exact_copies, exact_copies_holdout: share of synthetic rows that equal a training (hold-out) row in every column.
    closer_to_train: share of synthetic rows nearer to the training than to the hold-out rows, ties half; .5 is ideal,
    1 a copy. dcr_median, dcr_5: median and 5 % quantile of the synthetic rows' distance to the training rows;
    holdout_dcr_median, holdout_dcr_5: the same for hold-out rows, what fresh real rows show. rows_compared: training
    rows = hold-out rows used, equal by drawing from the larger.
    """

    exact_copies: float
    exact_copies_holdout: float
    closer_to_train: float
    dcr_median: float
    dcr_5: float
    holdout_dcr_median: float
    holdout_dcr_5: float
    rows_compared: int
    label: str = LABEL


def copy_detector(
    synthetic: pd.DataFrame,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    *,
    generator: np.random.Generator,
    kinds: Mapping[str, str] | None = None,
) -> CopyReport:
    """Compare the synthetic rows' nearest training and hold-out records; a copy detector, not privacy.

    `train` and `holdout` must be disjoint draws of one population; `generator` draws rows of the larger so that both
    offer equally many neighbours. All three tables have the same columns; `kinds` as in `fidelity`.
    """
    check_pair(train, synthetic, ("training", "synthetic"))
    check_pair(train, holdout, ("training", "hold-out"))
    kinds = kinds_of(train, kinds)
    ranges = _ranges(train, kinds)
    rows = min(len(train), len(holdout))
    train, holdout = (frame.iloc[generator.permutation(len(frame))[:rows]] for frame in (train, holdout))
    to_train = _distances(synthetic, train, kinds, ranges)
    to_holdout = _distances(synthetic, holdout, kinds, ranges)
    fresh = _distances(holdout, train, kinds, ranges)
    return CopyReport(
        exact_copies=float(np.mean(to_train == 0)),
        exact_copies_holdout=float(np.mean(to_holdout == 0)),
        closer_to_train=float(np.mean(to_train < to_holdout) + np.mean(to_train == to_holdout) / 2),
        dcr_median=float(np.median(to_train)),
        dcr_5=float(np.quantile(to_train, 0.05)),
        holdout_dcr_median=float(np.median(fresh)),
        holdout_dcr_5=float(np.quantile(fresh, 0.05)),
        rows_compared=rows,
    )


def distance_to_closest_record(
    queries: pd.DataFrame, reference: pd.DataFrame, *, kinds: Mapping[str, str] | None = None
) -> np.ndarray:
    """Return each query row's distance to its nearest row of `reference`, float64 (n,), >= 0; exact copies exactly 0.

    Numbers are divided by their range in `reference`. Raises ValueError/TypeError like `fidelity.column_scores`.
    """
    check_pair(reference, queries, ("reference", "query"))
    kinds = kinds_of(reference, kinds)
    return _distances(queries, reference, kinds, _ranges(reference, kinds))


def _ranges(frame: pd.DataFrame, kinds: dict[str, str]) -> dict[str, float]:
    ranges = {}
    for name, kind in kinds.items():
        if kind in CONTINUOUS:
            values = numbers(frame[name], f"column {name!r} of the training table")
            ranges[name] = float(np.nanmax(values) - np.nanmin(values)) or 1.0
    return ranges


def _distances(
    queries: pd.DataFrame, reference: pd.DataFrame, kinds: dict[str, str], ranges: dict[str, float]
) -> np.ndarray:
    """Encode both tables as numbers (n, p), missing ones 0, and codes (n, c), and search."""
    scaled, codes, levels = [], [], []
    for name, kind in kinds.items():
        sides = (queries[name], reference[name])
        if kind in CONTINUOUS:
            values = [numbers(side, f"column {name!r}") / ranges[name] for side in sides]
            scaled.append([np.nan_to_num(column) for column in values])
            absent = [np.isnan(column).astype(np.int64) for column in values]
            if absent[0].any() or absent[1].any():
                codes.append(absent)
                levels.append(2)
        else:
            *pair, count = shared_codes(*sides, name, ("query", "reference"))
            codes.append([column + 1 for column in pair])
            levels.append(count + 1)
    encoded = []
    for side, frame in enumerate((queries, reference)):
        encoded.append(tuple(
            np.column_stack([block[side] for block in blocks]) if blocks else np.empty((len(frame), 0), dtype=dtype)
            for blocks, dtype in ((scaled, float), (codes, np.int64))
        ))
    return NearestRecord(*encoded[1], levels).distances(*encoded[0])
