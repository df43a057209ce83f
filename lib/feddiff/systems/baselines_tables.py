"""Floors for tables: what a federation of row-partitioned clients can release with histograms alone, in one round.

Every client counts its rows in one histogram per column (numbers in 50 bins of equal probability in the codec's
space), adds Gaussian noise if the release is private, and sends the counts once; the server adds them up, sets
negative counts to 0, normalises and samples:

- independent_marginals, dp_marginals: every column on its own, the label too. Nothing joint survives: the floor of
  pair trends.
- marginals_given_label, dp_marginals_given_label: the label, then every column given the label (naive Bayes). At the
  same (epsilon, delta) this takes under a second and is the bar that a private diffusion model has to clear.

Privacy: (epsilon, delta) per record and client, add-remove. A record counts once in each of the d histograms (column,
or column x label) and once in that of the label, so all d + 1 together have L2 sensitivity sqrt(d + 1) and are one
Gaussian release (Balle & Wang, 2018, Theorem 8); clients are disjoint, so the federation's epsilon is that of one
client. The codecs are given: what they were fitted on is outside epsilon unless they are public or private releases,
exactly as for the diffusion model that uses the same codecs, and the statement says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri

from feddiff.data.codec import Encoded, LabelCodec, TableCodec, missing_name
from feddiff.data.columns import Z_LIMIT, CategoryColumn, NumericColumn
from feddiff.federation.channel import Channel
from feddiff.privacy.accounting import gaussian_noise
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.seeds import numpy_generator, torch_generator

BINS = 50

Noise = GaussianNoise | SecureGaussianNoise


class Budget(NamedTuple):
    """What one release may spend per record and client: epsilon > 0 at delta in (0, 1)."""

    epsilon: float
    delta: float


@dataclass(frozen=True, eq=False)
class Release:
    """Histograms that the server holds after one round, and the sampler they define.

    label_counts: (L,) and counts: per table column (L, cells), or (1, cells) where columns ignore the label; sums over
    clients, noise included, negative counts too. noise_std: of the noise in each cell of one client's histograms.
    privacy: the ledger's statement, None for a release without privacy. nbytes: sent by all clients together.
    """

    codec: TableCodec
    label_codec: LabelCodec
    columns: tuple[str, ...]
    label_counts: np.ndarray
    counts: tuple[np.ndarray, ...]
    noise_std: float
    privacy: dict[str, Any] | None
    nbytes: int

    def sample(self, rows: int, generator: np.random.Generator) -> pd.DataFrame:
        """Return `rows` synthetic rows with the columns, order and dtypes of the clients' tables."""
        if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1:
            raise ValueError(f"rows must be a positive integer, got {rows!r}")
        labels = generator.choice(len(self.label_counts), size=rows, p=_shares(self.label_counts[None])[0])
        codes, numbers = [], []
        for column, counts in zip(self.codec.columns, self.counts):
            given = labels if len(counts) > 1 else np.zeros(rows, dtype=np.int64)
            cells = _draw(_shares(counts), given, generator)
            if isinstance(column, CategoryColumn):
                codes.append(cells)
                continue
            if column.missing:
                codes.append((cells == BINS).astype(np.int64))
            uniform = (np.minimum(cells, BINS - 1) + generator.random(rows)) / BINS
            numbers.append(np.clip(ndtri(uniform), -Z_LIMIT, Z_LIMIT))
        encoded = Encoded(
            np.column_stack(codes).astype(np.int64) if codes else np.empty((rows, 0), dtype=np.int64),
            np.column_stack(numbers).astype(np.float32) if numbers else np.empty((rows, 0), dtype=np.float32),
        )
        frame = self.codec.decode(encoded)
        frame[self.label_codec.name] = self.label_codec.decode(labels)
        return frame[list(self.columns)]


def independent_marginals(
    clients: Sequence[pd.DataFrame], codec: TableCodec, label_codec: LabelCodec, *, seed: int
) -> Release:
    """Release every column's histogram without noise (no privacy): the floor of pair trends."""
    return _release(clients, codec, label_codec, given_label=False, seed=seed)


def marginals_given_label(
    clients: Sequence[pd.DataFrame], codec: TableCodec, label_codec: LabelCodec, *, seed: int
) -> Release:
    """Release every column's histogram given the label without noise (no privacy)."""
    return _release(clients, codec, label_codec, given_label=True, seed=seed)


def dp_marginals(
    clients: Sequence[pd.DataFrame],
    codec: TableCodec,
    label_codec: LabelCodec,
    *,
    epsilon: float,
    delta: float,
    seed: int,
    noise: Noise | None = None,
) -> Release:
    """Release every column's histogram with (epsilon, delta) per record; see `dp_marginals_given_label`."""
    budget = Budget(epsilon, delta)
    return _release(clients, codec, label_codec, given_label=False, seed=seed, budget=budget, noise=noise)


def dp_marginals_given_label(
    clients: Sequence[pd.DataFrame],
    codec: TableCodec,
    label_codec: LabelCodec,
    *,
    epsilon: float,
    delta: float,
    seed: int,
    noise: Noise | None = None,
) -> Release:
    """Release every column's histogram given the label with (epsilon, delta) per record, add-remove.

    clients: one table per client, label included. epsilon > 0, delta in (0, 1). seed: of the ranks inside ties and of
    every client's noise; `noise` replaces the latter (a deployment passes SecureGaussianNoise()).
    Raises ValueError for a client without rows or with a column, label or category that the codecs do not know.
    """
    budget = Budget(epsilon, delta)
    return _release(clients, codec, label_codec, given_label=True, seed=seed, budget=budget, noise=noise)


def sensitivity(codec: TableCodec) -> float:
    """Return the L2 sensitivity of one client's histograms: a record adds 1 to one cell of each, label included."""
    return math.sqrt(len(codec.columns) + 1)


def client_histograms(
    frame: pd.DataFrame, codec: TableCodec, label_codec: LabelCodec, *, given_label: bool, ranks: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the exact counts of one client, float64: "label" (L,) and "column 0", "column 1", ... (L or 1, cells).

    A number has 50 cells of equal probability in the codec's space and one more for missing values, if it has any;
    `ranks` places ties (codecs with "quantile-ties").
    """
    labels = label_codec.encode(frame[label_codec.name])
    classes = len(label_codec.classes)
    encoded = codec.encode(frame, ranks)
    codes = dict(zip(codec.code_columns, encoded.codes.T))
    numbers = dict(zip(codec.number_columns, encoded.numbers.T))
    histograms = {"label": np.bincount(labels, minlength=classes).astype(float)}
    groups, given = (classes, labels) if given_label else (1, np.zeros_like(labels))
    for index, column in enumerate(codec.columns):
        size = _cells(column)
        if isinstance(column, CategoryColumn):
            cells = codes[column.name]
        else:
            cells = np.minimum((ndtr(numbers[column.name].astype(float)) * BINS).astype(np.int64), BINS - 1)
            if column.missing:
                cells = np.where(codes[missing_name(column.name)] == 1, BINS, cells)
        counts = np.bincount(given * size + cells, minlength=groups * size)
        histograms[f"column {index}"] = counts.reshape(groups, size).astype(float)
    return histograms


def _release(
    clients: Sequence[pd.DataFrame],
    codec: TableCodec,
    label_codec: LabelCodec,
    *,
    given_label: bool,
    seed: int,
    budget: Budget | None = None,
    noise: Noise | None = None,
) -> Release:
    _check_clients(clients, codec, label_codec)
    names = [f"client {number}" for number in range(len(clients))]
    ratio = 0.0 if budget is None else gaussian_noise(target_epsilon=budget.epsilon, delta=budget.delta)
    noise_std = ratio * sensitivity(codec)
    channel = Channel()
    received = []
    for name, frame in zip(names, clients):
        ranks = numpy_generator(seed, "histograms", "ranks", name)
        source = noise or GaussianNoise(torch_generator(seed, "histograms", "noise", name))
        exact = client_histograms(frame, codec, label_codec, given_label=given_label, ranks=ranks)
        noisy = {key: counts + _draws(source, counts.shape, noise_std) for key, counts in exact.items()}
        received.append(channel.send(name, "server", "histograms", noisy))
    summed = {key: sum(message[key] for message in received) for key in received[0]}
    return Release(
        codec=codec,
        label_codec=label_codec,
        columns=tuple(clients[0].columns),
        label_counts=summed["label"],
        counts=tuple(summed[f"column {index}"] for index in range(len(codec.columns))),
        noise_std=noise_std,
        privacy=None if budget is None else _statement(names, codec, ratio, budget.delta),
        nbytes=channel.nbytes(),
    )


def _check_clients(clients: Sequence[pd.DataFrame], codec: TableCodec, label_codec: LabelCodec) -> None:
    if isinstance(clients, pd.DataFrame) or len(clients) == 0:
        raise ValueError("clients must be a sequence of at least one table; for a single party pass [frame]")
    expected = {*codec.names, label_codec.name}
    if label_codec.name in codec.names:
        raise ValueError(f"the label {label_codec.name!r} is also a column of the codec; fit the codec without it")
    for number, frame in enumerate(clients):
        if set(frame.columns) != expected:
            missing, extra = sorted(expected - set(frame.columns)), sorted(set(frame.columns) - expected)
            raise ValueError(f"client {number} lacks the columns {missing} and has {extra} beside those of the codecs")
        if len(frame) == 0:
            raise ValueError(f"client {number} has no rows; leave it out of the federation")


def _statement(names: list[str], codec: TableCodec, ratio: float, delta: float) -> dict[str, Any]:
    ledger = PrivacyLedger(clients=names, delta=delta)
    what = f"{len(codec.columns) + 1} histograms together, L2 sensitivity sqrt({len(codec.columns) + 1})"
    for name in names:
        ledger.spend_gaussian(name, noise_over_sensitivity=ratio, what=what)
    if codec.provenance in ("pooled", "client"):
        ledger.declare_outside(f"column codecs (quantiles, vocabularies) fitted on private rows: {codec.provenance}")
        ledger.declare_outside("names of the classes")
    return ledger.statement()


def _cells(column: NumericColumn | CategoryColumn) -> int:
    return column.levels if isinstance(column, CategoryColumn) else BINS + column.missing


def _draws(source: Noise, shape: tuple[int, ...], std: float) -> np.ndarray:
    return source.fill_(torch.empty(shape, dtype=torch.float64), std).numpy()


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return each row of `counts` as probabilities: negative counts are 0, a row without any count is uniform."""
    counts = np.maximum(counts, 0.0)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), 1.0 / counts.shape[1])


def _draw(shares: np.ndarray, given: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return one cell for every row of `given` from the row of `shares` that it names, int64 (n,)."""
    upper = np.cumsum(shares, axis=1)
    uniform = generator.random(len(given))
    cells = np.empty(len(given), dtype=np.int64)
    for row in range(len(shares)):
        here = given == row
        cells[here] = np.searchsorted(upper[row], uniform[here] * upper[row, -1], side="right")
    return np.minimum(cells, shares.shape[1] - 1)
