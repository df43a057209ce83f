"""Membership from a published table by the distance to its closest record, and a table that was moved as a whole.

Threat model: black box. The adversary holds the published rows, candidate records of which it wants to know whether
they were among the training rows, and a public sample of the same population; columns are numbers, or of any kind for
`table_moved_back`.

`closest_record_scores` is the common distance attack (GAN-leaks without calibration, Chen et al., 2020; "DCR-MIA").
It finds copies and is blind to copies that were all moved alike, as is every metric of closeness built on the same
distance (Ganev and De Cristofaro, 2025; Yao et al., 2025, "The DCR Delusion"). `moved_back` takes the move off first.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from feddiff.evaluation.columns import CONTINUOUS
from feddiff.evaluation.nearest import nearest_distances


def closest_record_scores(records: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Return minus the distance of each record (n, d) to its nearest synthetic row; higher: more likely a member."""
    return -nearest_distances(records, synthetic)


def moved_back(synthetic: np.ndarray, public: np.ndarray) -> np.ndarray:
    """Return the synthetic rows (m, d) moved so that their mean is that of the public sample (k, d)."""
    return synthetic + (np.mean(public, axis=0) - np.mean(synthetic, axis=0))


def table_moved_back(synthetic: pd.DataFrame, public: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return the synthetic table with numbers moved to the public mean and labels renamed to the public ones.

    The k-th most frequent label of a column becomes the k-th most frequent of the public sample (ties by spelling);
    labels that the sample has no rank for keep their name. No row is looked at: marginals alone undo the move. A
    column whose ranks the sample cannot tell, such as thousands of names or two labels as frequent, is left out.
    """
    moved = synthetic[[name for name, kind in kinds.items() if kind in CONTINUOUS or _has_ranks(public[name])]].copy()
    for name in moved:
        if kinds[name] in CONTINUOUS:
            moved[name] = moved_back(synthetic[name].to_numpy(dtype=float), public[name].to_numpy(dtype=float))
        else:
            names = dict(zip(_ranked(synthetic[name]), _ranked(public[name])))
            moved[name] = synthetic[name].astype(object).map(lambda label: names.get(label, label))
    return moved


def _has_ranks(column: pd.Series) -> bool:
    """Return whether 90 % of the rows have a label whose count is 2 standard errors from those of the ranks beside."""
    counts = np.sort(column.value_counts().to_numpy())[::-1]
    apart = -np.diff(counts) > 2 * np.sqrt(counts[:-1] + counts[1:])
    clear = np.append(True, apart) & np.append(apart, True)
    return bool(counts[clear].sum() >= 0.9 * counts.sum())


def _ranked(column: pd.Series) -> list:
    """Return the labels of a column, the most frequent first, equally frequent ones by spelling."""
    counts = column.value_counts()
    return sorted(counts.index, key=lambda label: (-counts[label], str(label)))


def recovered(records: np.ndarray, synthetic: np.ndarray, within: float) -> float:
    """Return the share of records (n, d) with a synthetic row that is at most `within` off in every column.

    In the unit of the columns: give them in standard deviations. ValueError unless `within` is positive.
    """
    if not within > 0:
        raise ValueError(f"within must be positive, got {within!r}")
    found = 0
    for record in np.asarray(records, dtype=float):
        found += bool((np.abs(synthetic - record).max(axis=1) <= within).any())
    return found / len(records)
