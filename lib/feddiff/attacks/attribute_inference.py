"""Attribute inference: read a person's secret off the nearest synthetic row.

Threat model (Giomi et al., 2023, section 4.3): the attacker knows columns of a person, by default all but one, and
guesses another one from the synthetic row that is nearest in those it knows. A category is guessed right where it is
equal (missing equals missing), a number where it lies within a relative tolerance. The blind attacker guesses the
secret of a random synthetic row.
"""

import numpy as np

from feddiff.attacks.games import Counts
from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, MixedRows, nearest_rows


def play(
    rows: MixedRows, *, generator: np.random.Generator, attacks: int, secrets: np.ndarray, tolerance: float,
    known: np.ndarray | None = None,
) -> Counts:
    """Play the game on `attacks` different rows (fewer where a table has fewer) and return its counts.

    secrets: positions of the columns to guess; each attacked row has one secret, the secrets evenly shared. known:
    positions of the columns that are known (None: all but the secret). tolerance: |guess - secret| <= tolerance |guess|
    wins for a number.
    """
    held = np.arange(len(rows.names)) if known is None else known
    rows = rows.with_synthetic(generator.permutation(rows.rows(SYNTHETIC)))
    made, won = {}, {}
    for side in (ORIGINAL, CONTROL):
        targets = generator.permutation(rows.rows(side))[:attacks]
        made[side] = len(targets)
        nearest = np.empty(len(targets), dtype=np.int64)
        for turn, secret in enumerate(secrets):
            given = np.setdiff1d(held, secret)
            nearest[turn :: len(secrets)] = nearest_rows(rows, side, targets[turn :: len(secrets)], given)[:, 0]
        won[side] = _right(rows, side, targets, nearest, secrets, tolerance)
        if side == ORIGINAL:
            drawn = generator.integers(rows.rows(SYNTHETIC), size=len(targets))
            blind = _right(rows, side, targets, drawn, secrets, tolerance)
    return Counts(
        attacks=made[ORIGINAL],
        successes=won[ORIGINAL],
        control_attacks=made[CONTROL],
        control_successes=won[CONTROL],
        baseline_attacks=made[ORIGINAL],
        baseline_successes=blind,
    )


def _right(
    rows: MixedRows, side: int, targets: np.ndarray, guessed: np.ndarray, secrets: np.ndarray, tolerance: float
) -> int:
    """Return how many of the guesses, given as synthetic rows, are right."""
    right = 0
    for turn, secret in enumerate(secrets):
        target, guess = targets[turn :: len(secrets)], guessed[turn :: len(secrets)]
        equal = rows.codes[side][secret, target] == rows.codes[SYNTHETIC][secret, guess]
        if rows.continuous[secret]:
            truth, guess = rows.numbers_of(side, secret)[target], rows.numbers_of(SYNTHETIC, secret)[guess]
            equal |= np.abs(guess - truth) <= tolerance * np.abs(guess)
        right += int(np.count_nonzero(equal))
    return right
