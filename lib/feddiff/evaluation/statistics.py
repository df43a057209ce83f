"""Means over seeds with intervals: what a table of results may say, and how surely.

A value measured once per seed is treated as a draw from a normal distribution (t-intervals); bootstrap intervals are
there for per-row scores. Intervals have the stated two-sided confidence; with one value there is none, and the bounds
are NaN rather than a guess. Values that are not finite are refused, never dropped.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student


class Estimate(NamedTuple):
    """A mean (or ratio) with its interval [low, high] and the number of values behind it; NaN bounds: no interval."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.3f} (n={self.count})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.count})"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the mean over seeds with Student's t interval (n - 1 degrees of freedom); NaN bounds for one value."""
    values = _finite(values, "values")
    count = len(values)
    half = _half_width(values.std(ddof=1) / np.sqrt(count), count - 1, confidence) if count > 1 else np.nan
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), count)


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the mean of first - second with its t interval; entry i of both comes from the same seed and split."""
    first, second = _pair(first, second)
    return mean_interval(first - second, confidence)


def relative_change(
    value: Sequence[float], baseline: Sequence[float], confidence: float = 0.95, *, paired: bool = True
) -> Estimate:
    """Return mean(value) / mean(baseline) - 1 with Fieller's (1954) interval for a ratio of means.

    paired: entry i of both comes from the same seed; otherwise the samples are independent and Welch's degrees of
    freedom are used. Where the baseline's mean is not clearly different from 0 the ratio has no bounded interval:
    the bounds are NaN (as with one value). Raises ValueError for a baseline of mean 0.
    """
    value, baseline = _pair(value, baseline) if paired else (_finite(value, "value"), _finite(baseline, "baseline"))
    above, below = value.mean(), baseline.mean()
    if below == 0:
        raise ValueError("baseline has mean 0: a relative change is undefined; report the difference")
    change, counts = float(above / below - 1), (len(value), len(baseline))
    if min(counts) < 2:
        return Estimate(change, np.nan, np.nan, min(counts))
    spread = np.array([value.var(ddof=1) / counts[0], baseline.var(ddof=1) / counts[1]])
    joint = np.cov(value, baseline)[0, 1] / counts[0] if paired else 0.0
    freedom = counts[0] - 1 if paired or spread.sum() == 0 else _welch(spread, counts)
    squared = _half_width(1.0, freedom, confidence) ** 2
    # The ratio r is in the interval where (above - r below)^2 <= t^2 Var(above - r below): a quadratic in r.
    quadratic = below**2 - squared * spread[1]
    linear = above * below - squared * joint
    constant = above**2 - squared * spread[0]
    if quadratic <= 0:
        return Estimate(change, np.nan, np.nan, min(counts))
    root = np.sqrt(max(linear**2 - quadratic * constant, 0.0))
    return Estimate(change, float((linear - root) / quadratic - 1), float((linear + root) / quadratic - 1), min(counts))


def bootstrap_interval(
    values: Sequence[float],
    *,
    generator: np.random.Generator,
    statistic: Callable[[np.ndarray], float] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """Return `statistic(values)` with its percentile bootstrap interval (Efron, 1979) over the entries of `values`."""
    values = _finite(values, "values")
    _half_width(1.0, 1, confidence)
    if resamples < 100:
        raise ValueError(f"resamples must be at least 100, got {resamples!r}")
    if len(values) < 2:
        return Estimate(float(statistic(values)), np.nan, np.nan, len(values))
    draws = [statistic(values[generator.integers(0, len(values), len(values))]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(statistic(values)), float(low), float(high), len(values))


def summarise(
    records: pd.DataFrame, *, by: Sequence[str], value: str = "value", seed: str = "seed", confidence: float = 0.95
) -> pd.DataFrame:
    """Return mean, low, high, count of the long-form `records` for each group of the columns `by`, sorted by them.

    Each group must hold one value per seed; a repeated seed would count as evidence twice and is a ValueError.
    """
    absent = [name for name in (*by, value, seed) if name not in records.columns]
    if absent:
        raise ValueError(f"records lack the columns {absent}; they have {list(records.columns)}")
    repeated = records[records.duplicated([*by, seed])]
    if len(repeated):
        raise ValueError(f"{seed} {repeated[seed].iloc[0]} occurs twice for {repeated[list(by)].iloc[0].to_dict()}")
    rows = [
        (*key, *mean_interval(group[value].to_numpy(), confidence))
        for key, group in records.groupby(list(by), sort=True, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "count"])


def _welch(spread: np.ndarray, counts: tuple[int, int]) -> float:
    return float(spread.sum() ** 2 / np.sum(spread**2 / (np.array(counts) - 1)))


def _half_width(error: float, freedom: float, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")
    return float(student.ppf((1 + confidence) / 2, freedom) * error)


def _pair(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    first, second = _finite(first, "first"), _finite(second, "second")
    if len(first) != len(second):
        raise ValueError(f"paired values need the same seeds on both sides, got {len(first)} and {len(second)} values")
    return first, second


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must be a non-empty sequence of numbers, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(values)).sum())} entries that are not finite")
    return values
