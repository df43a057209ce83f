"""Planted faults of the DP-SGD step, each a known bug of real libraries, for audits and tests to catch.

Threat model: none of its own. A careless implementer states an epsilon that the step does not keep; the adversary that
shows it is the one of `canaries`, who sees every private gradient and knows nothing of the fault.

Nothing here may train anything: every class but the correct variants breaks the guarantee on purpose.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep, StepReport


class WeakerNoise(GaussianNoise):
    """Planted fault: noise smaller by a factor."""

    def __init__(self, generator: torch.Generator, factor: float):
        super().__init__(generator)
        self.factor = factor

    def fill_(self, tensor: torch.Tensor, std: float) -> torch.Tensor:
        """Overwrite `tensor` with noise that is too weak."""
        return super().fill_(tensor, std * self.factor)


class ReusedNoise(GaussianNoise):
    """Planted fault: the first noise is used at every step."""

    first = None

    def fill_(self, tensor: torch.Tensor, std: float) -> torch.Tensor:
        """Overwrite `tensor` with the noise of the first call."""
        if self.first is None:
            self.first = super().fill_(tensor, std).clone()
        return tensor.copy_(self.first)


class Unclipped(PrivateStep):
    """Planted fault: the clip factors are forgotten."""

    def _clip(self, squares, scale):
        norms, factors, clipped = super()._clip(squares, scale)
        return norms, [torch.full_like(factor, scale) for factor in factors], clipped


class OneLayerUnclipped(PrivateStep):
    """Planted fault: the factors of the last layer are forgotten."""

    def _clip(self, squares, scale):
        norms, factors, clipped = super()._clip(squares, scale)
        return norms, [*factors[:-1], torch.full_like(factors[-1], scale)], clipped


class NormOfOneLayer(PrivateStep):
    """Planted fault: the norm leaves the last layer out."""

    def _clip(self, squares, scale):
        return super()._clip([*squares[:-1], torch.zeros_like(squares[-1])], scale)


class BatchMeanClipped(PrivateStep):
    """Planted fault: the mean gradient of the batch is clipped, not each record's."""

    def gradient(self, loss_fn, records: int) -> StepReport:
        """Set p.grad to the clipped mean plus noise that would suit clipped records."""
        self.noise_multiplier, sigma = 0.0, self.noise_multiplier
        self.clip_norm, bound = math.inf, self.clip_norm
        report = super().gradient(loss_fn, records)
        self.noise_multiplier, self.clip_norm = sigma, bound
        noise = self.noise.fill_(torch.empty_like(self._flat), sigma * bound / self.expected_batch)
        self._flat.mul_(min(1.0, bound / self._flat.norm().item())).add_(noise)
        return report


@dataclass(frozen=True)
class Variant:
    """A step under audit: its class, its noise as a function of (generator, expected batch), and its options.

    single: the fault shows on one coordinate over many steps only (noise that repeats looks fresh over coordinates).
    """

    step: type[PrivateStep] = PrivateStep
    noise: Callable[[torch.Generator, float], GaussianNoise] = lambda generator, batch: GaussianNoise(generator)
    options: dict = field(default_factory=dict)
    single: bool = False


CORRECT = {
    "correct": Variant(),
    "correct, per-layer": Variant(options={"clipping": "per-layer"}),
    "correct, microbatches": Variant(options={"microbatch": 3}),
}
MUTANTS = {
    "noise halved": Variant(noise=lambda generator, batch: WeakerNoise(generator, 0.5)),
    "noise divided twice": Variant(noise=lambda generator, batch: WeakerNoise(generator, 1 / batch)),
    "noise reused between steps": Variant(noise=lambda generator, batch: ReusedNoise(generator), single=True),
    "clipping forgotten": Variant(step=Unclipped),
    "batch-mean clipping": Variant(step=BatchMeanClipped),
    "one layer left unclipped": Variant(step=OneLayerUnclipped),
    "norm without one layer": Variant(step=NormOfOneLayer),
}
