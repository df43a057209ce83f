"""The record-level game: the same rows with and without one record, trained again and again.

Threat model: the strongest black box. The adversary knows every training row but the target, knows the target record,
and can run the procedure that turns rows into a release as often as it likes; of one release it has to tell whether
the target was in (Stadler et al., 2022, "Synthetic data: anonymisation groundhog day", section 4; TAPAS, Houssiau et
al., 2022). Averages over records hide the few that are found: targets are outliers, records far from their neighbours
(Meeus et al., 2023, "Achilles' heels"). Each trial is a training of its own, so counts of trials go to the audits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feddiff.attacks.membership_blackbox import compare
from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, MixedRows
from feddiff.seeds import numpy_generator

Release = Callable[[pd.DataFrame, int], pd.DataFrame]
# Nearest synthetic rows whose distances are read; column subsets whose matches are counted, and their sizes.
NEAREST = 5
QUERIES, SIZES = 20, (1, 2, 3)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a game over one target record gave: scores (trials,) of releases, and whether the target was in, bool.

    fit: the first so many trials taught the adversary; only the others count as evidence.
    """

    scores: np.ndarray
    present: np.ndarray
    fit: int

    @property
    def tested(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the trials that count, with the target and without it."""
        scores, present = self.scores[self.fit :], self.present[self.fit :]
        return scores[present], scores[~present]


def outliers(
    rows: pd.DataFrame, count: int, *, kinds: Mapping[str, str] | None = None, neighbours: int = 5
) -> np.ndarray:
    """Return the positions of the `count` rows with the largest mean distance to their nearest other rows.

    ValueError unless 1 <= count <= len(rows) and there are more rows than `neighbours`.
    """
    if not 1 <= count <= len(rows) or not 1 <= neighbours < len(rows):
        raise ValueError(f"need 1 <= count <= {len(rows)} rows and 1 <= neighbours < {len(rows)}, got count={count!r} "
                         f"and neighbours={neighbours!r}")
    squared = compare(rows, rows, rows, kinds=kinds).to_synthetic
    np.fill_diagonal(squared, np.inf)
    far = np.sqrt(np.partition(squared, neighbours - 1, axis=1)[:, :neighbours]).mean(axis=1)
    return np.argsort(-far, kind="stable")[:count]


def play(
    train_and_release: Release,
    rows: pd.DataFrame,
    target: pd.DataFrame,
    *,
    trials: int,
    seed: int,
    kinds: Mapping[str, str] | None = None,
) -> Outcome:
    """Play the game with `trials` trainings, half of them with the target, in random order; the first half teaches.

    rows: the fixed training rows, without the target; target: one row. train_and_release(rows, seed) returns synthetic
    rows, with its randomness from that seed alone; its seeds differ from trial to trial. The adversary fits a logistic
    regression of presence on `features` of the releases of the first half.
    """
    if len(target) != 1 or not len(rows):
        raise ValueError(f"need training rows and one target row, got {len(rows)} and {len(target)}")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 8 or trials % 4:
        raise ValueError(f"trials must be a multiple of 4, at least 8 (both cases in both halves), got {trials!r}")
    coin, half = numpy_generator(seed, "shadow game"), trials // 2
    # As many of both in each half: a case that is missing teaches nothing.
    present = np.concatenate([coin.permutation(np.arange(half) % 2 == 0) for _ in range(2)])
    joined = pd.concat([rows, target], ignore_index=True)
    queries = _queries(rows.shape[1], numpy_generator(seed, "shadow game", "queries"))
    read = []
    for trial, there in enumerate(present):
        release = train_and_release(joined if there else rows.reset_index(drop=True), trial_seed(seed, trial))
        read.append(features(release, target, rows, kinds=kinds, queries=queries))
    read = np.array(read)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(read[:half], present[:half])
    return Outcome(scores=model.decision_function(read), present=present, fit=half)


def trial_seed(seed: int, trial: int) -> int:
    """Return the seed of a trial's training, different for every trial of a game."""
    return int(numpy_generator(seed, "shadow game", "trial", trial).integers(2**31))


def features(
    release: pd.DataFrame,
    target: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    queries: list[np.ndarray],
    kinds: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Return what the adversary reads of a release: distances of the target to its nearest rows, and query counts.

    A query is a set of columns; it counts rows that agree with the target in all of them (categories), or differ by
    less than half a standard deviation of `rows` (numbers); logarithms, so that a first match counts most.
    """
    tables = compare(target, release, rows, kinds=kinds)
    near = np.sqrt(np.sort(tables.to_synthetic[0])[:NEAREST])
    near = np.pad(near, (0, NEAREST - len(near)), mode="edge")
    agrees = _agreement(tables.rows)
    counts = [np.log1p(agrees[list(query)].all(axis=0).sum()) for query in queries]
    return np.concatenate([near, counts])


def _agreement(rows: MixedRows) -> np.ndarray:
    agrees = np.empty((len(rows.names), rows.rows(SYNTHETIC)), dtype=bool)
    for column in range(len(rows.names)):
        released, own = rows.codes[SYNTHETIC][column], rows.codes[ORIGINAL][column, 0]
        agrees[column] = released == own
        if rows.continuous[column]:
            spread = np.nanstd(rows.numbers_of(CONTROL, column))
            apart = np.abs(rows.numbers_of(SYNTHETIC, column) - rows.numbers_of(ORIGINAL, column)[0])
            agrees[column] |= apart <= spread / 2
    return agrees


def _queries(columns: int, generator: np.random.Generator) -> list[np.ndarray]:
    sizes = [min(SIZES[place % len(SIZES)], columns) for place in range(QUERIES)]
    return [generator.choice(columns, size, replace=False) for size in sizes]
