"""Three tables of mixed types on one scale: ranks to compare values by, and a Gower-like distance between rows.

The distance of two rows is the sum over columns of |difference| / range for numbers and of 0 or 1 for categories
(Gower, 1971); a value missing on one side counts 1, on both sides 0. Ranges are taken over the attacked and the
synthetic rows: an attack on the original knows nothing of the control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from feddiff.attacks.predicates import MISSING, first_rows
from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes

ORIGINAL, SYNTHETIC, CONTROL = 0, 1, 2
# Distances held at a time (1 MiB of float32), and the widest category that is compared by a matrix product.
BLOCK = 1 << 18
WIDEST_ONE_HOT = 64


@dataclass(frozen=True)
class MixedRows:
    """Original, synthetic and control rows (in this order), columns in the order of the original.

    names (c,); continuous (c,) bool; codes: three int32 arrays (c, rows), the rank of each value among all values of
    the column in the three tables, -1 for missing; values: the column's sorted distinct values, float64, or None for a
    discrete column; levels (c,): number of distinct values; gaps (c,) bool: some value is missing.
    """

    names: tuple[str, ...]
    continuous: np.ndarray
    codes: tuple[np.ndarray, np.ndarray, np.ndarray]
    values: tuple[np.ndarray | None, ...]
    levels: np.ndarray
    gaps: np.ndarray

    def rows(self, side: int) -> int:
        """Return the number of rows of a table."""
        return self.codes[side].shape[1]

    def distinct(self, side: int) -> np.ndarray:
        """Return the codes of a table without repeated rows, (c, distinct rows), in order of first appearance."""
        return self.codes[side][:, first_rows(self.codes[side].T)]

    def with_synthetic(self, order: np.ndarray) -> "MixedRows":
        """Return the same tables with the synthetic rows in another order."""
        return replace(self, codes=(self.codes[ORIGINAL], self.codes[SYNTHETIC][:, order], self.codes[CONTROL]))

    def positions(self, names: Sequence[str], role: str) -> np.ndarray:
        """Return the positions of the named columns; ValueError for names that are unknown, repeated or none."""
        names = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in names if name not in self.names]
        if unknown or not names or len(set(names)) < len(names):
            raise ValueError(f"{role} must be distinct columns of {list(self.names)}, at least one; got {names}")
        return np.array([self.names.index(name) for name in names])

    def numbers_of(self, side: int, column: int) -> np.ndarray:
        """Return a continuous column's values of a table, float64, missing as NaN."""
        return np.append(self.values[column], np.nan)[self.codes[side][column]]


def mixed_rows(
    original: pd.DataFrame, synthetic: pd.DataFrame, control: pd.DataFrame, kinds: Mapping[str, str] | None = None
) -> MixedRows:
    """Bring three tables with the same columns (in any order) onto one scale; none is changed.

    kinds: as `evaluation.columns.kinds_of`; by default from the original's dtypes. ValueError or TypeError names the
    table or column at fault.
    """
    check_pair(original, synthetic, ("original", "synthetic"))
    check_pair(original, control, ("original", "control"))
    kinds = kinds_of(original, kinds)
    ends = np.cumsum([len(original), len(synthetic)])
    codes, values, levels = [], [], []
    for name, kind in kinds.items():
        sides = (original[name], synthetic[name], control[name])
        if kind in CONTINUOUS:
            column = np.concatenate([
                numbers(side, f"column {name!r} of the {table} table")
                for side, table in zip(sides, ("original", "synthetic", "control"))
            ])
            known, ranks = np.unique(column, return_inverse=True)
            known = known[~np.isnan(known)]
            codes.append(np.where(np.isnan(column), MISSING, ranks))
            values.append(known)
            levels.append(len(known))
        else:
            ranks, count = _shared_ranks(name, sides)
            codes.append(ranks)
            values.append(None)
            levels.append(count)
    joined = np.array(codes, dtype=np.int32)
    gaps = joined.min(axis=1) == MISSING
    continuous = np.array([kind in CONTINUOUS for kind in kinds.values()])
    return MixedRows(
        tuple(kinds), continuous, tuple(np.split(joined, ends, axis=1)), tuple(values), np.array(levels), gaps
    )


def _shared_ranks(name: str, sides: tuple[pd.Series, pd.Series, pd.Series]) -> tuple[np.ndarray, int]:
    """Return a discrete column's codes in the three tables, joined, and the number of values; distinct values only
    are aligned, for speed.
    """
    places, known = zip(*(pd.factorize(side.astype(object).to_numpy()) for side in sides))
    real = np.concatenate([known[ORIGINAL], known[CONTROL]])
    ours, theirs, count = shared_codes(
        pd.Series(real, dtype=object), pd.Series(known[SYNTHETIC], dtype=object), name,
        ("original or control", "synthetic"),
    )
    ranks = np.split(ours, [len(known[ORIGINAL])])
    ranks.insert(SYNTHETIC, theirs)
    return np.concatenate([np.append(rank, MISSING)[place] for rank, place in zip(ranks, places)]), count


def nearest_rows(rows: MixedRows, side: int, targets: np.ndarray, columns: np.ndarray, count: int = 1) -> np.ndarray:
    """Return, for each target row of table `side`, the `count` nearest synthetic rows in `columns`, (targets, count).

    Nearest first; of equally near ones, those that stand first in the synthetic table.
    """
    plain, hot, single = _paths(rows, columns)
    queries, candidates = rows.codes[side][:, targets], rows.codes[SYNTHETIC]
    units = [_unit(rows, side, column) for column in plain]
    left, right = (_scaled(units, codes, plain) for codes in (queries, candidates))
    left_hot, right_hot = (_one_hot(rows, codes, hot) for codes in (queries, candidates))
    size = max(1, BLOCK // rows.rows(SYNTHETIC))
    found = np.empty((len(targets), count), dtype=np.int64)
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        # cdist with p = 1 sums differences one by one: a copy is at exactly 0, which a matrix product would blur.
        # The product of 0 and 1 is exact: it counts the categories that agree.
        distance = torch.cdist(left[part], right, p=1.0)
        if len(hot):
            distance.add_(len(hot)).addmm_(left_hot[part], right_hot.T, alpha=-1)
        distance = distance.numpy()
        for column in single:
            distance += _column_distance(rows, side, column, queries[column, part], candidates[column])
        if count == 1:
            found[part, 0] = distance.argmin(1)
        else:
            found[part] = np.argsort(distance, axis=1, kind="stable")[:, :count]
    return found


def _paths(rows: MixedRows, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split columns: numbers without gaps, categories of few levels, and the rest, which is compared one by one."""
    plain = rows.continuous[columns] & ~rows.gaps[columns]
    hot = ~rows.continuous[columns] & (rows.levels[columns] <= WIDEST_ONE_HOT)
    return columns[plain], columns[hot], columns[~plain & ~hot]


def _unit(rows: MixedRows, side: int, column: int) -> np.ndarray:
    """Return the distinct values of a continuous column in units of its range, and NaN at the end for code -1."""
    values = rows.values[column]
    present = np.concatenate([rows.codes[side][column], rows.codes[SYNTHETIC][column]])
    low, high = values[present[present != MISSING].min()], values[present.max()]
    return np.append((values - low) / ((high - low) or 1.0), np.nan)


def _scaled(units: list[np.ndarray], codes: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    scaled = [unit[codes[column]] for unit, column in zip(units, columns)]
    scaled = np.column_stack(scaled) if scaled else np.zeros((codes.shape[1], 1))
    return torch.from_numpy(scaled.astype(np.float32))


def _one_hot(rows: MixedRows, codes: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    """Return 1 at each column's level, missing being a level too, float32 (rows, levels)."""
    width = np.concatenate([[0], np.cumsum(rows.levels[columns] + 1)])
    hot = np.zeros((codes.shape[1], width[-1]), dtype=np.float32)
    for place, column in zip(width, columns):
        hot[np.arange(codes.shape[1]), place + 1 + codes[column]] = 1
    return torch.from_numpy(hot)


def _column_distance(
    rows: MixedRows, side: int, column: int, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    differ = left[:, None] != right
    if not rows.continuous[column]:
        return differ
    unit = _unit(rows, side, column)
    apart = np.abs(unit[left][:, None] - unit[right])
    return np.where(np.isnan(apart), differ, apart)
