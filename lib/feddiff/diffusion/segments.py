"""Softmax over each of many blocks of one logit vector, by two matrix products instead of a loop over the blocks.

A table has one block of logits per categorical column. Blockwise sums of exp(logits - row maximum) are one product
with an indicator matrix; a loop over columns costs five to ten times as much at the sizes of these networks.
"""

import torch

# exp underflows in float32 below about -87: a block this far under the row's maximum is summed on its own.
SMALLEST = 1e-30


class Segments:
    """Blocks of `levels[j]` logits side by side, sum(levels) in all."""

    def __init__(self, levels: tuple[int, ...]):
        self.levels = tuple(levels)
        self.offsets = torch.tensor([0, *levels]).cumsum(0)[:-1]
        self.indicator = torch.block_diag(*[torch.ones(k, 1) for k in levels]) if levels else torch.zeros(0, 0)

    def logsumexp(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-sum-exp of each block, (n, blocks) for logits (n, sum(levels))."""
        top = logits.detach().amax(dim=1, keepdim=True)
        sums = (logits - top).exp() @ self.indicator.to(logits.dtype)
        if float(sums.detach().min()) > SMALLEST:
            return sums.log() + top
        return torch.stack([block.logsumexp(dim=1) for block in logits.split(self.levels, dim=1)], dim=1)

    def cross_entropy(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each block, (n, blocks), for codes (n, blocks) int64."""
        return self.logsumexp(logits) - logits.gather(1, codes + self.offsets)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax within each block, (n, sum(levels))."""
        spread = self.logsumexp(logits) @ self.indicator.T.to(logits.dtype)
        return (logits - spread).exp()
