"""The exact denoiser of a tree of categorical columns given the label: where a network can start instead of at zero.

The prior is p(c | y) ~ prod_j phi_j(c_j, y) prod_(i,j) psi_ij(c_i, c_j) over the edges of a forest; without edges it is
naive Bayes. Given x_t = signal * token(c) + noise * eps, the posterior of each column follows from the Gaussian
likelihood of its own coordinates and belief propagation along the edges (Pearl 1988). Both steps are public
functions of x_t and of the released potentials.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.table_space import TableSpace

# Messages are divided by one another: this range keeps them clear of float32's underflow.
RANGE = 1e5
SMALLEST = 1e-30
# Denormal numbers make the products ten times slower.
LOWEST = -60.0


@dataclass(frozen=True, eq=False)
class TreePrior:
    """Log-potentials of the columns given the label and of a forest of edges.

    unary: (classes, sum(levels)). edges: (parent, child) column indices, every column the child of at most one edge,
    a column's own edge before those to its children. pairs: positive (levels of parent, levels of child), one an edge.
    """

    space: TableSpace
    schedule: Schedule
    unary: torch.Tensor
    edges: tuple[tuple[int, int], ...] = ()
    pairs: tuple[torch.Tensor, ...] = ()

    def __post_init__(self) -> None:
        levels = self.space.levels
        if self.space.numbers or self.unary.shape[1] != sum(levels):
            raise ValueError(f"the tree needs one potential for each of {sum(levels)} tokens and no numeric columns")
        children = [child for _, child in self.edges]
        for at, (parent, child) in enumerate(self.edges):
            if children.count(child) > 1 or parent in children[at:]:
                raise ValueError(f"edge {(parent, child)} does not continue a forest: order edges from the roots")
            if self.pairs[at].shape != (levels[parent], levels[child]):
                raise ValueError(f"edge {(parent, child)} needs potentials of shape {(levels[parent], levels[child])}")

    @cached_property
    def _pairs(self) -> list[torch.Tensor]:
        return [(pair / pair.max()).clamp(min=1 / RANGE).float() for pair in self.pairs]

    @cached_property
    def _norms(self) -> torch.Tensor:
        return (self.space.tokens**2).sum(1)

    @torch.no_grad()
    def logits(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return log p(c_j | x_t, y) for every token, (n, sum(levels)), for x (n, dim), t (n,) or (1,), label (n,)."""
        signal, noise = self.schedule.signal(t, x), self.schedule.noise(t, x)
        likelihood = signal * (x @ self.space.blocks.T) - 0.5 * signal**2 * self._norms
        local = (self.unary[label] + likelihood / noise**2).split(self.space.levels, dim=1)
        belief = [(part - part.amax(1, keepdim=True)).clamp(min=LOWEST).exp() for part in local]
        # Rescaled after every product: a message is at least 1 / RANGE, but one column can take many.
        upward = []
        for (parent, child), pair in zip(reversed(self.edges), reversed(self._pairs)):
            upward.append(_scaled(belief[child] @ pair.T))
            belief[parent] = _scaled(belief[parent] * upward[-1])
        for (parent, child), pair, message in zip(self.edges, self._pairs, reversed(upward)):
            belief[child] = _scaled(belief[child] * _scaled((belief[parent] / message) @ pair))
        parts = [part / part.sum(1, keepdim=True) for part in belief]
        return torch.cat(parts, dim=1).clamp(min=SMALLEST).log()


def _scaled(part: torch.Tensor) -> torch.Tensor:
    return part / part.amax(1, keepdim=True)
