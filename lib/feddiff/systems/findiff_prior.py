"""The start of DP-Fed-FinDiff with prior="given_label" or "tree": private marginals, and the tree that they define.

Every client adds Gaussian noise to its own counts and the server adds them up, in up to three releases that share
`prior_share` of the squared budget:

1. the histogram of every column given the label (m tables: a record is in one cell of each, sensitivity sqrt(m));
2. coarse tables of all pairs of columns (sensitivity sqrt(pairs)), which choose the edges: a maximum spanning tree of
   the dependence that is left given the label (Chow & Liu 1968; Friedman et al. 1997), noise discounted;
3. finer tables of the chosen edges (sensitivity sqrt(edges)).

The tree is fitted without a three-way term: p(a, b, y) ~ psi(a, b) alpha(a, y) beta(b, y), by iterative scaling, so no
table is split by label. All that follows a release is post-processing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from feddiff.privacy.calibration import share_of_budget
from feddiff.privacy.ledger import PrivacyLedger

# Shares of the prior's part of the budget that its three releases take with a tree.
HISTOGRAMS, SELECTION, EDGES = 0.7, 0.1, 0.2
# Rows per cell of a pair's table, in standard deviations of its noise, that groups of levels aim at: to choose, to fit.
CHOICE_OVER_NOISE, FIT_OVER_NOISE = 4.0, 2.0
COARSE, FINE = 8, 40
# Standard deviations of a cell's noise below which a level is not told apart from other rare ones in a pair's table.
LEAST = 4.0
# Edges are kept when their dependence stands so many standard deviations out of the noise.
STANDS_OUT = 2.0
# Deviations below so many standard deviations of their noise count as noise: in tables of pairs, with the label.
SHRINKAGE, LABEL_SHRINKAGE = 2.0, 1.0
SCALINGS = 20
# Bound on the ratio of a pair's potential to what the label alone implies: margins with noise may admit no fit at all.
STRONGEST = 200.0


@dataclass(frozen=True)
class Potentials:
    """unary: log-potentials (classes, sum(levels)); edges (parent, child) from the roots, pairs: their potentials."""

    unary: torch.Tensor
    edges: tuple[tuple[int, int], ...] = ()
    pairs: tuple[torch.Tensor, ...] = ()


class Releases:
    """Sums over clients of tables of counts with Gaussian noise, each release entered in every client's ledger.

    codes: (n, m) int64 and labels (n,) of every client, in the ledger's order. noise(name): a client's source.
    """

    def __init__(self, codes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], ledger: PrivacyLedger, noise):
        self.codes, self.labels, self.ledger, self.noise = codes, labels, ledger, noise

    def counts(
        self, tables: Sequence[tuple[Callable, tuple[int, int]]], ratio: float, what: str
    ) -> tuple[list[torch.Tensor], float]:
        """Return the noisy sums and the standard deviation of a cell's noise.

        tables: (cells, shape) pairs, cells(codes, labels) -> (rows, columns) indices of each record's one cell.
        ratio: noise over the sensitivity of all tables together, sqrt(len(tables)).
        """
        std = ratio * math.sqrt(len(tables))
        totals = [torch.zeros(shape, dtype=torch.float64) for _, shape in tables]
        for name, codes, labels in zip(self.ledger.clients, self.codes, self.labels, strict=True):
            source = self.noise(name)
            for total, (cells, shape) in zip(totals, tables):
                total += exact(codes, labels, cells, shape) + source.fill_(torch.empty(shape, dtype=torch.float64), std)
            self.ledger.spend_gaussian(name, noise_over_sensitivity=ratio, what=what)
        return totals, std * math.sqrt(len(self.codes))


def exact(codes: torch.Tensor, labels: torch.Tensor, cells: Callable, shape: tuple[int, int]) -> torch.Tensor:
    """Return one client's table without noise: every record adds 1 to one cell."""
    first, second = cells(codes, labels)
    return torch.bincount(first * shape[1] + second, minlength=shape[0] * shape[1]).double().view(shape)


def measure(
    releases: Releases,
    levels: tuple[int, ...],
    ordinal: tuple[bool, ...],
    classes: int,
    *,
    tree: bool,
    target_epsilon: float,
    delta: float,
    share: float,
) -> Potentials:
    """Return the potentials of the prior; its releases together take `share` of the squared budget."""

    def ratio(part: float) -> float:
        return share_of_budget(target_epsilon=target_epsilon, delta=delta, share=share * part)

    one_way = [(lambda c, y, j=j: (y, c[:, j]), (classes, k)) for j, k in enumerate(levels)]
    what = f"prior: {len(levels)} histograms given the label"
    noisy, std = releases.counts(one_way, ratio(HISTOGRAMS if tree else 1.0), what)
    tables = [smoothed(table, std, ordinal=o) for table, o in zip(consistent(noisy), ordinal)]
    unary = torch.cat([torch.log(table / table.sum(1, keepdim=True)) for table in tables], dim=1)
    if not tree or len(levels) < 2:
        return Potentials(unary.float())
    rows = float(tables[0].sum())
    edges = _chosen(releases, tables, ordinal, rows, ratio(SELECTION))
    if not edges:
        return Potentials(unary.float())
    return _fitted(releases, tables, ordinal, unary, edges, rows, ratio(EDGES))


def consistent(noisy: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tables (classes, levels) with positive cells and equal class totals.

    Totals are averages over tables, weighted by their noise; each row is the nearest with its total and no negative
    cell (Norm-Sub, Wang et al. 2020), half a row a cell at least.
    """
    weights = torch.tensor([1 / table.shape[1] for table in noisy], dtype=torch.float64)
    sums = torch.stack([table.sum(1) for table in noisy])
    totals = ((weights[:, None] * sums).sum(0) / weights.sum()).clamp(min=1.0)
    fitted = []
    for table in noisy:
        rows = torch.stack([_norm_sub(row, float(total)) for row, total in zip(table, totals)]).clamp(min=0.5)
        fitted.append(rows * (totals / rows.sum(1))[:, None])
    return fitted


def smoothed(table: torch.Tensor, std: float, *, ordinal: bool) -> torch.Tensor:
    """Return the table (classes, levels) whose dependence on the label is shrunk by its share of noise; totals stay.

    Levels of few rows would otherwise tell classes apart by noise alone. What shrinks are the deviations from the
    table without dependence: of each level, or for ordered levels their Haar coefficients (Donoho & Johnstone 1994),
    so that neighbours support each other. std: of the noise in a cell.
    """
    totals = table.sum(1, keepdim=True)
    share = totals / totals.sum()
    expected = share * table.sum(0)
    noise = LABEL_SHRINKAGE * std * ((1 - share) ** 2 + (len(share) - 1) * share**2).sqrt()
    if ordinal:
        basis = _haar(table.shape[1])
        kept = _kept((table - expected) @ basis.T, noise) @ basis
    else:
        kept = _kept(table - expected, noise)
    fitted = torch.maximum(expected + kept, 0.02 * expected)
    return fitted * totals / fitted.sum(1, keepdim=True)


def _kept(deviations: torch.Tensor, noise: torch.Tensor | float) -> torch.Tensor:
    return deviations * (1 - noise**2 / deviations.square().clamp(min=1e-12)).clamp(min=0)


def _haar(levels: int) -> torch.Tensor:
    """Return an orthonormal basis (levels, levels): a constant, then halves of halves against each other."""
    rows = [torch.full((levels,), levels**-0.5, dtype=torch.float64)]
    waiting = [(0, levels)]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2:
            continue
        middle = (start + stop) // 2
        left, right = middle - start, stop - middle
        row = torch.zeros(levels, dtype=torch.float64)
        row[start:middle], row[middle:stop] = (right / left) ** 0.5, -((left / right) ** 0.5)
        rows.append(row / (left + right) ** 0.5)
        waiting += [(start, middle), (middle, stop)]
    return torch.stack(rows)


def _norm_sub(counts: torch.Tensor, total: float) -> torch.Tensor:
    ordered = counts.sort(descending=True).values
    shifts = (ordered.cumsum(0) - total) / torch.arange(1, len(counts) + 1, dtype=counts.dtype)
    kept = int((ordered > shifts).sum())
    return (counts - shifts[max(kept, 1) - 1]).clamp(min=0)


def groups(mass: torch.Tensor, *, ordinal: bool, most: int, least: float = 0.0) -> torch.Tensor:
    """Return the group of every level, 0, 1, ..., at most `most` of them.

    Ordered levels are cut at equal mass; of the others the heaviest stay alone, and the rest and those of less than
    `least` rows share a group.
    """
    if not ordinal:
        most = min(most, int((mass >= least).sum()) + 1)
    if len(mass) <= most:
        return torch.arange(len(mass))
    if ordinal:
        middle = (mass.cumsum(0) - mass / 2) / mass.sum()
        cut = (middle * most).long().clamp(max=most - 1)
        return torch.unique(cut, return_inverse=True)[1]
    group = torch.full((len(mass),), most - 1)
    group[mass.argsort(descending=True)[: most - 1]] = torch.arange(most - 1)
    return group


def _pair_tables(
    pairs: Sequence[tuple[int, int]], grouped: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> list[tuple[Callable, tuple[int, int]]]:
    return [
        (lambda c, y, i=i, j=j, a=a, b=b: (a[c[:, i]], b[c[:, j]]), (int(a.max()) + 1, int(b.max()) + 1))
        for (i, j), (a, b) in zip(pairs, grouped)
    ]


def _within(table: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Return (classes, groups): the sums of a table (classes, levels) over the levels of each group."""
    return torch.zeros(len(table), int(group.max()) + 1, dtype=table.dtype).index_add_(1, group, table)


def _expected(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Return the pair table (a, b) that two tables (classes, a), (classes, b) imply when only the label links them."""
    return one.T @ (two / two.sum(1, keepdim=True))


def _chosen(
    releases: Releases, tables: list[torch.Tensor], ordinal: tuple[bool, ...], rows: float, ratio: float
) -> list[tuple[int, int]]:
    m = len(tables)
    pairs = [(i, j) for i in range(m) for j in range(i + 1, m)]
    std = ratio * math.sqrt(len(pairs) * len(releases.codes))
    most = min(COARSE, max(2, int(math.sqrt(rows / (CHOICE_OVER_NOISE * std)))))
    coarse = [groups(table.sum(0), ordinal=o, most=most, least=LEAST * std) for table, o in zip(tables, ordinal)]
    cells = _pair_tables(pairs, [(coarse[i], coarse[j]) for i, j in pairs])
    noisy, std = releases.counts(cells, ratio, f"prior: {len(pairs)} coarse tables of pairs, to choose edges")
    scored = []
    for (i, j), table in zip(pairs, noisy):
        expected = _expected(_within(tables[i], coarse[i]), _within(tables[j], coarse[j]))
        # Without dependence a cell varies by the privacy noise and by the sampling of rows (a Poisson count).
        variance, weight = std**2 + expected, 1 / (expected + std)
        dependence = float((((table - expected) ** 2 - variance) * weight).sum())
        if dependence > STANDS_OUT * float((2 * (variance * weight) ** 2).sum().sqrt()):
            scored.append((dependence, i, j))
    return spanning(m, scored)


def spanning(columns: int, scored: Sequence[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """Return the maximum spanning forest of (score, i, j) as (parent, child) edges, from the roots (Kruskal 1956)."""
    root = list(range(columns))

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    beside: dict[int, list[int]] = {i: [] for i in range(columns)}
    for _, i, j in sorted(scored, reverse=True):
        if find(i) != find(j):
            root[find(i)] = find(j)
            beside[i].append(j)
            beside[j].append(i)
    edges, seen = [], set()
    for start in range(columns):
        waiting = [] if start in seen else [start]
        seen.add(start)
        while waiting:
            parent = waiting.pop()
            for child in beside[parent]:
                if child not in seen:
                    seen.add(child)
                    edges.append((parent, child))
                    waiting.append(child)
    return edges


def _fitted(
    releases: Releases,
    tables: list[torch.Tensor],
    ordinal: tuple[bool, ...],
    unary: torch.Tensor,
    edges: list[tuple[int, int]],
    rows: float,
    ratio: float,
) -> Potentials:
    std = ratio * math.sqrt(len(edges) * len(releases.codes))
    budget = rows / (FIT_OVER_NOISE * std)  # cells that a table can have
    grouped = []
    for edge in edges:
        small, large = sorted(edge, key=lambda j: tables[j].shape[1])
        first = min(FINE, tables[small].shape[1], max(2, int(math.sqrt(budget))))
        most = {small: first, large: min(FINE, max(2, int(budget / first)))}
        least = LEAST * std
        grouped.append(tuple(groups(tables[j].sum(0), ordinal=ordinal[j], most=most[j], least=least) for j in edge))
    noisy, std = releases.counts(_pair_tables(edges, grouped), ratio, f"prior: {len(edges)} tables of pairs on a tree")
    offsets = [0]
    for table in tables:
        offsets.append(offsets[-1] + table.shape[1])
    unary, pairs = unary.clone(), []
    for (i, j), (a, b), table in zip(edges, grouped, noisy):
        one, two = _within(tables[i], a), _within(tables[j], b)
        psi, alpha, beta = without_third(shrunk(table, _expected(one, two), std), one, two)
        for column, group, factor, margin in ((i, a, alpha, one), (j, b, beta, two)):
            unary[:, offsets[column] : offsets[column + 1]] += torch.log(factor / margin)[:, group]
        pairs.append(psi[a][:, b].float())
    return Potentials(unary.float(), tuple(edges), tuple(pairs))


def shrunk(noisy: torch.Tensor, expected: torch.Tensor, std: float) -> torch.Tensor:
    """Return the table whose deviations from `expected` are shrunk by the share that noise has in each, all > 0."""
    return torch.maximum(expected + _kept(noisy - expected, SHRINKAGE * std), 0.02 * expected).clamp(min=1e-3)


def without_third(
    pair: torch.Tensor, one: torch.Tensor, two: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return psi (a, b), alpha (y, a), beta (y, b) whose product has the margins (a, b), (y, a) and (y, b).

    Iterative proportional fitting (Deming & Stephan 1940). Noise makes the margins disagree and fitting diverge: `pair`
    is first fitted to the other two. pair: (a, b); one: (y, a); two: (y, b), all positive.
    """
    for _ in range(SCALINGS):
        pair = pair * (one.sum(0) / pair.sum(1))[:, None]
        pair = pair * (two.sum(0) / pair.sum(0))
    # From the margins, psi is a ratio to what the label alone implies: near 1, whatever the levels weigh.
    alpha, beta = one, two / two.sum(1, keepdim=True)
    for _ in range(SCALINGS):
        psi = (pair / (alpha.T @ beta)).clamp(1 / STRONGEST, STRONGEST)
        alpha = one / (beta @ psi.T)
        beta = two / (alpha @ psi)
    return psi, alpha, beta
