"""What latents tell without a single pair: equal rows, neighbours, clusters, distances, and public marginals.

Threat model (structure): the adversary holds latents and nothing else. A deterministic encoder maps equal rows to equal
latents, and a useful one keeps near rows near, so relations between persons show although no value does.

Threat model (unpaired public sample): beside the latents the adversary has rows of the same population, none of which
need be among the latents. It matches distributions: frequencies of equal latents (frequency analysis), ranks against
quantiles (optimal transport in one dimension), or a whole silo's latents against public rows by alternating optimal
assignment and regression (after Wasserstein-Procrustes, Grave, Joulin and Berthet, 2019; started from the distribution
of distances around each row, a lower bound of Gromov-Wasserstein, Memoli, 2011). The premise "input domain unknown" of
SiloFuse's Theorem 1 is given up, everything else of it holds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata, spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_mutual_info_score

from feddiff.attacks.latent_inversion import invert
from feddiff.attacks.latent_rows import BLOCK, Rows

# Alignment starts: signs of so many principal components, rounds of each, and how many go on to the end.
COMPONENTS, SHORT, KEPT = 4, 2, 4
# Latents that agree so far are equal: float32 products differ in their last digits between batches.
DECIMALS = 4


def groups(points: np.ndarray) -> np.ndarray:
    """Return a number for each row of (n, d), the same for rows that are equal to DECIMALS places."""
    return np.unique(np.round(points, DECIMALS) + 0.0, axis=0, return_inverse=True)[1].ravel()


def duplicates(z: np.ndarray, truth: Rows) -> dict[str, float]:
    """Return how equal latents betray equal rows, over all pairs of rows.

    equal_latents: share of rows whose latent another row has too; precision: share of pairs of equal latents that are
    equal rows; recall: share of pairs of equal rows whose latents are equal. NaN where there is no such pair.
    """
    found, real = groups(z), groups(truth.embedded())
    both = found * (real.max() + 1) + real
    same_z, same_row, same = (_pairs(labels) for labels in (found, real, both))
    return {
        "equal_latents": float(np.mean(np.bincount(found)[found] > 1)),
        "precision": same / same_z if same_z else np.nan, "recall": same / same_row if same_row else np.nan,
    }


def _pairs(labels: np.ndarray) -> int:
    counts = np.unique(labels, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def distance_correlation(z: np.ndarray, truth: Rows, generator: np.random.Generator, pairs: int = 20_000) -> float:
    """Return Spearman's correlation of the distances between rows in latents and in values, over random pairs."""
    first, second = (generator.integers(0, len(z), pairs) for _ in range(2))
    other = first != second
    points = truth.embedded()
    apart = [np.linalg.norm(side[first[other]] - side[second[other]], axis=1) for side in (z, points)]
    return float(spearmanr(*apart).statistic)


def neighbours(z: np.ndarray, truth: Rows) -> pd.DataFrame:
    """Return per column how alike a row and its nearest other latent are: column, kind, score, baseline, gain.

    Categories: share of agreement; baseline is that of two random rows, gain = (score - baseline) / (1 - baseline).
    Numbers: score = gain = 1 - mean squared difference / that of two random rows (twice the variance); 0 is chance.
    """
    nearest = _nearest_other(z)
    found, m = [], len(truth.levels)
    for j, name in enumerate(truth.names[:m]):
        own = truth.codes[:, j]
        counts = np.bincount(own)
        baseline = float((counts * (counts - 1.0)).sum() / (len(own) * (len(own) - 1.0)))
        score = float(np.mean(own == own[nearest]))
        gain = (score - baseline) / (1 - baseline) if baseline < 1 else np.nan
        found.append((name, "category", score, baseline, gain))
    for j, name in enumerate(truth.names[m:]):
        own = truth.numbers[:, j]
        spread = 2 * own.var(ddof=1)
        alike = 1 - float(np.square(own - own[nearest]).mean() / spread) if spread > 0 else np.nan
        found.append((name, "number", alike, 0.0, alike))
    return pd.DataFrame(found, columns=["column", "kind", "score", "baseline", "gain"])


def _nearest_other(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z, dtype=float)
    squares, size, found = np.square(z).sum(axis=1), max(1, BLOCK // len(z)), []
    for start in range(0, len(z), size):
        distance = squares - 2 * z[start : start + size] @ z.T
        here = np.arange(len(distance))
        distance[here, start + here] = np.inf
        found.append(distance.argmin(axis=1))
    return np.concatenate(found)


def clusters(z: np.ndarray, truth: Rows, generator: np.random.Generator) -> dict[str, float]:
    """Return by category column the agreement of k-means clusters, as many as it has values, with its values.

    Adjusted mutual information: 0 is chance, 1 the same partition. A column of one value is left out.
    """
    seed, found = int(generator.integers(2**31)), {}
    for name, own in zip(truth.names, truth.codes.T):
        values = len(np.unique(own))
        if values > 1:
            labels = KMeans(values, n_init=3, random_state=seed).fit_predict(z)
            found[name] = float(adjusted_mutual_info_score(own, labels))
    return found


def relinked(z: np.ndarray, z_again: np.ndarray) -> float:
    """Return the share of latents of a second release whose nearest latent of the first is the same row's."""
    first, second = np.asarray(z, dtype=float), np.asarray(z_again, dtype=float)
    squares, size, won = np.square(first).sum(axis=1), max(1, BLOCK // len(first)), 0
    for start in range(0, len(second), size):
        distance = squares - 2 * second[start : start + size] @ first.T
        won += int((distance.argmin(axis=1) == np.arange(start, start + len(distance))).sum())
    return won / len(second)


def by_frequency(z: np.ndarray, public: Rows) -> Rows:
    """Return the rows guessed by frequency analysis: the i-th most frequent latent is the i-th most frequent row."""
    of_public, of_z = groups(public.embedded()), groups(z)
    first = np.unique(of_public, return_index=True)[1][_by_count(of_public)]
    place = np.empty(of_z.max() + 1, dtype=np.int64)
    ranked = _by_count(of_z)
    place[ranked] = np.minimum(np.arange(len(ranked)), len(first) - 1)
    return public.select(first[place[of_z]])


def _by_count(labels: np.ndarray) -> np.ndarray:
    return np.argsort(-np.bincount(labels), kind="stable")


def by_quantile(z: np.ndarray, public: np.ndarray, *, ascending: bool = True) -> np.ndarray:
    """Return for latents (n,) of one number the public quantiles at their ranks: optimal transport on the line."""
    share = (rankdata(z if ascending else -z) - 0.5) / len(z)
    return np.quantile(public, share)


def by_columns(blocks: Sequence[np.ndarray], public: Rows) -> Rows:
    """Return the rows guessed from one block of latents (n, s_j) per column, in the order of the public sample's.

    Categories by frequency, numbers by quantile along the block's first principal axis. Which end is up no marginal
    says where the encoder made the number symmetric: it is taken from the correlations with the categories and the
    numbers settled before, as the public sample has them.
    """
    m = len(public.levels)
    parts = [by_frequency(blocks[j], _category(public, j)).codes for j in range(m)]
    codes = np.concatenate(parts, axis=1) if m else np.empty((len(blocks[0]), 0), dtype=np.int64)
    guess = replace(public, codes=codes, numbers=np.zeros((len(codes), public.numbers.shape[1])))
    for j, block in enumerate(blocks[m:]):
        centred = block - block.mean(axis=0)
        axis = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
        seen = [np.concatenate([side.one_hot(), side.numbers[:, :j]], axis=1) for side in (guess, public)]
        told = _correlations(axis, seen[0]) @ _correlations(public.numbers[:, j], seen[1])
        guess.numbers[:, j] = by_quantile(axis, public.numbers[:, j], ascending=told >= 0)
    return guess


def _category(rows: Rows, column: int) -> Rows:
    return Rows(rows.codes[:, [column]], np.empty((len(rows), 0)), (rows.levels[column],), (rows.names[column],))


def _correlations(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    values, others = values - values.mean(), others - others.mean(axis=0)
    norms = np.linalg.norm(values) * np.linalg.norm(others, axis=0)
    return others.T @ values / np.where(norms > 0, norms, np.inf)


def align(
    z: np.ndarray, public: Rows, *, generator: np.random.Generator, rounds: int = 10, rows: int = 250
) -> Rows:
    """Return the rows guessed by aligning latents z (n, s) of one silo with its columns in an unpaired public sample.

    A few hundred latents are paired with as many public rows: by the distribution of their distances, and by their
    principal components under each choice of signs. From each pairing: regress rows on latents, assign anew at least
    cost; the best go on for `rounds` rounds, and the pairing of least cost teaches the guess of all rows.
    """
    z = np.asarray(z, dtype=float)
    count = min(rows, len(z), len(public))
    ours, theirs = (generator.permutation(len(side))[:count] for side in (z, public))
    left, sample = z[ours], public.select(theirs)
    right = sample.embedded()
    pairings = [_improved(left, right, start, SHORT) for start in _starts(left, right)]
    pairings.sort(key=lambda found: found[1])
    best = min((_improved(left, right, pairing, rounds) for pairing, _ in pairings[:KEPT]), key=lambda found: found[1])
    method = "knn" if count >= 50 else "ridge"
    return invert(left, sample.select(best[0]), z, method=method, generator=torch.Generator())


def _starts(left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    profiles = [np.quantile(_apart(side), np.linspace(0, 1, 21), axis=1).T for side in (left, right)]
    starts = [_assigned(*(side / side.mean() for side in profiles))[0]]
    width = min(left.shape[1], right.shape[1], COMPONENTS)
    ours, theirs = (_principal(side, width) for side in (left, right))
    for signs in itertools.product((-1.0, 1.0), repeat=width):
        starts.append(_assigned(ours * signs, theirs)[0])
    return starts


def _improved(left: np.ndarray, right: np.ndarray, pairing: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    for _ in range(rounds):
        told = Ridge(alpha=1.0).fit(left, right[pairing]).predict(left)
        pairing, cost = _assigned(told, right)
    return pairing, cost


def _apart(points: np.ndarray) -> np.ndarray:
    squares = np.square(points).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0))


def _assigned(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    cost = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2 * left @ right.T
    first, second = linear_sum_assignment(cost)
    return second, float(cost[first, second].mean())


def _principal(points: np.ndarray, width: int) -> np.ndarray:
    """Return the `width` largest principal components in units of the largest, (n, width)."""
    left, scale, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return (left * scale)[:, :width] / scale[0] * np.sqrt(len(points))
