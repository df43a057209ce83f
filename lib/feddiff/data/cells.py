"""A codec whose numbers are codes too: every numeric column is cut into ordered cells of its distribution function.

A model over codes alone can start from histograms of every column. Cells follow the knots of the codec they are built
on, so they are as private, or as little, as that codec.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.columns import Z_LIMIT, NumericColumn


def cell_edges(column: NumericColumn, cells: int) -> np.ndarray:
    """Return rising probabilities from 0 to 1 that bound the cells of a column; no tied value is cut in two.

    A value that weighs at least 1 / cells has a cell of its own. The mass R beside such values is cut into about
    cells * sqrt(R) equal parts: a column that is 90 % zeros keeps a third of the cells for the rest.
    """
    lower, upper = np.asarray(column.lower), np.asarray(column.upper)
    tied = upper > lower
    heavy = tied & (upper - lower >= 1 / cells)
    # Mass beside the heavy values up to every one of their ends, and the way back to probabilities.
    ends = np.concatenate([[0.0], np.column_stack([lower[heavy], upper[heavy]]).ravel(), [1.0]])
    beside = np.concatenate([[0.0], np.cumsum(np.where(np.arange(len(ends) - 1) % 2 == 0, np.diff(ends), 0.0))])
    rest = beside[-1]
    grid = np.linspace(0, rest, max(1, math.ceil(cells * math.sqrt(rest))) + 1)[1:-1]
    at = np.searchsorted(beside, grid, side="right")
    grid = ends[at - 1] + grid - beside[at - 1]
    for low, high in zip(lower[tied & ~heavy], upper[tied & ~heavy]):
        inside = (grid > low) & (grid < high)
        grid[inside] = np.where(grid[inside] - low < high - grid[inside], low, high)
    edges = np.unique(np.clip(np.concatenate([ends, grid]), 0, 1))
    return edges[np.append(True, np.diff(edges) > 1e-9)]


@dataclass(frozen=True)
class CellCodec:
    """`base` with its numbers as ordered codes after the codes of the categories; it encodes no numbers.

    base: a codec with numerics="quantile-ties". cells: cells of a numeric column, ties aside.
    """

    base: TableCodec
    cells: int

    def __post_init__(self) -> None:
        if self.cells < 2:
            raise ValueError(f"cells must be >= 2, got {self.cells!r}")
        for column in self.base.columns:
            if isinstance(column, NumericColumn) and column.numerics != "quantile-ties":
                raise ValueError(f"column {column.name!r}: cells need quantile-ties, got numerics={column.numerics!r}")

    @cached_property
    def edges(self) -> tuple[np.ndarray, ...]:
        """The edges of every numeric column's cells, as probabilities."""
        return tuple(cell_edges(c, self.cells) for c in self.base.columns if isinstance(c, NumericColumn))

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of codes of each code column."""
        return (*self.base.levels, *(len(edges) - 1 for edges in self.edges))

    @property
    def ordinal(self) -> tuple[bool, ...]:
        """Whether the codes of each code column are ordered."""
        return (False,) * len(self.base.levels) + (True,) * len(self.edges)

    @property
    def code_columns(self) -> tuple[str, ...]:
        """Names of the columns of `Encoded.codes`."""
        return (*self.base.code_columns, *self.base.number_columns)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """No columns: numbers are codes."""
        return ()

    def encode(self, frame: pd.DataFrame, generator: np.random.Generator | None = None) -> Encoded:
        """Return the rows of `frame` as codes int64 (n, columns) and no numbers (n, 0)."""
        encoded = self.base.encode(frame, generator)
        cells = [
            np.clip(np.searchsorted(edges, ndtr(z.astype(float)), side="right") - 1, 0, len(edges) - 2)
            for edges, z in zip(self.edges, encoded.numbers.T)
        ]
        codes = np.column_stack([encoded.codes, *cells]).astype(np.int64)
        return Encoded(codes, np.empty((len(frame), 0), dtype=np.float32))

    def decode(self, encoded: Encoded, generator: np.random.Generator) -> pd.DataFrame:
        """Return the table of `encoded`; `generator` draws where in its cell every number lies."""
        cut = len(self.base.levels)
        numbers = []
        for edges, cells in zip(self.edges, encoded.codes[:, cut:].T):
            uniform = edges[cells] + (edges[cells + 1] - edges[cells]) * generator.random(len(cells))
            numbers.append(np.clip(ndtri(uniform), -Z_LIMIT, Z_LIMIT))
        stacked = np.column_stack(numbers) if numbers else np.empty((len(encoded), 0))
        return self.base.decode(Encoded(encoded.codes[:, :cut], stacked.astype(np.float32)))
