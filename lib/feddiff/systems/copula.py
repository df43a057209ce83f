"""A Gaussian copula of a federation's columns: normal scores and one correlation matrix, without DP or with it.

Two rounds. First every client sends counts of its categories given the label; the server adds them up, orders the
levels of each category by the share of the most frequent label among their rows (a nominal column has no order of its
own), and gives every level its interval of N(0, 1). A category's score is the mean of N(0, 1) over its level's
interval, divided by its standard deviation sqrt(lambda); a number's is its quantile-normal code. Then every client
sends the sum of z z^T over its rows, and the server reads off correlations of the latent normals:

    rho = r / sqrt(lambda_i lambda_j)    exact where one of the two is a number, since E[y_j | y_i] = rho y_i;
    rho = sin(r / sqrt(lambda_i lambda_j))      for two categories: exact for two halves, else to first order in rho

(r of the summed products; the nearest positive definite matrix with unit diagonal in its place). Rows are draws of
N(0, rho) cut at the intervals and put through the codec's quantiles.

Privacy of the DP form: (epsilon, delta) per record and client, add-remove, no trusted party: every client adds its own
noise before it sends. A row counts once in each of the m histograms (the label's on its own, the others given it): L2
sensitivity sqrt(m). Its scores are clipped to norm c, so z z^T has Frobenius norm at most c^2, that of its upper
triangle no more. Both are Gaussian releases that share mu^2. The codec (quantiles, vocabulary) is outside epsilon, as
for the diffusion model.

Sklar 1959; as a synthesiser: Patki, Wedge & Veeramachaneni 2016; noised correlations: Li, Xiong & Jiang 2014 (who
estimate Kendall's tau on a sample).
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.columns import Z_LIMIT
from feddiff.federation.channel import Channel
from feddiff.privacy.calibration import share_of_budget
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.table_rivals import check_rows

NAME = "copula"
NUMERICS = "quantile-ties"
# Share of the squared budget for the histograms.
HISTOGRAMS = 0.4
# c^2 over the number of columns: independent scores have squared norm 1 a column.
CLIP = 1.5
LARGEST = 0.99
_SMALLEST_EIGENVALUE = 1e-4


@dataclass(frozen=True, eq=False)
class Copula:
    """A released copula: correlation (d, d) of the code columns, then the number columns; levels of each category.

    upper: per code column the upper ends (in probability) of the levels' intervals in their order `levels`.
    """

    codec: TableCodec
    correlation: np.ndarray
    levels: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    privacy: dict[str, Any] | None
    nbytes: int
    settings: dict[str, Any]

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows with the columns, order and dtypes of the clients' tables."""
        rows, generator = check_rows(rows), numpy_generator(seed, "sampling", NAME)
        latent = generator.standard_normal((rows, len(self.correlation))) @ np.linalg.cholesky(self.correlation).T
        codes = np.empty((rows, len(self.levels)), dtype=np.int64)
        for place, (order, upper) in enumerate(zip(self.levels, self.upper, strict=True)):
            found = np.searchsorted(upper, ndtr(latent[:, place]) * upper[-1], side="right")
            codes[:, place] = order[np.minimum(found, len(order) - 1)]
        numbers = latent[:, len(self.levels) :].clip(-Z_LIMIT, Z_LIMIT).astype(np.float32)
        return self.codec.decode(Encoded(codes, numbers))


@dataclass(frozen=True)
class _Scores:
    """Scores of each code column: per level (in code order), and the variance lambda before they were scaled."""

    tables: tuple[np.ndarray, ...]
    variances: tuple[float, ...]

    def of(self, codes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the scores z (n, d), float64."""
        columns = [table[codes[:, place]] for place, table in enumerate(self.tables)]
        return np.column_stack([*columns, numbers.astype(np.float64)])


def copula(
    clients: Sequence[pd.DataFrame],
    kinds: Mapping[str, str],
    *,
    label: str,
    seed: int,
    epsilon: float | None = None,
    delta: float = 1e-5,
) -> Copula:
    """Return the copula of the clients' rows, with (epsilon, delta) per record and client if epsilon is given.

    clients: one table each, same columns; kinds of all columns; label: a categorical column without missing values,
    which orders the levels of the others. seed: of the ranks inside ties and of every client's noise.
    Raises ValueError for no clients, a client without rows, a label that is not a category, a budget out of range.
    """
    _check(clients, kinds, label)
    begun = time.perf_counter()
    codec = TableCodec.fit(pd.concat(clients, ignore_index=True), kinds, numerics=NUMERICS)
    names = [f"client {k}" for k in range(len(clients))]
    rows = [codec.encode(frame, numpy_generator(seed, NAME, "ranks", who)) for who, frame in zip(names, clients)]
    dimension = len(codec.levels) + len(codec.number_columns)
    clip2, histograms = CLIP * dimension, len(codec.levels)
    ratios = (0.0, 0.0)
    if epsilon is not None:
        ratios = tuple(
            share_of_budget(target_epsilon=epsilon, delta=delta, share=s) for s in (HISTOGRAMS, 1 - HISTOGRAMS)
        )
    place, channel = codec.code_columns.index(label), Channel()
    noise = {who: GaussianNoise(torch_generator(seed, NAME, "noise", who)) for who in names}
    counts: dict[str, np.ndarray] = {}
    for who, own in zip(names, rows, strict=True):
        exact = _histograms(own.codes, codec.levels, place)
        std = ratios[0] * math.sqrt(histograms)
        sent = channel.send(who, "server", "histograms", {key: _noised(c, std, noise[who]) for key, c in exact.items()})
        counts = {key: counts.get(key, 0.0) + value for key, value in sent.items()}
    levels, upper, scores = _intervals([counts[str(k)] for k in range(histograms)], place)
    products = np.zeros((dimension, dimension))
    for who, own in zip(names, rows, strict=True):
        z = scores.of(own.codes, own.numbers)
        if epsilon is not None:
            z *= np.minimum(1.0, math.sqrt(clip2) / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12))
        noisy = _noised((z.T @ z)[np.triu_indices(dimension)], ratios[1] * clip2, noise[who])
        products[np.triu_indices(dimension)] += channel.send(who, "server", "products", {"products": noisy})["products"]
    found = latent_correlation(products + np.triu(products, 1).T, np.array(scores.variances), histograms)
    statement = None if epsilon is None else _statement(names, ratios, histograms, clip2, delta)
    settings = {"parameters": dimension * (dimension - 1) // 2 + sum(codec.levels), "clip": math.sqrt(clip2),
                "seconds": time.perf_counter() - begun}
    return Copula(codec, found, levels, upper, statement, channel.nbytes(), settings)


def latent_correlation(products: np.ndarray, variances: np.ndarray, categories: int) -> np.ndarray:
    """Return the correlation (d, d) of the latent normals from summed products of scores (d, d), perhaps noised.

    variances: lambda of the first `categories` columns; the others are numbers. See the module's formulas.
    """
    size = np.sqrt(np.maximum(np.diag(products), 1.0))
    spread = np.sqrt(np.concatenate([np.maximum(variances, 1e-3), np.ones(len(products) - categories)]))
    latent = products / np.outer(size, size) / np.outer(spread, spread)
    both = np.zeros_like(latent, dtype=bool)
    both[:categories, :categories] = True
    latent = np.where(both, np.sin(latent.clip(-math.pi / 2, math.pi / 2)), latent).clip(-LARGEST, LARGEST)
    np.fill_diagonal(latent, 1.0)
    values, vectors = np.linalg.eigh(latent)
    mended = (vectors * np.maximum(values, _SMALLEST_EIGENVALUE)) @ vectors.T
    scale = np.sqrt(np.diag(mended))
    return mended / np.outer(scale, scale)


def _histograms(codes: np.ndarray, levels: Sequence[int], label: int) -> dict[str, np.ndarray]:
    """Return code column -> counts (levels, classes), the label's own (levels, 1)."""
    classes, own = levels[label], codes[:, label]
    tables = {
        str(k): np.bincount(codes[:, k] * classes + own, minlength=size * classes).reshape(size, classes).astype(float)
        for k, size in enumerate(levels)
    }
    return tables | {str(label): np.bincount(own, minlength=classes).astype(float)[:, None]}


def _intervals(
    counts: Sequence[np.ndarray], label: int
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], _Scores]:
    """Return the order of the levels, the upper ends of their intervals, and the scores, from (noisy) counts."""
    largest = int(np.argmax(counts[label][:, 0]))
    orders, ends, tables, variances = [], [], [], []
    for k, table in enumerate(counts):
        kept = np.maximum(table, 0.0)
        mass = kept.sum(axis=1)
        # Half a row a level keeps every interval open.
        share = (mass + 0.5) / (mass + 0.5).sum()
        # The label itself goes by frequency, the most frequent at one end like the levels that go with it.
        order = np.argsort(-mass if k == label else -kept[:, largest] / np.maximum(mass, 0.5), kind="stable")
        upper = np.cumsum(share[order])
        bounds = ndtri(np.concatenate([[0.0], upper[:-1].clip(1e-12, 1 - 1e-12), [1.0]]))
        means = -np.diff(np.exp(-(bounds**2) / 2) / math.sqrt(2 * math.pi)) / share[order]
        variance = float(share[order] @ means**2)
        table_of = np.empty(len(order))
        table_of[order] = means / math.sqrt(max(variance, 1e-6))
        orders.append(order)
        ends.append(upper)
        tables.append(table_of)
        variances.append(variance)
    return tuple(orders), tuple(ends), _Scores(tuple(tables), tuple(variances))


def _noised(values: np.ndarray, std: float, noise: GaussianNoise) -> np.ndarray:
    return values + noise.fill_(torch.empty(values.shape, dtype=torch.float64), std).numpy()


def _statement(
    names: Sequence[str], ratios: tuple[float, float], histograms: int, clip2: float, delta: float
) -> dict[str, Any]:
    ledger = PrivacyLedger(clients=names, delta=delta)
    told = (
        f"{histograms} histograms given the label, L2 sensitivity sqrt({histograms})",
        f"sum of z z^T, rows of scores clipped to norm {math.sqrt(clip2):.3g}",
    )
    for who in names:
        for ratio, what in zip(ratios, told, strict=True):
            ledger.spend_gaussian(who, noise_over_sensitivity=ratio, what=what)
    ledger.declare_outside(f"codec ({NUMERICS}): quantiles and vocabulary of the pooled training rows")
    return ledger.statement()


def _check(clients: Sequence[pd.DataFrame], kinds: Mapping[str, str], label: str) -> None:
    if isinstance(clients, pd.DataFrame) or not len(clients):
        raise ValueError("clients must be a sequence of at least one table; for a single party pass [frame]")
    for k, frame in enumerate(clients):
        if not len(frame):
            raise ValueError(f"client {k} has no rows; leave it out of the federation")
    if kinds.get(label) not in ("categorical", "boolean"):
        raise ValueError(f"label must be a categorical or boolean column, got {label!r} of kind {kinds.get(label)!r}")
