"""What the network predicts about a table row, the loss per record, and the way back to x_0.

Two heads. "embedding" regresses all coordinates of the space, tokens included (FinDiff, FedTabDiff); a category is
decoded to the nearest token. "logits" classifies each categorical column by cross-entropy and regresses the numerics
only; x_0 of a category is its softmax-weighted token, and the last step draws from the softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from feddiff.diffusion.process import q_sample, velocity, x0_from_epsilon, x0_from_velocity
from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.table_space import TableSpace
from feddiff.diffusion.table_tree import TreePrior

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HEADS = ("embedding", "logits")
PREDICTIONS = ("epsilon", "v")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True, kw_only=True)
class TableHead:
    """Head over `space` under `schedule`.

    head: one of HEADS; prediction: what is regressed, one of PREDICTIONS; reduction: how a record's columns are
    reduced ("sum" is DP-FinDiff's feature aggregation, which changes the effective clipping norm).
    bias: optional (classes, sum(levels)) log-probabilities added to the logits: a prior that the network corrects.
    tree: optional exact denoiser of a released model, whose log-posteriors are added to the logits instead.
    """

    space: TableSpace
    schedule: Schedule
    head: str = "logits"
    prediction: str = "v"
    reduction: str = "mean"
    bias: torch.Tensor | None = None
    tree: TreePrior | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("head", self.head, HEADS),
            ("prediction", self.prediction, PREDICTIONS),
            ("reduction", self.reduction, REDUCTIONS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        if self.tree is not None and (self.bias is not None or self.head != "logits"):
            raise ValueError("a tree needs head='logits' and takes the place of a bias")
        if self.bias is not None and self.head != "logits":
            raise ValueError("a bias needs head='logits': the embedding head has no logits to add it to")

    @property
    def tokens(self) -> int:
        """Number of logits."""
        return sum(self.space.levels)

    @property
    def d_out(self) -> int:
        """Outputs that the network must have."""
        return self.space.dim if self.head == "embedding" else self.tokens + self.space.numbers

    def _logits(self, out: torch.Tensor, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = out[:, : self.tokens]
        if self.tree is not None:
            return logits + self.tree.logits(x, t, label)
        return logits if self.bias is None else logits + self.bias[label]

    def loss(
        self,
        network: Network,
        x0: torch.Tensor,
        codes: torch.Tensor,
        label: torch.Tensor,
        t: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of each record, shape (n,).

        x0 (n, dim), codes (n, m), label (n,); t (n, K) and noise (n, K, dim) hold K draws a record, averaged inside
        the record's loss so that its gradient is clipped once (noise multiplicity, Dockhorn et al. 2023).
        """
        n, K = t.shape
        x0, codes, label = (value.repeat_interleave(K, dim=0) for value in (x0, codes, label))
        t, noise = t.flatten(), noise.flatten(0, 1)
        x = q_sample(x0, t, noise, self.schedule)
        out = network(x, t, label)
        target = noise if self.prediction == "epsilon" else velocity(x0, t, noise, self.schedule)
        if self.head == "embedding":
            total, columns = ((out - target) ** 2).sum(dim=1), self.space.dim
        else:
            first_number = x0.shape[1] - self.space.numbers
            total = ((out[:, self.tokens :] - target[:, first_number:]) ** 2).sum(dim=1)
            if self.tokens:
                total = total + self.space.segments.cross_entropy(self._logits(out, x, t, label), codes).sum(dim=1)
            columns = len(self.space.levels) + self.space.numbers
        per_draw = total / columns if self.reduction == "mean" else total
        return per_draw.reshape(n, K).mean(dim=1)

    def predict_x0(
        self, network: Network, label: torch.Tensor, generator: torch.Generator, *, drawn: bool = False
    ) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """Return x_0(x, t) for rows of the given labels (n,); with the logits head t = 0 draws the tokens.

        drawn: every t draws them. With the posterior variance, steps from drawn x_0 follow the model's own law of
        x_{t-1} given x_t and each column keeps its distribution, however few the steps (Austin et al. 2021, eq. 4).
        """
        invert = x0_from_epsilon if self.prediction == "epsilon" else x0_from_velocity

        def predict(x: torch.Tensor, t: int) -> torch.Tensor:
            times = torch.tensor([t])
            out = network(x, times, label)
            if self.head == "embedding":
                return invert(x, times, out, self.schedule)
            logits = self._logits(out, x, times, label)
            numbers = invert(x[:, x.shape[1] - self.space.numbers :], times, out[:, self.tokens :], self.schedule)
            if drawn:
                return self.space.embed(self.space.draw_at_once(logits, generator), numbers)
            if t == 0:
                return self.space.embed(self.space.draw(logits, generator), numbers)
            return torch.cat([self.space.expected(logits), numbers], dim=1) if self.tokens else numbers

        return predict
