"""Membership from a published table by the distance to its closest record, and a table that was moved as a whole.

Threat model: black box. The adversary holds the published rows, candidate records of which it wants to know whether
they were among the training rows, and a public sample of the same population; columns are numbers.

`closest_record_scores` is the common distance attack (GAN-leaks without calibration, Chen et al., 2020; "DCR-MIA").
It finds copies and is blind to copies that were all moved alike, as is every metric of closeness built on the same
distance (Ganev and De Cristofaro, 2025; Yao et al., 2025, "The DCR Delusion"). `moved_back` takes the move off first.
"""

import numpy as np

from feddiff.evaluation.nearest import nearest_distances


def closest_record_scores(records: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Return minus the distance of each record (n, d) to its nearest synthetic row; higher: more likely a member."""
    return -nearest_distances(records, synthetic)


def moved_back(synthetic: np.ndarray, public: np.ndarray) -> np.ndarray:
    """Return the synthetic rows (m, d) moved so that their mean is that of the public sample (k, d)."""
    return synthetic + (np.mean(public, axis=0) - np.mean(synthetic, axis=0))


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
