"""The space in which a table is diffused: two coordinates for each categorical column, one for each numeric one."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from feddiff.diffusion.segments import Segments

TOKEN_DIM = 2
NEAREST_CHUNK = 2048


@dataclass(frozen=True)
class TableSpace:
    """Frozen token embeddings of the categorical columns beside the numerics.

    levels: number of tokens of each categorical column; numbers: how many numeric columns;
    tokens: (sum(levels), TOKEN_DIM) embeddings, one block of rows per column.
    A point is [embedding of column 1, ..., embedding of column m, numerics], `dim` coordinates.
    """

    levels: tuple[int, ...]
    numbers: int
    tokens: torch.Tensor

    @property
    def dim(self) -> int:
        """Coordinates of a point."""
        return TOKEN_DIM * len(self.levels) + self.numbers

    @cached_property
    def segments(self) -> Segments:
        """The logits of the categorical columns side by side."""
        return Segments(self.levels)

    @cached_property
    def blocks(self) -> torch.Tensor:
        """The tokens as a block-diagonal matrix (sum(levels), m * TOKEN_DIM): probabilities times it embed them."""
        return torch.block_diag(*self.tokens.split(self.levels)) if self.levels else torch.zeros(0, 0)

    def embed(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the points (n, dim) of token codes (n, m) int64 and numerics (n, numbers)."""
        rows = codes + self.segments.offsets
        return torch.cat([self.tokens[rows].flatten(1), numbers], dim=1)

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedded part (n, m, TOKEN_DIM) and the numerics (n, numbers) of points."""
        cut = TOKEN_DIM * len(self.levels)
        return x[:, :cut].reshape(len(x), len(self.levels), TOKEN_DIM), x[:, cut:]

    def nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes (n, m) of the nearest token of each column (Euclidean, within the column) and the numerics."""
        embedded, numbers = self.split(x)
        codes = torch.empty(len(x), len(self.levels), dtype=torch.int64)
        for j, block in enumerate(self.tokens.split(self.levels)):
            # float64: neighbours among thousands of tokens on a circle differ by less than float32 resolves.
            tokens = block.double()
            for rows in torch.arange(len(x)).split(NEAREST_CHUNK):
                squared = (tokens**2).sum(1) - 2 * embedded[rows, j].double() @ tokens.T
                codes[rows, j] = squared.argmin(dim=1)
        return codes, numbers

    def expected(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax-weighted embedding (n, m * TOKEN_DIM) of per-column logits (n, sum(levels))."""
        return self.segments.probabilities(logits) @ self.blocks

    def draw(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return codes (n, m) drawn from the softmax of per-column logits."""
        drawn = [
            torch.multinomial(block.softmax(dim=1), 1, generator=generator)
            for block in logits.split(self.levels, dim=1)
        ]
        return torch.cat(drawn, dim=1) if drawn else torch.empty(len(logits), 0, dtype=torch.int64)

    def draw_at_once(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return codes (n, m) of the same law as `draw`, by one cumulative sum: for samplers that draw at every step.

        The columns' probabilities follow each other, so column j lies between j and j + 1 of the sum.
        """
        levels = torch.tensor(self.levels)
        upper = self.segments.probabilities(logits).double().cumsum(1)
        uniform = torch.rand(len(logits), len(levels), generator=generator, dtype=torch.float64)
        found = torch.searchsorted(upper, uniform + torch.arange(len(levels)), right=True) - self.segments.offsets
        return found.clamp(min=0).minimum(levels - 1)


def table_space(
    levels: tuple[int, ...],
    numbers: int,
    *,
    embedding: str,
    generator: torch.Generator,
    ordinal: tuple[bool, ...] | None = None,
) -> TableSpace:
    """Return the space of a table with frozen token embeddings.

    embedding: "normal" (independent N(0, 1) coordinates, as the authors' nn.Embedding) or "circle" (each column's
    tokens evenly spread on a circle of radius sqrt(2), so that a uniform column has unit variance per coordinate and
    no two tokens of a column lie closer than they must). ordinal: columns whose tokens are ordered; on the circle they
    take one half of it, so that the ends of their scale do not meet.
    """
    if len(levels) + numbers == 0:
        raise ValueError("a table needs at least one column beside the label, got none")
    if embedding == "normal":
        tokens = torch.randn(sum(levels), TOKEN_DIM, generator=generator)
    elif embedding == "circle":
        ordered = ordinal or (False,) * len(levels)
        steps = [math.pi / max(k - 1, 1) if rising else 2 * math.pi / k for k, rising in zip(levels, ordered)]
        angles = torch.cat([torch.arange(k) * step for k, step in zip(levels, steps)]) if levels else torch.zeros(0)
        tokens = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1)
    else:
        raise ValueError(f"embedding must be 'normal' or 'circle', got {embedding!r}")
    return TableSpace(levels=tuple(levels), numbers=numbers, tokens=tokens)
