"""Input-space canaries: records as unlikely as a table allows, to be trained on or not by a coin each.

Threat model: an auditor, or an adversary who may contribute records, chooses the canaries and knows every other
record; a fair coin of its own decides whether each canary is in the training set. What it sees of the training
(weights, one release) is a matter of the scores, from which it guesses the coins (Steinke, Nasr, Jagielski 2023,
"Privacy Auditing with One (1) Training Run", section 5: one-run bounds in `audit`).

A gradient-space canary (`canaries`) is the worst record there is, but no row of a table has such a gradient. These go
the way of real rows, codec and loss included, and so bound what a record can lose in practice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from feddiff.data.schema import KINDS
from feddiff.privacy.arguments import count

ATTEMPTS = 100


@dataclass(frozen=True, eq=False)
class Canaries:
    """frame: the canaries, with the columns, order and dtypes of the table; origins: the row each was made of, (m,)."""

    frame: pd.DataFrame
    origins: np.ndarray


def craft(
    frame: pd.DataFrame,
    kinds: Mapping[str, str],
    *,
    target: str | None,
    canaries: int,
    generator: np.random.Generator,
) -> Canaries:
    """Return `canaries` unlikely records; no two are equal, and none is a row of `frame`, which stays as it is.

    Of a random row every number is moved to one end of its column's range or up to a range beyond, the end by a coin;
    every category becomes another label, the rarer the likelier, whatever the others are; the label `target` becomes
    another one (None, or a number: the target is a column like the others). No value is missing. ValueError for bad
    kinds, a column without values, or a table too narrow for so many different records.
    """
    canaries = count("canaries", canaries, low=1)
    _check(frame, kinds, target)
    draws = {name: _Numbers(frame[name], kind) if kind in ("numeric", "integer") else _Labels(frame[name])
             for name, kind in kinds.items()}
    if target is not None and isinstance(draws[target], _Labels) and len(draws[target].labels) < 2:
        raise ValueError(f"target {target!r} has one label, which cannot be flipped")
    made, origins = frame.iloc[:0], np.empty(0, dtype=np.int64)
    for _ in range(ATTEMPTS):
        rows = generator.integers(len(frame), size=canaries - len(made))
        fresh = pd.DataFrame({
            name: pd.Series(draw(frame[name].iloc[rows], generator), dtype=frame[name].dtype)
            for name, draw in draws.items()
        })
        both = pd.concat([made, fresh], ignore_index=True)
        new = ~pd.concat([frame, both], ignore_index=True).duplicated().to_numpy()[len(frame) :]
        made, origins = both[new].reset_index(drop=True), np.concatenate([origins, rows])[new]
        if len(made) == canaries:
            return Canaries(made, origins)
    raise ValueError(f"found only {len(made)} different canaries of the {canaries} asked for: the table is too narrow")


class _Numbers:
    """Draws at or beyond either end of a column's range, within what its dtype holds."""

    def __init__(self, column: pd.Series, kind: str):
        known = column.dropna().astype(float)
        if known.empty:
            raise ValueError(f"column {column.name!r} has no values")
        self.low, self.high, self.whole = known.min(), known.max(), kind == "integer"
        self.span = (self.high - self.low) or 1.0
        limits = np.iinfo(column.dtype) if np.issubdtype(column.to_numpy().dtype, np.integer) else None
        self.limits = (-np.inf, np.inf) if limits is None else (float(limits.min), float(limits.max))

    def __call__(self, origin: pd.Series, generator: np.random.Generator) -> np.ndarray:
        beyond = self.span * generator.random(len(origin))
        values = np.where(generator.random(len(origin)) < 0.5, self.low - beyond, self.high + beyond)
        return np.clip(np.rint(values) if self.whole else values, *self.limits)


class _Labels:
    """Draws another label than the origin's, with odds inverse to how often each is seen."""

    def __init__(self, column: pd.Series):
        seen = column.value_counts()
        seen = seen[seen > 0].sort_index(kind="stable")
        if seen.empty:
            raise ValueError(f"column {column.name!r} has no values")
        self.labels, self.odds = seen.index.to_numpy(), 1 / seen.to_numpy()

    def __call__(self, origin: pd.Series, generator: np.random.Generator) -> np.ndarray:
        if len(self.labels) == 1:
            return np.repeat(self.labels, len(origin))
        odds = np.where(origin.to_numpy()[:, None] == self.labels, 0.0, self.odds)
        passed = np.cumsum(odds, axis=1) / odds.sum(axis=1, keepdims=True)
        return self.labels[(generator.random((len(origin), 1)) >= passed[:, :-1]).sum(axis=1)]


def _check(frame: pd.DataFrame, kinds: Mapping[str, str], target: str | None) -> None:
    if not len(frame):
        raise ValueError("cannot make canaries of a table without rows")
    if list(kinds) != list(frame.columns):
        raise ValueError(f"kinds must name every column in order: {list(frame.columns)}, got {list(kinds)}")
    wrong = {name: kind for name, kind in kinds.items() if kind not in KINDS}
    if wrong:
        raise ValueError(f"kinds must be of {KINDS}, got {wrong}")
    if target is not None and target not in kinds:
        raise ValueError(f"target {target!r} is not a column; the table has {list(frame.columns)}")
