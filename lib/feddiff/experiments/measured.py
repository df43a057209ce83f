"""What the rules of the claims read from records: one value a run, and its interval over seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from feddiff.experiments.tables import number, quantile


class NotYet(Exception):
    """The records do not hold what the rule needs (more runs, another notebook)."""


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with its 95 % t-interval; `exact` values are their own interval."""

    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.mean)
        return f"{number(self.mean)} [{number(self.low)}, {number(self.high)}]"


def interval(values: pd.Series, exact: bool = False) -> Interval:
    """Return the interval of one value a seed; NotYet for a single seed unless the quantity is `exact`."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1 and not exact:
        raise NotYet("one seed gives no interval")
    half = float(quantile(n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return Interval(n, mean, mean - half, mean + half)


def values(frame: pd.DataFrame, metric: str | list[str], where: Mapping[str, str]) -> pd.Series:
    """Return the metric (the mean of several) by (dataset, seed), where the labels are as given.

    NotYet when there is none, or when a label that `where` leaves open varies.
    """
    columns = []
    for name in [metric] if isinstance(metric, str) else metric:
        part = frame[(frame["name"] == name) & frame["value"].notna()]
        for label, text in where.items():
            part = part[part[label] == str(text)] if label in part.columns else part.iloc[:0]
        wanted = ", ".join(f"{label} {text}" for label, text in where.items())
        if part.empty:
            raise NotYet(f"the records hold no {name} for {wanted}" if wanted else f"the records hold no {name}")
        if part.duplicated(["dataset", "seed"]).any():
            raise NotYet(f"the records hold several {name} for {wanted or 'one seed'}; the rule must name one")
        columns.append(part.set_index(["dataset", "seed"])["value"].rename(name))
    joined = pd.concat(columns, axis=1, join="inner")
    if joined.empty:
        raise NotYet(f"no run holds {' and '.join(joined.columns)} together")
    return joined.mean(axis=1).sort_index()
