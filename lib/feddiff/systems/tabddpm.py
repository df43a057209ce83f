"""TabDDPM-like rival: Gaussian diffusion of the numbers, multinomial diffusion of the categories, one MLP for both.

After Kotelnikov et al. (2023): a row's numbers (quantile-normal) and categories are noised at the same t, the network
predicts the numbers' noise and the categories' law of x_0, and the loss is the mean squared error of the noise plus
the mean over the categorical columns of the multinomial bound. Every column is generated, the target too (the authors
draw the label from its frequencies and condition on it).

Ours against theirs: categories enter as 0/1 columns, not as logarithms of them; the MLP is residual with SiLU; weights
are averaged. The categorical loss is the bound ("bound") or the cross-entropy of x_0 ("cross-entropy").
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from feddiff.data.columns import NUMERICS, Z_LIMIT
from feddiff.diffusion import schedules
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.diffusion.descent import Batches, Descent, descend
from feddiff.diffusion.multinomial import Multinomial
from feddiff.diffusion.process import posterior_mean, q_sample, x0_from_epsilon
from feddiff.diffusion.schedules import Schedule
from feddiff.seeds import torch_generator
from feddiff.systems.table_rivals import (
    Data,
    TableModel,
    WholeTable,
    check_config,
    parameters,
    restored,
    settings_of,
    whole_table,
)

SCHEDULES = {"cosine": schedules.cosine, "linear": lambda T: schedules.linear(T, scale_betas=True)}
CATEGORICAL = ("bound", "cross-entropy")
NAME = "tabddpm"
SCALES = ("quick", "standard", "paper")


@dataclass(frozen=True, kw_only=True)
class TabDDPMConfig:
    """Everything that determines a run.

    T and schedule ("cosine", or "linear" with ends scaled to T, which needs T > 20); width and blocks
    of the residual MLP; categorical: one of CATEGORICAL; steps, batch, lr (warm-up and cosine), ema (decay of the
    weight average); numerics: the codec's.
    """

    T: int = 100
    schedule: str = "cosine"
    width: int = 256
    blocks: int = 2
    categorical: str = "bound"
    steps: int = 2000
    batch: int = 512
    lr: float = 2e-3
    ema: float = 0.99
    numerics: str = "quantile-ties"
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(
            self, whole=("T", "width", "blocks", "steps", "batch"), positive=("lr",), schedule=tuple(SCHEDULES),
            categorical=CATEGORICAL, numerics=NUMERICS,
        )

    def descent(self) -> Descent:
        """Return how the network is trained."""
        return Descent(
            steps=self.steps, batch=self.batch, lr=self.lr, warmup=min(100, self.steps // 10), ema=self.ema,
            gradient_clip=1.0, channels_last=False, bf16=False,
        )


def ours(scale: str = "standard", **changes) -> TabDDPMConfig:
    """Return our settings at a scale of "quick", "standard" or "paper" (the authors' range of steps, T and widths).

    Tried a little on the public sets Loan and Cardio (10,000 rows), one seed: under a minute of training at "standard"
    on one core; a classifier trained on the samples reaches an AUC of .99 on Loan.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
    sizes = {
        "quick": dict(steps=500, width=128, T=50),
        "standard": dict(),
        "paper": dict(steps=30_000, width=512, blocks=4, T=1000, batch=4096),
    }[scale]
    return TabDDPMConfig(**(sizes | changes))


@dataclass(eq=False)
class MixedProcess:
    """The forward process, the loss and one reverse step of rows with codes and numbers."""

    levels: tuple[int, ...]
    numbers: int
    schedule: Schedule
    categorical: str

    def __post_init__(self) -> None:
        self.multinomial = Multinomial(self.levels, self.schedule) if self.levels else None

    @property
    def dim(self) -> int:
        """Inputs and outputs of the network: a 0/1 column, or a logit, per level, then the numbers."""
        return sum(self.levels) + self.numbers

    def _input(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return numbers if self.multinomial is None else torch.cat([self.multinomial.one_hot(codes), numbers], dim=1)

    def outputs(
        self, network: nn.Module, codes: torch.Tensor, numbers: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (n, sum(levels)) of x_0 and the noise (n, k) of the numbers that the network predicts."""
        out = network(self._input(codes, numbers), t, torch.zeros(len(numbers), dtype=torch.int64))
        cut = sum(self.levels)
        return out[:, :cut], out[:, cut:]

    def loss(
        self, network: nn.Module, codes: torch.Tensor, numbers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of each record, (n,), at a t drawn for each."""
        n = len(numbers)
        t = torch.randint(self.schedule.T, (n,), generator=generator)
        noise = torch.randn(numbers.shape, generator=generator)
        noisy = codes if self.multinomial is None else self.multinomial.noised(codes, t, generator)
        logits, predicted = self.outputs(network, noisy, q_sample(numbers, t, noise, self.schedule), t)
        total = torch.zeros(n)
        if self.numbers:
            total = total + ((predicted - noise) ** 2).mean(dim=1)
        if self.multinomial is None:
            return total
        if self.categorical == "bound":
            return total + self.schedule.T * self.multinomial.divergence(codes, logits, noisy, t).mean(dim=1)
        return total + self.multinomial.segments.cross_entropy(logits, codes).mean(dim=1)

    def reverse(
        self, network: nn.Module, codes: torch.Tensor, numbers: torch.Tensor, t: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and numbers one step earlier: ancestral, with the posterior variance."""
        times = torch.tensor([t])
        logits, noise = self.outputs(network, codes, numbers, times)
        # No encoded number lies outside +-Z_LIMIT, so no prediction of one should.
        x0 = x0_from_epsilon(numbers, times, noise, self.schedule).clamp(-Z_LIMIT, Z_LIMIT)
        if self.multinomial is not None:
            # What the logits mean depends on what trained them: see `diffusion.multinomial`.
            back = self.multinomial.posterior if self.categorical == "bound" else self.multinomial.mixture
            law = back(self.multinomial.segments.probabilities(logits), codes, times)
            codes = self.multinomial.draw(law, generator)
        if t == 0:
            return codes, x0
        scale = float(self.schedule.posterior_variance[t].sqrt())
        fresh = torch.randn(numbers.shape, generator=generator)
        return codes, posterior_mean(x0, numbers, t, self.schedule) + scale * fresh


@dataclass(eq=False)
class TabDDPM(TableModel):
    """A trained TabDDPM-like model."""

    process: MixedProcess

    def draw(self, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and numbers by all T ancestral steps from uniform codes and N(0, I)."""
        numbers = torch.randn(rows, self.process.numbers, generator=generator)
        codes = torch.empty(rows, 0, dtype=torch.int64)
        if self.process.multinomial is not None:
            codes = self.process.multinomial.start(rows, generator)
        for t in reversed(range(self.process.schedule.T)):
            codes, numbers = self.process.reverse(self.network, codes, numbers, t, generator)
        return codes, numbers


def tab_ddpm(
    data: Data, config: TabDDPMConfig, *, kinds: Mapping[str, str] | None = None, progress: bool = True
) -> TabDDPM:
    """Return the model trained on all columns of `data`: a frame with `kinds`, or silos (centralised: rows are joined).

    Raises ValueError for bad input, FloatingPointError when the loss is not finite.
    """
    table = whole_table(data, kinds, numerics=config.numerics, seed=config.seed)
    process, network = _parts(table, config)

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return process.loss(network, table.codes[rows], table.numbers[rows], generator).mean()

    batches = Batches(torch.zeros(len(table), dtype=torch.int64), config.batch, False, config.seed, NAME)
    fitted = descend(
        network, loss, batches, config.descent(), seed=config.seed, name=NAME, device=torch.device("cpu"),
        progress=progress,
    )
    settings = settings_of(config, parameters=parameters(network), seconds=fitted.seconds)
    return TabDDPM(NAME, config, table.codec, network, fitted.history, settings, process)


def from_state(
    state: dict, data: Data, config: TabDDPMConfig, *, kinds: Mapping[str, str] | None = None
) -> TabDDPM:
    """Return the model that `TabDDPM.to_state` described, on the same table and configuration."""
    table = whole_table(data, kinds, numerics=config.numerics, seed=config.seed)
    process, network = _parts(table, config)
    return TabDDPM(config=config, codec=table.codec, process=process, **restored(state, NAME, network))


def _parts(table: WholeTable, config: TabDDPMConfig) -> tuple[MixedProcess, MLPDenoiser]:
    schedule = SCHEDULES[config.schedule](config.T)
    process = MixedProcess(table.levels, table.numbers.shape[1], schedule, config.categorical)
    network = MLPDenoiser(
        process.dim, process.dim, hidden=(config.width,) * config.blocks, classes=1, body="residual",
        generator=torch_generator(config.seed, "init", NAME),
    )
    return process, network
