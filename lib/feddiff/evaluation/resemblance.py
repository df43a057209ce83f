"""SiloFuse's resemblance (arXiv 2404.03299): five scores of two tables in 0..100 and their mean, every reading of them.

The five names are public, their formulas are not: where a name can be read in several ways each reading is computed
(`readings="all"`), one is the default, and the ones known to be faulty are there to show what they do. Equal tables
score 100 in every default reading. What fresh real rows score is the noise level to print beside any score.

- column similarity. As its name says: Pearson (numbers), Theil's U (categories) of the real and the synthetic column,
  but rows of two tables are not paired, so that literally read it is about 0 for any table but the same rows in the
  same order. Default: sorted numbers (the correlation of the Q-Q plot, blind to a shift or scale) and the cosine of
  the two vectors of category frequencies (their Pearson correlation would be 1 for any two binary columns alike in
  their majority).
- correlation similarity: Pearson's correlation between the associations of all pairs of columns in either table
  (`association.mixed_association`), both directions of Theil's U.
- Jensen-Shannon similarity: 1 - distance (the root of the divergence, base 2), mean over columns; numbers in ten bins
  of the real table's range, the outer ones open; a missing value is a level.
- KS similarity: 1 - largest gap of the distribution functions, mean over columns, categories in sorted order.
- propensity: 1 - 2 mean |p - .5| out of fold, see `propensity`; boosting of scikit-learn instead of XGBoost.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon

from feddiff.evaluation.association import mixed_association, theils_u
from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes
from feddiff.evaluation.fidelity import column_scores
from feddiff.evaluation.propensity import STRONG, indistinguishable, propensity, reversed_form, unordered

PARTS = (
    "column similarity", "correlation similarity", "Jensen-Shannon similarity", "KS similarity", "propensity",
)
BINS = 10

Pair = tuple[np.ndarray, np.ndarray]


def resemblance(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    readings: Literal["default", "all"] = "default",
) -> pd.DataFrame:
    """Return the five parts: part, reading, score in 0..100 (100 best), default (bool); one row per reading.

    With `readings="default"` the mean of `score` is the resemblance score; otherwise see `resemblance_score`. A reading
    that is undefined for the table (numbers only, without a number) is NaN. Only the readings named "rows as they come"
    depend on the order of rows, "one direction" on that of columns; `seed` draws rows and folds of the propensity.
    Raises ValueError/TypeError for different or fewer than three columns, empty ones, infinities, types that cannot be
    compared.
    """
    if readings not in ("default", "all"):
        raise ValueError(f'readings must be "default" or "all", got {readings!r}')
    check_pair(real, synthetic)
    kinds = kinds_of(real, kinds)
    if len(kinds) < 3:
        raise ValueError(f"correlation similarity needs at least three columns (three pairs), got {list(kinds)}")
    synthetic = synthetic[list(kinds)]
    everything = readings == "all"
    columns = _Columns(real, synthetic, kinds)
    found = [
        _column_similarity(columns),
        _correlation_similarity(real, synthetic, kinds),
        _jensen_shannon(columns),
        _kolmogorov_smirnov(columns),
        _propensity(real, synthetic, kinds, seed, everything),
    ]
    rows = [
        (part, reading, 100 * float(np.clip(score, 0.0, 1.0)), position == 0)
        for part, scores in zip(PARTS, found)
        for position, (reading, score) in enumerate(scores.items())
        if everything or position == 0
    ]
    return pd.DataFrame(rows, columns=["part", "reading", "score", "default"])


def resemblance_score(scores: pd.DataFrame) -> float:
    """Return the mean of the five default readings of `resemblance`, in 0..100."""
    return float(scores.loc[scores["default"], "score"].mean())


class _Columns:
    """Both tables column by column: numbers (missing ones NaN) or codes of a shared vocabulary (missing ones -1)."""

    def __init__(self, real: pd.DataFrame, synthetic: pd.DataFrame, kinds: Mapping[str, str]):
        self.numbers: dict[str, Pair] = {}
        self.codes: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        for name, kind in kinds.items():
            if kind in CONTINUOUS:
                self.numbers[name] = (numbers(real[name], f"column {name!r} of the real table"),
                                      numbers(synthetic[name], f"column {name!r} of the synthetic table"))
            else:
                self.codes[name] = shared_codes(real[name], synthetic[name], name)

    def mean(self, of_numbers: Callable[[np.ndarray, np.ndarray], float],
             of_codes: Callable[[np.ndarray, np.ndarray, int], float]) -> float:
        """Return the mean over all columns of a score of two columns of numbers, or of codes."""
        scores = [of_numbers(*pair) for pair in self.numbers.values()]
        return float(np.mean(scores + [of_codes(*pair) for pair in self.codes.values()]))


def _column_similarity(columns: _Columns) -> dict[str, float]:
    return {
        "sorted columns, cosine of frequencies": columns.mean(_quantile_correlation, _frequency_cosine),
        "sorted columns, Theil's U": columns.mean(_quantile_correlation, _sorted_uncertainty),
        "rows as they come: Pearson, Theil's U (faulty)": columns.mean(_row_correlation, _row_uncertainty),
    }


def _quantile_correlation(real: np.ndarray, synthetic: np.ndarray) -> float:
    real, synthetic = (np.sort(values[~np.isnan(values)]) for values in (real, synthetic))
    if len(real) != len(synthetic):
        levels = (np.arange(min(len(real), len(synthetic))) + 0.5) / min(len(real), len(synthetic))
        real, synthetic = (np.quantile(values, levels) for values in (real, synthetic))
    return _pearson(real, synthetic)


def _frequency_cosine(real: np.ndarray, synthetic: np.ndarray, levels: int) -> float:
    first, second = (np.bincount(codes + 1, minlength=levels + 1) / len(codes) for codes in (real, synthetic))
    return float(first @ second / np.sqrt(first @ first) / np.sqrt(second @ second))


def _sorted_uncertainty(real: np.ndarray, synthetic: np.ndarray, levels: int) -> float:
    rows = min(len(real), len(synthetic))
    places = (np.arange(rows) + 0.5) / rows
    first, second = (np.sort(codes)[(places * len(codes)).astype(np.int64)] for codes in (real, synthetic))
    return _uncertainty(first, second, levels)


def _row_correlation(real: np.ndarray, synthetic: np.ndarray) -> float:
    rows = min(len(real), len(synthetic))
    both = ~np.isnan(real[:rows]) & ~np.isnan(synthetic[:rows])
    return max(0.0, _pearson(real[:rows][both], synthetic[:rows][both]))


def _row_uncertainty(real: np.ndarray, synthetic: np.ndarray, levels: int) -> float:
    rows = min(len(real), len(synthetic))
    return _uncertainty(real[:rows], synthetic[:rows], levels)


def _uncertainty(first: np.ndarray, second: np.ndarray, levels: int) -> float:
    """Return U(first | second); a `first` of one value has no entropy: 1 where `second` is that value, otherwise 0."""
    if (first == first[0]).all():
        return float((second == first[0]).all())
    return float(theils_u(np.column_stack([first, second]) + 1, np.array([levels + 1, levels + 1]))[0, 1])


def _correlation_similarity(real: pd.DataFrame, synthetic: pd.DataFrame, kinds: Mapping[str, str]) -> dict[str, float]:
    first = mixed_association(real, kinds=kinds).to_numpy()
    second = mixed_association(synthetic, kinds=kinds, reference=real).to_numpy()
    off = ~np.eye(len(first), dtype=bool)
    upper = np.triu_indices(len(first), 1)
    return {
        "all pairs, U in both directions": _pearson(first[off], second[off]),
        "all pairs, U in one direction": _pearson(first[upper], second[upper]),
        "whole matrix with its diagonal": _pearson(first.ravel(), second.ravel()),
        "1 - mean |difference|": float(1 - np.abs(first[off] - second[off]).mean()),
    }


def _jensen_shannon(columns: _Columns) -> dict[str, float]:
    found = {}
    for form in ("distance", "divergence"):
        for edges in ("the real range", "the common range", "the real quantiles"):
            found[f"{form}, bins on {edges}"] = columns.mean(
                partial(_js_numbers, form=form, edges=edges), partial(_js_codes, form=form)
            )
    found["distance, each table on its own range (faulty)"] = columns.mean(
        partial(_js_numbers, form="distance", edges="own"), partial(_js_codes, form="distance")
    )
    return found


def _js_numbers(real: np.ndarray, synthetic: np.ndarray, *, form: str, edges: str) -> float:
    present = [values[~np.isnan(values)] for values in (real, synthetic)]
    if edges == "the real quantiles":
        inner = [np.unique(np.quantile(present[0], np.arange(1, BINS) / BINS))] * 2
    elif edges == "own":
        inner = [np.histogram_bin_edges(values, BINS)[1:-1] for values in present]
    else:
        inner = [np.histogram_bin_edges(present[0] if edges == "the real range" else np.concatenate(present), BINS)]
        inner = [inner[0][1:-1]] * 2
    shares = [np.bincount(np.searchsorted(cuts, values), minlength=BINS + 1) for cuts, values in zip(inner, present)]
    for share, values in zip(shares, (real, synthetic)):
        share[BINS] = np.isnan(values).sum()
    return _js_similarity(*shares, form)


def _js_codes(real: np.ndarray, synthetic: np.ndarray, levels: int, *, form: str) -> float:
    return _js_similarity(*(np.bincount(codes + 1, minlength=levels + 1) for codes in (real, synthetic)), form)


def _js_similarity(first: np.ndarray, second: np.ndarray, form: str) -> float:
    # Rounding leaves equal histograms of many levels at 1e-8 (the root of 1e-16), not at 0.
    if np.array_equal(first * second.sum(), second * first.sum()):
        return 1.0
    distance = float(jensenshannon(first, second, base=2))
    return 1 - (distance if form == "distance" else distance**2)


def _kolmogorov_smirnov(columns: _Columns) -> dict[str, float]:
    ordered, distances = [], []
    tables = [pd.DataFrame({name: pd.Series(pair[side]) for name, pair in columns.numbers.items()}) for side in (0, 1)]
    scores = column_scores(*tables)["score"].to_list() if columns.numbers else []
    for real, synthetic, levels in columns.codes.values():
        first, second = (np.bincount(codes[codes >= 0], minlength=levels) / (codes >= 0).sum()
                         for codes in (real, synthetic))
        ordered.append(1 - np.abs(np.cumsum(first - second)).max())
        distances.append(1 - np.abs(first - second).sum() / 2)
    return {
        "all columns, categories in sorted order": float(np.mean(scores + ordered)),
        "numbers only": float(np.mean(scores)) if scores else np.nan,
        "numbers, total variation of categories": float(np.mean(scores + distances)),
    }


def _propensity(
    real: pd.DataFrame, synthetic: pd.DataFrame, kinds: Mapping[str, str], seed: int, everything: bool
) -> dict[str, float]:
    chances = propensity(real, synthetic, kinds=kinds, seed=seed)
    found = {"1 - 2 mean |p - .5|, out of fold": indistinguishable(*chances)}
    if everything:
        strong = propensity(real, synthetic, kinds=kinds, seed=seed, strength=STRONG)
        seen = propensity(real, synthetic, kinds=kinds, seed=seed, strength=STRONG, out_of_fold=False)
        found |= {
            "1 - |2 AUC - 1|, out of fold": unordered(*chances),
            "1 - 2 mean |p - .5|, out of fold, boosting as strong as XGBoost's defaults": indistinguishable(*strong),
            "1 - 2 mean |p - .5|, in sample (faulty)": indistinguishable(*seen),
            "1 - mean |label - p|, out of fold (reversed)": reversed_form(*chances),
        }
    return found


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation; 1 for equal vectors, 0 where only one of two different ones varies or none does."""
    if np.array_equal(first, second):
        return 1.0
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
