"""PrivBayes: a Bayesian network of the columns, chosen and measured under DP (Zhang et al. 2017, ACM TODS 42(4)).

    order = [label]                                     theirs: an attribute at random; ours costs nothing either
    repeat: (X, parents) by the exponential mechanism, score R(X, parents)              algorithm 4, section 5
    for every X: counts of (parents, X) + noise -> Pr[X | parents]                      algorithm 1
    rows: X by X in that order

The score is theirs on counts: n R = 1/2 sum |c(x, p) - c(x) c(p) / n|. Adding a row changes it by at most
2 n / (n + 1) < 2, which all rows equal and one row new attains, so the sensitivity is 2 under add-remove (theirs is
3 + 2 / n under replacement). A table of counts has sensitivity 1. Parents are chosen among the maximal sets, at most
two, whose table with X keeps the mean count at least theta times the mean size of its noise; numbers may enter
coarsened, bins halved (their taxonomy trees; categories have no public one). The number of rows is public, as in the
sample rates of every method here.

Noise "laplace" is theirs: epsilon-DP with delta = 0, basic composition. "gaussian" is ours, for a budget (epsilon,
delta) like everyone else's: selections and tables are composed by the ledger. The trust model of both: a CURATOR sees
the pooled rows of all clients. The codec (quantiles, vocabulary) is the one of every method here, outside epsilon.

Why not the PyPI package DataSynthesizer (0.1.13): it does not sample under numpy 2 (it evaluates the text of numpy
integers), and its epsilon does not hold. Its correlated mode spends epsilon on one-way histograms, then half on the
network and half on the tables, 2 epsilon in all; selections whose exponent overflows are drawn uniformly among the
overflown; missing rates, the vocabulary and the ranges of the rows leave it as they are. It draws from the global
generators.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.columns import NUMERICS, Z_LIMIT
from feddiff.privacy.accounting import gaussian_noise
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.seeds import numpy_generator
from feddiff.systems.table_rivals import check_config, check_rows, settings_of, whole_table

NOISES = ("laplace", "gaussian")
CURATOR = "curator"
SCORE_SENSITIVITY = 2.0
# Of the logarithm of the noise: the root finder stops here, on the safe side.
TOLERANCE = 1e-3

# An attribute and its number of cells as a parent, coarsened or not.
Parent = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PrivBayesConfig:
    """Everything that determines a release.

    epsilon, delta (only "gaussian" spends delta); noise: one of NOISES; share: of the budget for the network (theirs:
    .3; of epsilon, or of squared mu); theta: usefulness (theirs: 4); bins of a number, a power of 2 (theirs: 16).
    """

    epsilon: float
    delta: float = 1e-5
    noise: str = "laplace"
    share: float = 0.3
    theta: float = 4.0
    bins: int = 16
    numerics: str = "quantile-ties"
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(self, whole=("bins",), positive=("epsilon", "theta"), noise=NOISES, numerics=NUMERICS)
        if self.bins < 2 or self.bins & (self.bins - 1):
            raise ValueError(f"bins must be a power of 2, at least 2, got {self.bins}")
        if not (0 < self.delta < 1 and 0 < self.share < 1):
            raise ValueError(f"delta and share must lie in (0, 1), got {self.delta!r} and {self.share!r}")


@dataclass(frozen=True)
class Budget:
    """What one selection spends (pure epsilon) and the noise in a cell: Laplace scale or Gaussian std; the ledger."""

    selection: float
    noise: float
    ledger: PrivacyLedger


@dataclass(frozen=True, eq=False)
class PrivBayes:
    """A released network: `order` of attributes, `parents` of each, `laws` Pr[X | parents] (parent cells, cells)."""

    config: PrivBayesConfig
    codec: TableCodec
    order: tuple[int, ...]
    parents: Mapping[int, tuple[Parent, ...]]
    laws: Mapping[int, np.ndarray]
    privacy: dict[str, Any]
    settings: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Attributes: the codec's code columns, then its number columns."""
        return self.codec.code_columns + self.codec.number_columns

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows with the columns, order and dtypes of the training table."""
        rows, generator = check_rows(rows), numpy_generator(seed, "sampling", "privbayes", self.config.noise)
        sizes = [*self.codec.levels, *[self.config.bins] * len(self.codec.number_columns)]
        cells = np.zeros((rows, len(sizes)), dtype=np.int64)
        for child in self.order:
            place, uniform = parent_cells(cells, sizes, self.parents[child]), generator.random(rows)
            for group in np.unique(place):
                upper, here = np.cumsum(self.laws[child][group]), place == group
                drawn = np.searchsorted(upper, uniform[here] * upper[-1], side="right")
                cells[here, child] = np.minimum(drawn, sizes[child] - 1)
        cut = len(self.codec.levels)
        within = generator.random((rows, len(sizes) - cut))
        numbers = ndtri((cells[:, cut:] + within) / self.config.bins).clip(-Z_LIMIT, Z_LIMIT)
        return self.codec.decode(Encoded(cells[:, :cut], numbers.astype(np.float32)))


def privbayes(
    frame: pd.DataFrame, config: PrivBayesConfig, *, kinds: Mapping[str, str], first: str | None = None
) -> PrivBayes:
    """Return the network of the pooled rows `frame`; see the module for mechanism and trust model.

    kinds: of all columns; first: the root, a public choice (a column; None: the first column of the codec).
    """
    begun = time.perf_counter()
    table = whole_table(frame, kinds, numerics=config.numerics, seed=config.seed)
    bins = np.minimum((ndtr(table.numbers.double().numpy()) * config.bins).astype(np.int64), config.bins - 1)
    cells = np.column_stack([table.codes.numpy(), bins])
    sizes = [*table.levels, *[config.bins] * bins.shape[1]]
    names = table.codec.code_columns + table.codec.number_columns
    if first is not None and first not in names:
        raise ValueError(f"first must be a column of the table, got {first!r}; it has {', '.join(names)}")
    budget = budget_of(config, len(sizes))
    mean_noise = budget.noise if config.noise == "laplace" else budget.noise * math.sqrt(2 / math.pi)
    network = _Network(cells, sizes, len(table.levels), limit=len(cells) / (config.theta * mean_noise))
    root = 0 if first is None else names.index(first)
    order, parents = network.grow(root, budget.selection, numpy_generator(config.seed, "privbayes", "network"))
    draw = numpy_generator(config.seed, "privbayes", "tables")
    laws = {child: _law(network.counts(child, parents[child]), budget.noise, config.noise, draw) for child in order}
    budget.ledger.declare_outside(f"codec ({config.numerics}): quantiles and vocabulary of the pooled training rows")
    settings = settings_of(
        config, edges=sum(len(own) for own in parents.values()), parameters=sum(law.size for law in laws.values()),
        noise=budget.noise, seconds=time.perf_counter() - begun,
    )
    return PrivBayes(config, table.codec, tuple(order), parents, laws, budget.ledger.statement(), settings)


def budget_of(config: PrivBayesConfig, attributes: int) -> Budget:
    """Return how the budget is spent on attributes - 1 selections and as many tables as attributes.

    laplace: selections share * epsilon together, tables the rest, each table Laplace of scale tables / rest.
    gaussian: a selection of epsilon_s counts as squared mu epsilon_s^2 (a pure epsilon is epsilon^2 / 2-zCDP), all of
    them share * mu^2; the tables are one Gaussian release of sensitivity sqrt(tables), its noise the smallest with
    which the ledger, which composes everything exactly, stays within (epsilon, delta).
    """
    ledger = PrivacyLedger(clients=[CURATOR], delta=config.delta)
    chosen, what = attributes - 1, f"Bayesian network: {attributes - 1} exponential mechanisms"
    if config.noise == "laplace":
        rest = config.epsilon * (1 - config.share) if chosen else config.epsilon
        if chosen:
            ledger.spend_pure(CURATOR, epsilon=config.epsilon * config.share, what=what)
        ledger.spend_pure(CURATOR, epsilon=rest, what=f"{attributes} tables of counts, Laplace noise")
        return Budget(config.epsilon * config.share / max(chosen, 1), attributes / rest, ledger)
    ratio = gaussian_noise(target_epsilon=config.epsilon, delta=config.delta)
    selection = math.sqrt(config.share / max(chosen, 1)) / ratio
    for _ in range(chosen):
        ledger.spend_pure(CURATOR, epsilon=selection, what=what)
    release = f"{attributes} tables of counts together, L2 sensitivity sqrt({attributes})"

    def excess(log_noise: float) -> float:
        trial = PrivacyLedger.from_json(ledger.to_json())
        trial.spend_gaussian(CURATOR, noise_over_sensitivity=math.exp(log_noise), what=release)
        return math.log(trial.epsilon() / config.epsilon)

    low = math.log(ratio) - TOLERANCE
    high = low - math.log(1 - config.share)
    while excess(high) > 0:
        high += 0.5
    found = math.exp(brentq(excess, low, high, xtol=TOLERANCE) + TOLERANCE)
    ledger.spend_gaussian(CURATOR, noise_over_sensitivity=found, what=release)
    return Budget(selection, found * math.sqrt(attributes), ledger)


def score(counts: np.ndarray) -> float:
    """Return n R of a table of counts (parent cells, cells): 1/2 sum |c(x, p) - c(x) c(p) / n|, in [0, n)."""
    rows = counts.sum()
    if rows == 0:
        return 0.0
    return 0.5 * float(np.abs(counts - counts.sum(1, keepdims=True) * (counts.sum(0, keepdims=True) / rows)).sum())


def choose(scores: np.ndarray, epsilon: float, generator: np.random.Generator) -> int:
    """Return a place with probability proportional to exp(epsilon score / (2 sensitivity)): exponential mechanism.

    McSherry & Talwar 2007; drawn as the largest of scores plus Gumbel noise, which cannot overflow.
    """
    return int(np.argmax(epsilon * scores / (2 * SCORE_SENSITIVITY) + generator.gumbel(size=len(scores))))


def parent_cells(cells: np.ndarray, sizes: list[int], parents: tuple[Parent, ...]) -> np.ndarray:
    """Return for each row of `cells` the number of its parents' cell, int64 (n,); parents may be coarsened."""
    place = np.zeros(len(cells), dtype=np.int64)
    for attribute, size in parents:
        place = place * size + cells[:, attribute] // (sizes[attribute] // size)
    return place


def maximal_parents(options: Mapping[int, tuple[int, ...]], cap: float) -> list[tuple[Parent, ...]]:
    """Return the sets of at most two parents with at most `cap` cells of which none can be refined or enlarged.

    options: attribute -> its possible numbers of cells, largest first. [()] where nothing fits.
    """
    pairs = []
    for a, b in combinations(options, 2):
        last = 0
        for size in options[a]:
            other = next((s for s in options[b] if s * size <= cap), 0)
            if other > last:
                pairs.append(((a, size), (b, other)))
                last = other
    single = {a: next((size for size in sizes if size <= cap), 0) for a, sizes in options.items()}
    covered = {}
    for pair in pairs:
        for a, size in pair:
            covered[a] = max(size, covered.get(a, 0))
    alone = [((a, size),) for a, size in single.items() if size > covered.get(a, 0)]
    return pairs + alone or [()]


@dataclass(eq=False)
class _Network:
    """The table as cells (n, d) and what a set of parents is worth; attributes from `numbers` on can be coarsened."""

    cells: np.ndarray
    sizes: list[int]
    numbers: int
    limit: float
    known: dict[tuple, float] = field(default_factory=dict)

    def counts(self, child: int, parents: tuple[Parent, ...]) -> np.ndarray:
        """Return the exact counts (parent cells, cells of the child), float64."""
        groups, size = math.prod(s for _, s in parents), self.sizes[child]
        place = parent_cells(self.cells, self.sizes, parents) * size + self.cells[:, child]
        return np.bincount(place, minlength=groups * size).reshape(groups, size).astype(float)

    def worth(self, child: int, parents: tuple[Parent, ...]) -> float:
        """Return the score, computed once."""
        if (child, parents) not in self.known:
            self.known[child, parents] = score(self.counts(child, parents)) if parents else 0.0
        return self.known[child, parents]

    def grow(
        self, root: int, epsilon: float, generator: np.random.Generator
    ) -> tuple[list[int], dict[int, tuple[Parent, ...]]]:
        """Return the order of the attributes and the parents of each; every addition is one selection."""
        order, parents = [root], {root: ()}
        while len(order) < len(self.sizes):
            options = {a: self._coarsenings(a) for a in order}
            candidates = [
                (child, own)
                for child in range(len(self.sizes)) if child not in parents
                for own in maximal_parents(options, self.limit / self.sizes[child])
            ]
            place = choose(np.array([self.worth(*candidate) for candidate in candidates]), epsilon, generator)
            child, own = candidates[place]
            order.append(child)
            parents[child] = own
        return order, parents

    def _coarsenings(self, attribute: int) -> tuple[int, ...]:
        size = self.sizes[attribute]
        if attribute < self.numbers:
            return (size,)
        return tuple(size >> k for k in range(size.bit_length() - 1))


def _law(counts: np.ndarray, noise: float, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Return Pr[X | parents] of noised counts: negative cells are 0; a row without counts takes X's own law."""
    law = generator.laplace if kind == "laplace" else generator.normal
    noisy = np.maximum(counts + law(0.0, noise, counts.shape), 0.0)
    own = noisy.sum(axis=0) if noisy.sum() > 0 else np.ones(noisy.shape[1])
    noisy = np.where(noisy.sum(axis=1, keepdims=True) > 0, noisy, own)
    return noisy / noisy.sum(axis=1, keepdims=True)
