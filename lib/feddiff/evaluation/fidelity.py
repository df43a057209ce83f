"""How alike two tables are, column by column and pair by pair: SDMetrics' definitions, every row counted.

All scores lie in [0, 1], 1 is best, and identical tables score exactly 1. They depend on no row order or index and
never change their input. Definitions follow SDMetrics (DataCebo), class by class:

- column shapes: mean over columns of KSComplement, 1 - sup|F_r - F_s| (continuous), or TVComplement,
  1 - sum|p_r - p_s|/2 (discrete); missing values are left out;
- pair trends: mean over pairs of CorrelationSimilarity, 1 - |rho_r - rho_s|/2 with Pearson's rho (two continuous
  columns, rows complete in both), or ContingencySimilarity, 1 - sum|P_r - P_s|/2 (otherwise; missing is a value), a
  continuous partner cut into 10 equal-width bins.

Where SDMetrics has changed or disagrees with itself, the choice here: it subsamples 50,000 rows in late versions (never
here); its QualityReport leaves out pairs with |rho| <= .5 or Cramer's V <= .3 in late versions (here every pair
counts, a real correlation of exactly 0 as well); its metric classes cut both tables at the real table's edges
(`edges="real"`, the default), its QualityReport cuts each between its own extremes (`edges="own"`), so that bin 3 of
one need not be bin 3 of the other: training against held-out rows of Credit Default, whose tails are heavy, then
score .90 instead of .98.
"""

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes

BINS = 10
# SDMetrics adds this count to a synthetic value that the real column lacks, and rounds numbers to this many decimals.
UNSEEN_COUNT = 1e-6
DECIMALS = 14

Edges = Literal["real", "own"]


def column_shapes(real: pd.DataFrame, synthetic: pd.DataFrame, *, kinds: Mapping[str, str] | None = None) -> float:
    """Return the mean column score (KSComplement, TVComplement), in [0, 1], 1 best; see `column_scores`."""
    return float(column_scores(real, synthetic, kinds=kinds)["score"].mean())


def pair_trends(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, kinds: Mapping[str, str] | None = None, edges: Edges = "real"
) -> float:
    """Return the mean pair score (CorrelationSimilarity, ContingencySimilarity), in [0, 1], 1 best.

    Like SDMetrics, pairs without a correlation (a constant column) are left out of the mean; a warning says how many.
    Raises ValueError where no pair has a score.
    """
    return _mean_of_pairs(pair_scores(real, synthetic, kinds=kinds, edges=edges))


def pair_trends_quantile(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, bins: int = BINS, kinds: Mapping[str, str] | None = None
) -> float:
    """Return the mean contingency similarity over all pairs, continuous columns in quantile bins; [0, 1], 1 best.

    Harsher than `pair_trends`: a heavy tail leaves nearly all rows in one of ten equal-width bins, and a correlation
    is one number. The edges are quantiles of the real column.
    """
    return _mean_of_pairs(pair_scores_quantile(real, synthetic, bins=bins, kinds=kinds))


def column_scores(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, kinds: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row per column of `real`: column, metric, score in [0, 1], 1 best.

    `kinds` maps columns to "numeric", "integer" (continuous), "categorical", "boolean" (discrete); without it the
    dtypes of `real` decide, so integer codes of categories need `kinds`. Columns are matched by name.
    Raises ValueError/TypeError for different columns, empty tables, columns without values, infinities, and types
    that cannot be compared.
    """
    check_pair(real, synthetic)
    rows = []
    for name, kind in kinds_of(real, kinds).items():
        if kind in CONTINUOUS:
            score = _ks_complement(*_number_pair(real, synthetic, name))
            rows.append((name, "KSComplement", score))
        else:
            score = _tv_complement(*shared_codes(real[name], synthetic[name], name))
            rows.append((name, "TVComplement", score))
    return pd.DataFrame(rows, columns=["column", "metric", "score"])


def pair_scores(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, kinds: Mapping[str, str] | None = None, edges: Edges = "real"
) -> pd.DataFrame:
    """Return one row per pair: column_1, column_2, metric, score in [0, 1], 1 best, NaN where it is undefined.

    `edges` says how a continuous column is cut when its partner is discrete: ten equal widths between the extremes of
    the real table, the outer bins open ("real": SDMetrics' ContingencySimilarity), or of each table ("own": SDMetrics'
    QualityReport).
    """
    if edges not in ("own", "real"):
        raise ValueError(f'edges must be "real" (SDMetrics\' metric classes) or "own" (its report), got {edges!r}')
    kinds = _checked_kinds(real, synthetic, kinds)
    values = {name: _number_pair(real, synthetic, name) for name, kind in kinds.items() if kind in CONTINUOUS}
    codes = {}
    for name in kinds:
        codes[name] = _width_bins(*values[name], edges) if name in values else _with_missing(real, synthetic, name)
    correlations = _correlation_similarities(values)
    rows = []
    for one, two in combinations(kinds, 2):
        if one in values and two in values:
            rows.append((one, two, "CorrelationSimilarity", correlations[one, two]))
        else:
            rows.append((one, two, "ContingencySimilarity", _contingency_similarity(codes[one], codes[two])))
    return pd.DataFrame(rows, columns=["column_1", "column_2", "metric", "score"])


def pair_scores_quantile(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, bins: int = BINS, kinds: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row per pair: column_1, column_2, metric, score in [0, 1], 1 best; see `pair_trends_quantile`."""
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 2:
        raise ValueError(f"bins must be an integer >= 2, got {bins!r}")
    kinds = _checked_kinds(real, synthetic, kinds)
    codes = {}
    for name, kind in kinds.items():
        if kind in CONTINUOUS:
            codes[name] = _quantile_bins(*_number_pair(real, synthetic, name), bins)
        else:
            codes[name] = _with_missing(real, synthetic, name)
    rows = [
        (one, two, "ContingencySimilarity", _contingency_similarity(codes[one], codes[two]))
        for one, two in combinations(kinds, 2)
    ]
    return pd.DataFrame(rows, columns=["column_1", "column_2", "metric", "score"])


def _checked_kinds(real: pd.DataFrame, synthetic: pd.DataFrame, kinds: Mapping[str, str] | None) -> dict[str, str]:
    check_pair(real, synthetic)
    kinds = kinds_of(real, kinds)
    if len(kinds) < 2:
        raise ValueError(f"pairs need at least two columns, got {list(kinds)}")
    return kinds


def _mean_of_pairs(scores: pd.DataFrame) -> float:
    undefined = scores["score"].isna()
    if undefined.all():
        raise ValueError("no pair has a score: every pair holds a constant column or fewer than two complete rows")
    if undefined.any():
        columns = sorted(set(scores.loc[undefined, ["column_1", "column_2"]].to_numpy().ravel()), key=str)
        warnings.warn(
            f"{int(undefined.sum())} of {len(scores)} pairs have no correlation and are left out of the mean "
            f"(a column is constant, or fewer than two rows are complete), among the columns {columns}",
            stacklevel=3,
        )
    return float(scores["score"].mean())


def _number_pair(real: pd.DataFrame, synthetic: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    return (
        numbers(real[name], f"column {name!r} of the real table"),
        numbers(synthetic[name], f"column {name!r} of the synthetic table"),
    )


def _with_missing(real: pd.DataFrame, synthetic: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    first, second, levels = shared_codes(real[name], synthetic[name], name)
    return first + 1, second + 1, levels + 1


def _ks_complement(real: np.ndarray, synthetic: np.ndarray) -> float:
    real, synthetic = (np.sort(np.round(values[~np.isnan(values)], DECIMALS)) for values in (real, synthetic))
    points = np.concatenate([real, synthetic])
    steps = np.searchsorted(real, points, side="right") / len(real)
    steps -= np.searchsorted(synthetic, points, side="right") / len(synthetic)
    return float(1 - np.abs(steps).max())


def _tv_complement(real: np.ndarray, synthetic: np.ndarray, levels: int) -> float:
    first = np.bincount(real[real >= 0], minlength=levels).astype(float)
    second = np.bincount(synthetic[synthetic >= 0], minlength=levels)
    first[(first == 0) & (second > 0)] = UNSEEN_COUNT
    return _similarity(first / first.sum(), second / second.sum())


def _width_bins(real: np.ndarray, synthetic: np.ndarray, edges: Edges) -> tuple[np.ndarray, np.ndarray, int]:
    """Cut into ten equal widths as numpy.digitize does: the maximum and a missing value share code 11 (own edges)."""
    cuts = [np.histogram_bin_edges(values[~np.isnan(values)], bins=BINS) for values in (real, synthetic)]
    if edges == "real":
        cuts[0][[0, -1]] = -np.inf, np.inf
        cuts[1] = cuts[0]
    return np.digitize(real, cuts[0]), np.digitize(synthetic, cuts[1]), BINS + 2


def _quantile_bins(real: np.ndarray, synthetic: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Cut at the real column's quantiles, bins open to the left (a heap of ties at the minimum is its own bin)."""
    inner = np.unique(np.quantile(real[~np.isnan(real)], np.arange(1, bins) / bins))
    codes = []
    for values in (real, synthetic):
        codes.append(np.where(np.isnan(values), len(inner) + 1, np.searchsorted(inner, values, side="left")))
    return codes[0], codes[1], len(inner) + 2


def _contingency_similarity(one: tuple[np.ndarray, np.ndarray, int], two: tuple[np.ndarray, np.ndarray, int]) -> float:
    cells = one[2] * two[2]
    joint = [first * np.int64(two[2]) + second for first, second in zip(one[:2], two[:2])]
    rows = len(joint[0]) + len(joint[1])
    # A joint histogram over thousands x thousands of levels would be memory for zeros: count occurring cells only.
    if cells > max(4 * rows, 65_536):
        _, packed = np.unique(np.concatenate(joint), return_inverse=True)
        joint, cells = [packed[: len(joint[0])], packed[len(joint[0]) :]], int(packed.max()) + 1
    first, second = (np.bincount(codes, minlength=cells) / len(codes) for codes in joint)
    return _similarity(first, second)


def _similarity(first: np.ndarray, second: np.ndarray) -> float:
    # Rounding can carry the distance of disjoint histograms past 2 by an ulp.
    return max(0.0, float(1 - np.abs(first - second).sum() / 2))


def _correlation_similarities(values: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[tuple[str, str], float]:
    names = list(values)
    real, synthetic = (_correlations([values[name][side] for name in names]) for side in (0, 1))
    similarity = 1 - np.abs(real - synthetic) / 2
    return {(names[i], names[j]): float(similarity[i, j]) for i, j in combinations(range(len(names)), 2)}


def _correlations(columns: list[np.ndarray]) -> np.ndarray:
    """Return Pearson's correlation of all pairs of columns over the rows complete in both; NaN where undefined."""
    result = np.full((len(columns), len(columns)), np.nan)
    present = [~np.isnan(column) for column in columns]
    units = [_unit(column) if here.all() else None for column, here in zip(columns, present)]
    for i, j in combinations(range(len(columns)), 2):
        if units[i] is not None and units[j] is not None:
            one, two = units[i], units[j]
        else:
            both = present[i] & present[j]
            one, two = _unit(columns[i][both]), _unit(columns[j][both])
        result[i, j] = np.clip(one @ two, -1.0, 1.0)
    return result


def _unit(column: np.ndarray) -> np.ndarray:
    """Return the column centred and of length 1; all NaN for a constant column or fewer than two rows."""
    if len(column) < 2 or column.min() == column.max():
        return np.full(max(len(column), 1), np.nan)
    centred = column - column.mean()
    largest = np.abs(centred).max()
    return centred / largest / np.linalg.norm(centred / largest)
