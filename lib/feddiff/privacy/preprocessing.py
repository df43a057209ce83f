"""Codecs that leak nothing beyond the budget: public bounds and vocabularies, or differentially private ones.

Every private number here is a count with Gaussian noise, so that clients' noisy counts can be added up by the server,
that shares of a budget are shares of mu^2, and that it composes tightly with DP-SGD in the ledger. Numbers: a tree of
counts over public bounds, eight children a node, refined only where the noisy count stands out (Hay et al. 2010;
adding a row changes one node a level, so depth d has L2 sensitivity sqrt(d)). Quantiles by the exponential mechanism
(Kaplan et al. 2022) are sharper for one curator but cannot be added up over clients. Vocabularies: stable histograms
(Korolova et al. 2009): a label is released when its noisy count passes a threshold that one row passes with
probability delta.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from feddiff.data.codec import TableCodec
from feddiff.data.columns import CategoryColumn, NumericColumn, sorted_labels
from feddiff.privacy.arguments import real
from feddiff.privacy.ledger import PrivacyLedger

_CHILDREN, _DEPTH = 8, 4
_STANDS_OUT = 3.0  # standard deviations of a noisy count below which a node is not refined
_NUMBERS = ("numeric", "integer")
_OTHER = "other"


def public_codec(
    frame: pd.DataFrame,
    kinds: Mapping[str, str],
    *,
    bounds: Mapping[str, tuple[float, float]],
    vocabulary: Mapping[str, Sequence],
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    numerics: str = "standard",
) -> TableCodec:
    """Return a codec of public knowledge only; of `frame` it reads column names and dtypes, never a value.

    `bounds`: (low, high) per numeric or integer column; `vocabulary`: labels per categorical column; `missing`: columns
    that may have missing values. numerics="standard" scales the bounds to mean 0 and the variance of a uniform column
    to 1; "quantile" and "quantile-ties" take the column as uniform between its bounds. Costs nothing.
    """
    fitted = []
    for name in _columns(frame, kinds, columns):
        if kinds[name] in _NUMBERS:
            low, high = _bounds(name, bounds)
            scale = {"mean": (low + high) / 2, "scale": (high - low) / math.sqrt(12)}
            fitted.append(_number(frame, name, kinds, missing, (low, high), (0.0, 1.0), numerics=numerics, **scale))
        else:
            fitted.append(_category(frame, name, _labels(name, kinds, vocabulary), missing))
    return TableCodec(tuple(fitted), "public")


def private_codec(
    clients: Sequence[pd.DataFrame],
    kinds: Mapping[str, str],
    *,
    noise_over_sensitivity: float,
    bounds: Mapping[str, tuple[float, float]],
    ledger: PrivacyLedger,
    noise,
    vocabulary: Mapping[str, Sequence] | None = None,
    vocabulary_delta: float = 0.0,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    numerics: str = "quantile-ties",
) -> TableCodec:
    """Return one codec for all clients from their noisy counts; each client's spending enters `ledger`.

    clients: one frame per client of the ledger, in its order. `noise_over_sensitivity`: of the whole release (all
    columns), per client; calibration.share_of_budget turns a share of the budget into it. `noise` has
    fill_(tensor, std) (feddiff.privacy.noise). Categorical columns without a public `vocabulary` need
    `vocabulary_delta` > 0, which is spread over them and taken off the ledger's delta; labels below the threshold
    become "other". Public inputs: bounds, column names, kinds, dtypes and which columns may be `missing`.
    """
    ratio = real("noise_over_sensitivity", noise_over_sensitivity, open_low=True, open_high=True)
    _same_clients(clients, ledger)
    vocabulary = vocabulary or {}
    first = clients[0]
    names = _columns(first, kinds, columns)
    trees = {name: _Tree(name, kinds[name], *_bounds(name, bounds)) for name in names if kinds[name] in _NUMBERS}
    unknown = [name for name in names if kinds[name] == "categorical" and name not in vocabulary]
    real("vocabulary_delta", vocabulary_delta, high=ledger.delta, open_high=True)
    if unknown and vocabulary_delta == 0:
        raise ValueError(
            f"column {unknown[0]!r} has no public vocabulary: give vocabulary[{unknown[0]!r}], or a vocabulary_delta "
            "> 0 with which its labels are released"
        )
    _check_missing(clients, names, missing)
    sensitivity2 = sum(tree.depth for tree in trees.values()) + len(unknown)
    std = ratio * math.sqrt(max(1, sensitivity2))
    totals = {name: [0.0] * tree.depth for name, tree in trees.items()}
    released: dict[str, dict] = {name: {} for name in unknown}
    for client, frame in zip(ledger.clients, clients, strict=True):
        for name, tree in trees.items():
            levels = tree.noisy_levels(frame[name], noise, std)
            totals[name] = [total + level for total, level in zip(totals[name], levels, strict=True)]
        for name in unknown:
            for label, count in _stable_labels(frame[name], noise, std, vocabulary_delta / len(unknown)).items():
                released[name][label] = released[name].get(label, 0.0) + count
        if sensitivity2:
            what = f"codec: {len(trees)} count trees and {len(unknown)} label histograms"
            ledger.spend_gaussian(client, noise_over_sensitivity=ratio, what=what)
        if unknown:
            what = f"codec: label thresholds of {len(unknown)} columns"
            ledger.spend_delta(client, delta=vocabulary_delta, what=what)
    spread = std * math.sqrt(len(clients))
    fitted = []
    for name in names:
        if name in trees:
            knots = trees[name].knots(totals[name], spread)
            fitted.append(_number(first, name, kinds, missing, *knots, numerics=numerics))
        elif name in released:
            fitted.append(_released_category(first, name, released[name], missing))
        else:
            fitted.append(_category(first, name, _labels(name, kinds, vocabulary), missing))
    return TableCodec(tuple(fitted), "private")


def private_label_marginals(
    clients: Sequence[pd.Series],
    classes: Sequence,
    *,
    noise_over_sensitivity: float,
    ledger: PrivacyLedger,
    noise,
) -> np.ndarray:
    """Return label probabilities (len(classes),) from every client's noisy label counts (sensitivity 1).

    `classes` is public; a label outside it is a ValueError. All counts below zero: equal probabilities.
    """
    ratio = real("noise_over_sensitivity", noise_over_sensitivity, open_low=True, open_high=True)
    _same_clients(clients, ledger)
    index = pd.Index(list(classes))
    codes = [index.get_indexer(labels.astype(object)) for labels in clients]
    for labels, found in zip(clients, codes, strict=True):
        if (found < 0).any():
            raise ValueError(f"label {labels[found < 0].iloc[0]!r} is not among the public classes {list(classes)}")
    total = np.zeros(len(index))
    for client, found in zip(ledger.clients, codes, strict=True):
        total += _noisy(np.bincount(found, minlength=len(index)), noise, ratio)
        ledger.spend_gaussian(client, noise_over_sensitivity=ratio, what=f"label counts of {len(index)} classes")
    total = np.maximum(total, 0.0)
    return total / total.sum() if total.sum() > 0 else np.full(len(index), 1 / len(index))


def private_row_counts(
    clients: Sequence[Sequence], *, noise_over_sensitivity: float, ledger: PrivacyLedger, noise
) -> dict[str, int]:
    """Return each client's number of rows with noise, at least 1 (where weights or rates leave a client)."""
    ratio = real("noise_over_sensitivity", noise_over_sensitivity, open_low=True, open_high=True)
    _same_clients(clients, ledger)
    counts = {}
    for client, rows in zip(ledger.clients, clients, strict=True):
        counts[client] = max(1, round(float(_noisy(np.array([len(rows)]), noise, ratio)[0])))
        ledger.spend_gaussian(client, noise_over_sensitivity=ratio, what="number of rows")
    return counts


class _Tree:
    """Counts over the leaves of a public range: whole numbers while they are few, else equal bins.

    Beside the bins each bound has a leaf of its own, since many columns have a spike there (no capital gain: 0).
    """

    def __init__(self, name: str, kind: str, low: float, high: float):
        largest = _CHILDREN**_DEPTH
        self.name, self.low, self.high = name, low, high
        self.whole = kind == "integer" and high - low + 1 <= largest
        self.leaves = int(high - low + 1) if self.whole else largest
        self.depth = max(1, next(d for d in range(1, _DEPTH + 1) if _CHILDREN**d >= self.leaves))

    def noisy_levels(self, series: pd.Series, noise, std: float) -> list[np.ndarray]:
        """Return noisy counts of every node, one array a level from the top (8 nodes) to the leaves."""
        x = series.to_numpy(dtype=np.float64, na_value=np.nan)
        x = np.clip(x[~np.isnan(x)], self.low, self.high)
        if self.whole:
            leaf = (x - self.low).astype(np.int64)
        else:
            bins = self.leaves - 2
            inner = np.minimum(((x - self.low) / (self.high - self.low) * bins).astype(np.int64), bins - 1)
            leaf = np.where(x == self.low, 0, np.where(x == self.high, self.leaves - 1, 1 + inner))
        levels = []
        for level in range(1, self.depth + 1):
            node = leaf // _CHILDREN ** (self.depth - level)
            levels.append(_noisy(np.bincount(node, minlength=_CHILDREN**level), noise, std))
        return levels

    def knots(self, levels: Sequence[np.ndarray], std: float) -> tuple[np.ndarray, np.ndarray]:
        """Return quantile values and probabilities: a node's mass is shared by its noisy children while it stands out.

        Nodes that do not are spread evenly over their leaves. Equal values in a row are one tie.
        """
        pieces: list[tuple[int, int, float]] = []

        def refine(level: int, node: int, mass: float, count: float) -> None:
            width = _CHILDREN ** (self.depth - level)
            start, stop = node * width, min((node + 1) * width, self.leaves)
            if level == self.depth or count < _STANDS_OUT * std or mass == 0:
                pieces.append((start, stop, mass))
                return
            first = node * _CHILDREN
            # Nodes wholly beyond the range hold noise only.
            inside = [k for k in range(first, first + _CHILDREN) if k * width // _CHILDREN < self.leaves]
            counts = np.maximum(levels[level][inside], 0.0)
            if counts.sum() == 0:
                pieces.append((start, stop, mass))
                return
            for child, own in zip(inside, counts, strict=True):
                refine(level + 1, child, mass * own / counts.sum(), own)

        top = np.maximum(levels[0], 0.0).sum()
        refine(0, 0, 1.0, max(top, _STANDS_OUT * std))
        values, probabilities, done = [], [], 0.0
        for start, stop, mass in pieces:
            if self.whole:
                share = mass / (stop - start)
                ends = [(start, done), (start, done + share)]
                if stop - start > 1:
                    ends += [(stop - 1, done + mass - share), (stop - 1, done + mass)]
                values += [self.low + end for end, _ in ends]
                probabilities += [at for _, at in ends]
            else:
                values += [self._edge(start), self._edge(stop)]
                probabilities += [done, done + mass]
            done += mass
        probabilities = np.clip(np.maximum.accumulate(probabilities), 0.0, 1.0)
        probabilities[-1] = 1.0
        return np.maximum.accumulate(np.asarray(values, dtype=np.float64)), probabilities

    def _edge(self, leaf: int) -> float:
        """Return where a bin starts; leaf 0 and the last are the bounds themselves and have no width."""
        bins = self.leaves - 2
        return self.low + (self.high - self.low) * min(max(leaf - 1, 0), bins) / bins


def _noisy(counts: np.ndarray, noise, std: float) -> np.ndarray:
    return counts + noise.fill_(torch.empty(len(counts), dtype=torch.float64), std).numpy()


def _stable_labels(series: pd.Series, noise, std: float, delta: float) -> dict:
    """Return the labels whose noisy count passes 1 + std * z(1 - delta), with those counts."""
    counts = series.dropna().value_counts()
    if counts.empty:
        return {}
    threshold = 1 + std * float(norm.isf(delta))
    noisy = _noisy(counts.to_numpy(), noise, std)
    return {label: count for label, count in zip(counts.index, noisy, strict=True) if count > threshold}


def _number(
    frame: pd.DataFrame, name: str, kinds: Mapping[str, str], missing: Sequence[str], values, probabilities, **options
) -> NumericColumn:
    decimals = 0 if kinds[name] == "integer" else None
    options.update(dtype=str(frame[name].dtype), decimals=decimals, missing=name in missing)
    return NumericColumn.from_quantiles(name, values, probabilities, **options)


def _category(
    frame: pd.DataFrame, name: str, labels: Sequence, missing: Sequence[str], other: object = None
) -> CategoryColumn:
    dtype = str(frame[name].dtype)
    return CategoryColumn(name=name, vocabulary=tuple(labels), dtype=dtype, missing=name in missing, other=other)


def _released_category(frame: pd.DataFrame, name: str, counts: dict, missing: Sequence[str]) -> CategoryColumn:
    labels = sorted_labels(counts)
    if all(isinstance(label, str) for label in labels):
        return _category(frame, name, [*(label for label in labels if label != _OTHER), _OTHER], missing, _OTHER)
    return _category(frame, name, labels, missing, max(counts, key=counts.get))


def _labels(name: str, kinds: Mapping[str, str], vocabulary: Mapping[str, Sequence]) -> Sequence:
    if name in vocabulary:
        return vocabulary[name]
    if kinds[name] == "boolean":
        return (False, True)
    raise ValueError(f"column {name!r} has no public vocabulary: give vocabulary[{name!r}]")


def _bounds(name: str, bounds: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    if name not in bounds:
        raise ValueError(f"column {name!r} has no public bounds: give bounds[{name!r}] = (low, high)")
    low, high = (float(end) for end in bounds[name])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds[{name!r}] must be finite numbers low < high, got {bounds[name]!r}")
    return low, high


def _columns(frame: pd.DataFrame, kinds: Mapping[str, str], columns: Sequence[str] | None) -> list[str]:
    names = list(frame.columns) if columns is None else list(columns)
    for name in names:
        if name not in frame.columns or name not in kinds:
            raise ValueError(f"column {name!r} is not in the table or has no kind; known kinds: {list(kinds)}")
    return names


def _same_clients(clients: Sequence, ledger: PrivacyLedger) -> None:
    if len(clients) != len(ledger.clients):
        raise ValueError(f"expected one entry per client of the ledger ({len(ledger.clients)}), got {len(clients)}")


def _check_missing(clients: Sequence[pd.DataFrame], names: Sequence[str], missing: Sequence[str]) -> None:
    for frame in clients:
        for name in names:
            if name not in missing and frame[name].isna().any():
                raise ValueError(
                    f"column {name!r} has missing values: whether it may have them is public knowledge; list it in "
                    "missing=[...]"
                )
