"""How rows or columns fall to clients: each function returns one part per client, disjoint and together complete."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

ORDERS = ("contiguous", "random")


def _check(clients: int, available: int, what: str) -> None:
    if isinstance(clients, bool) or not isinstance(clients, (int, np.integer)) or clients < 1:
        raise ValueError(f"the number of clients must be an integer >= 1, got {clients!r}")
    if clients > available:
        raise ValueError(f"client {available} would get nothing: {available} {what} for {clients} clients")


def _finish(parts: list[np.ndarray], advice: str) -> list[np.ndarray]:
    for client, part in enumerate(parts):
        if not len(part):
            raise ValueError(f"client {client} has no rows; {advice}")
    return [np.sort(part).astype(np.int64) for part in parts]


def _positive(alpha: float) -> None:
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a positive number, got {alpha!r}")


def iid(rows: int, clients: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Deal `rows` row numbers at random into equal parts (sizes differ by at most one)."""
    _check(clients, rows, "rows")
    return _finish(np.array_split(generator.permutation(rows), clients), "use fewer clients")


def by_category(series: pd.Series, clients: int) -> list[np.ndarray]:
    """Give every row of a value of `series` to one client: the largest value first, each to the smallest client.

    With as many clients as values this is one value per client, the paper's non-IID split. A missing value counts
    as a value of its own.
    """
    codes, values = pd.factorize(series, sort=True, use_na_sentinel=False)
    _check(clients, len(values), f"values of {series.name!r}")
    sizes = np.bincount(codes, minlength=len(values))
    owner, load = np.empty(len(values), dtype=np.int64), np.zeros(clients, dtype=np.int64)
    for value in np.argsort(-sizes, kind="stable"):
        owner[value] = np.argmin(load)
        load[owner[value]] += sizes[value]
    return _finish([np.flatnonzero(owner[codes] == client) for client in range(clients)], "use fewer clients")


def dirichlet(
    labels: pd.Series | np.ndarray, clients: int, alpha: float, generator: np.random.Generator, *, redraws: int = 0
) -> list[np.ndarray]:
    """Deal each class to the clients in proportions drawn from Dirichlet(alpha): small alpha, skewed labels.

    A draw that leaves a client without rows is a ValueError that names it, after `redraws` further draws (which
    condition the partition on non-empty clients).
    """
    _positive(alpha)
    codes, _ = pd.factorize(labels, sort=True, use_na_sentinel=False)
    _check(clients, len(codes), "rows")
    for _ in range(redraws + 1):
        parts = [[] for _ in range(clients)]
        for code in range(codes.max() + 1):
            rows = generator.permutation(np.flatnonzero(codes == code))
            cuts = np.cumsum(shares(len(rows), generator.dirichlet(np.full(clients, alpha))))[:-1]
            for part, piece in zip(parts, np.split(rows, cuts)):
                part.append(piece)
        joined = [np.concatenate(part) for part in parts]
        if all(len(part) for part in joined):
            break
    return _finish(joined, f"Dirichlet({alpha}) over {clients} clients: larger alpha, fewer clients, another seed "
                           "or redraws > 0")


def quantity_skew(rows: int, clients: int, alpha: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Deal `rows` row numbers at random into parts whose sizes are drawn from Dirichlet(alpha)."""
    _positive(alpha)
    _check(clients, rows, "rows")
    sizes = shares(rows, generator.dirichlet(np.full(clients, alpha)))
    parts = np.split(generator.permutation(rows), np.cumsum(sizes)[:-1])
    return _finish(parts, f"Dirichlet({alpha}) sizes over {clients} clients: larger alpha, fewer clients, another seed")


def columns(
    names: Sequence[str], silos: int, order: str = "contiguous", generator: np.random.Generator | None = None
) -> list[list[str]]:
    """Cut columns into blocks of floor(d / silos), the last takes the rest; order="random" permutes them first."""
    names = list(names)
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    if len(set(names)) < len(names):
        raise ValueError("columns must have distinct names")
    _check(silos, len(names), "columns")
    if order == "random":
        if generator is None:
            raise ValueError("order='random' needs a numpy generator")
        names = [names[position] for position in generator.permutation(len(names))]
    size = len(names) // silos
    return [names[silo * size : (silo + 1) * size if silo < silos - 1 else None] for silo in range(silos)]


def shares(total: int, proportions: np.ndarray) -> np.ndarray:
    """Return whole numbers that sum to `total`, as near `proportions` as largest remainders allow."""
    exact = total * np.asarray(proportions, dtype=np.float64) / np.sum(proportions)
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole
