"""Linkability: join two partial views of the same person through the release.

Threat model (Giomi et al., 2023, section 4.2): the attacker holds two tables about the same people without a common
key, one with the columns of each view. For each person it looks up the nearest synthetic rows in either view and wins
where the two look-ups share a row. The blind attacker draws the rows at random.
"""

import numpy as np

from feddiff.attacks.games import Counts
from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, MixedRows, nearest_rows


def play(
    rows: MixedRows, *, generator: np.random.Generator, attacks: int, views: tuple[np.ndarray, np.ndarray],
    neighbours: int = 1,
) -> Counts:
    """Play the game on `attacks` different rows (fewer where a table has fewer) and return its counts.

    views: column positions of both views, disjoint. neighbours: synthetic rows looked up in either view. Equally near
    rows are taken in one random order for both views.
    """
    order = generator.permutation(rows.rows(SYNTHETIC))
    rows = rows.with_synthetic(order)
    made, won = {}, {}
    for side in (ORIGINAL, CONTROL):
        targets = generator.permutation(rows.rows(side))[:attacks]
        first, second = (nearest_rows(rows, side, targets, view, neighbours) for view in views)
        shared = (first[:, :, None] == second[:, None, :]).any(axis=(1, 2))
        made[side], won[side] = len(targets), int(np.count_nonzero(shared))
    chance = _blind_chance(rows.rows(SYNTHETIC), neighbours)
    return Counts(
        attacks=made[ORIGINAL],
        successes=won[ORIGINAL],
        control_attacks=made[CONTROL],
        control_successes=won[CONTROL],
        baseline_attacks=made[ORIGINAL],
        baseline_successes=int(generator.binomial(made[ORIGINAL], chance)),
    )


def _blind_chance(candidates: int, drawn: int) -> float:
    """Return the chance that two random sets of `drawn` of the candidates meet, 1 - C(n - k, k) / C(n, k)."""
    if 2 * drawn > candidates:
        return 1.0
    return float(-np.expm1(np.log1p(-drawn / (candidates - np.arange(drawn))).sum()))
