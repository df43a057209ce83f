"""DP-GAN: a GAN on tables whose critic, the only part that sees rows, is trained by DP-SGD.

After Xie et al. 2018 (DPGAN) and Torkzadehmahani et al. 2019 (DP-CGAN), with what Bie, Kamath & Zhang 2023 ("Private
GANs, Revisited") found to matter: several critic steps between two steps of the generator, large batches.

    calibrate sigma for steps * critic_steps Poisson batches of rate B / n                      privacy.accounting
    for step = 1..steps:
        critic_steps times:  batch ~ Poisson(B / n), one generated row beside each record
            loss_i = softplus(-D(x_i)) + softplus(D(G(z_i)))                     one a record, clipped to C
            g = (sum_i clip(grad loss_i, C) + N(0, sigma^2 C^2)) / B             privacy.step
        generator: mean softplus(-D(G(z)))       never sees a row: post-processing

The logistic loss replaces the Wasserstein loss of `gan_training`: a gradient penalty differentiates the critic twice
and looks at pairs of rows, which per-record clipping does not cover. The networks and the cells of a row are those of
the linear GAN; the label is a column like any other. Trust model: a CURATOR trains on the pooled rows of all clients.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import softplus
from tqdm.auto import tqdm

from feddiff.data.columns import NUMERICS
from feddiff.diffusion.ema import EMA
from feddiff.privacy.accounting import noise_multiplier
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.sampling import poisson_batch
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator
from feddiff.systems.gan_networks import LinearCritic, LinearGenerator
from feddiff.systems.gan_tables import SCALES, Cells, TableGAN
from feddiff.systems.gan_training import BETAS, WINDOW
from feddiff.systems.table_rivals import check_config, parameters, restored, settings_of, whole_table

CURATOR = "curator"
NAME = "dp-gan"


@dataclass(frozen=True, kw_only=True)
class DPGANConfig:
    """Everything that determines a run.

    epsilon, delta: of a record over the whole training; C: clipping norm; batch: expected Poisson batch and divisor;
    steps of the generator, each after critic_steps of the critic; width and layers of both networks; noise: dimension
    of z; tau: temperature of the Gumbel softmax; lr of the generator, critic_lr; ema: average of the generator.
    """

    epsilon: float
    delta: float = 1e-5
    C: float = 1.0
    steps: int = 100
    critic_steps: int = 8
    batch: int = 512
    width: int = 64
    layers: int = 1
    noise: int = 32
    tau: float = 0.7
    lr: float = 5e-3
    critic_lr: float = 1e-2
    ema: float = 0.98
    numerics: str = "quantile-ties"
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(
            self, whole=("steps", "critic_steps", "batch", "width", "layers", "noise"),
            positive=("epsilon", "C", "tau", "lr", "critic_lr"), numerics=NUMERICS,
        )
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta!r}")


@dataclass(eq=False)
class DPTableGAN(TableGAN):
    """A trained generator and the ledger's statement of what its critic spent."""

    privacy: dict

    def to_state(self) -> dict:
        """Return what a cache needs as tensors and plain values."""
        return super().to_state() | {"privacy": self.privacy}


def ours(*, epsilon: float, scale: str = "standard", **changes) -> DPGANConfig:
    """Return our settings at a budget and a scale of "quick", "standard" or "paper".

    Tuned a little on the embedded Bank Marketing (3,617 rows) and Adult, one seed a table, by pair trends and AUC of a
    classifier trained on the rows. Bank, epsilon 1: pair trends .76 with two layers of 128, .84 with one of 64. Adult,
    epsilon 1: .76 (AUC .68) after 100 steps, .90 (.83) after 400. The less noise the critic has, the fewer of its steps
    the generator stands: Adult at epsilon 10, 400 steps, .75 (.73) with 8 critic steps a step, .90 (.85) with 4. At
    epsilon .2 more steps only add noise.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
    steps = 25 if scale == "quick" else 400 if epsilon >= 0.5 else 100
    critic = dict(critic_steps=4) if epsilon >= 4 else {}
    return DPGANConfig(**(dict(epsilon=epsilon, steps=steps) | critic | changes))


def dp_gan(
    frame: pd.DataFrame, config: DPGANConfig, *, kinds: Mapping[str, str], progress: bool = True
) -> DPTableGAN:
    """Return the GAN trained on the pooled rows `frame`, at least `config.batch` of them.

    Raises ValueError for bad input, FloatingPointError, naming the step, when the generator's loss is not finite.
    """
    table = whole_table(frame, kinds, numerics=config.numerics, seed=config.seed)
    if config.batch > len(table):
        raise ValueError(f"the table has {len(table)} rows, fewer than batch = {config.batch}; lower batch")
    cells = Cells(table.levels, table.numbers.shape[1], config.tau)
    generator, critic = _networks(cells, config)
    ledger, sigma = ledger_of(config, len(table))
    history, seconds = _contend(generator, critic, cells, cells.real(table), config, sigma, progress)
    settings = settings_of(
        config, parameters=parameters(generator), critic_parameters=parameters(critic), noise_multiplier=sigma,
        seconds=seconds,
    )
    return DPTableGAN(NAME, config, table.codec, generator.eval(), history, settings, cells, ledger.statement())


def ledger_of(config: DPGANConfig, rows: int) -> tuple[PrivacyLedger, float]:
    """Return the ledger of a whole training on `rows` rows, and its noise multiplier: the budget is never passed."""
    plan = dict(sample_rate=config.batch / rows, steps=config.steps * config.critic_steps)
    sigma = noise_multiplier(target_epsilon=config.epsilon, delta=config.delta, **plan)
    ledger = PrivacyLedger(clients=[CURATOR], delta=config.delta)
    ledger.spend_sgm(CURATOR, noise_multiplier=sigma, **plan)
    ledger.declare_outside(f"codec ({config.numerics}): quantiles and vocabulary of the pooled training rows")
    ledger.declare_outside("training history (losses, clipped shares): diagnostics computed on private rows")
    return ledger, sigma


def from_state(state: dict, frame: pd.DataFrame, config: DPGANConfig, *, kinds: Mapping[str, str]) -> DPTableGAN:
    """Return the model that `DPTableGAN.to_state` described, on the same table and configuration."""
    table = whole_table(frame, kinds, numerics=config.numerics, seed=config.seed)
    cells = Cells(table.levels, table.numbers.shape[1], config.tau)
    generator, _ = _networks(cells, config)
    fields = restored(state, NAME, generator)
    return DPTableGAN(config=config, codec=table.codec, cells=cells, privacy=state["privacy"], **fields)


def _networks(cells: Cells, config: DPGANConfig) -> tuple[LinearGenerator, LinearCritic]:
    ways = [torch_generator(config.seed, "init", NAME, part) for part in ("generator", "critic")]
    size = dict(width=config.width, layers=config.layers)
    return (
        LinearGenerator(config.noise, cells.dim, generator=ways[0], **size),
        LinearCritic(cells.dim, packing=1, generator=ways[1], **size),
    )


def critic_step(
    step: PrivateStep, critic: nn.Module, real: torch.Tensor, fake: torch.Tensor
) -> tuple[float, float]:
    """Write the private gradient of the critic; return the mean loss and the clipped share.

    real, fake (b, dim): each record has a generated row of its own, which leaves with it, so that a record changes the
    sum by at most C. Both rows pass the critic together, record-major.
    """
    pairs = torch.stack([real, fake], dim=1)

    def loss(rows: slice) -> torch.Tensor:
        own = pairs[rows]
        scores = critic(own.flatten(0, 1).unsqueeze(1)).view(len(own), 2)
        return softplus(-scores[:, 0]) + softplus(scores[:, 1])

    report = step.gradient(loss, len(real))
    return float(report.losses.sum()) / max(len(real), 1), report.clipped_fraction


def _contend(
    generator: nn.Module, critic: nn.Module, cells: Cells, real: torch.Tensor, config: DPGANConfig, sigma: float,
    progress: bool,
) -> tuple[pd.DataFrame, float]:
    """Train both networks; return the mean losses by window and the seconds. The generator ends averaged."""
    streams = {what: torch_generator(config.seed, NAME, what) for what in ("noise", "batches", "dp-noise")}
    optimisers = {
        "critic": torch.optim.Adam(critic.parameters(), lr=config.critic_lr, betas=BETAS, fused=True),
        "generator": torch.optim.Adam(generator.parameters(), lr=config.lr, betas=BETAS, fused=True),
    }

    def draw(rows: int) -> torch.Tensor:
        raw = generator(torch.randn(rows, config.noise, generator=streams["noise"]))
        return cells.soften(raw, streams["noise"])

    step = PrivateStep(
        critic, clip_norm=config.C, noise_multiplier=sigma, expected_batch=config.batch,
        noise=GaussianNoise(streams["dp-noise"]),
    )
    average, history, window, begun = EMA(config.ema), [], [], time.perf_counter()
    with step:
        for k in tqdm(range(config.steps), desc=NAME, disable=not progress):
            decay = 0.5 * (1 + math.cos(math.pi * k / config.steps))
            for name, lr in (("critic", config.critic_lr), ("generator", config.lr)):
                optimisers[name].param_groups[0]["lr"] = lr * decay
            for _ in range(config.critic_steps):
                batch = poisson_batch(len(real), config.batch / len(real), streams["batches"])
                with torch.no_grad():
                    fake = draw(len(batch))
                loss, clipped = critic_step(step, critic, real[batch], fake)
                optimisers["critic"].step()
            critic.requires_grad_(False)
            mine = softplus(-critic(draw(config.batch).unsqueeze(1))).mean()
            if not math.isfinite(float(mine.detach())):
                raise FloatingPointError(f"{NAME}: generator: the loss is not finite at step {k + 1}; lower the rates")
            optimisers["generator"].zero_grad()
            mine.backward()
            optimisers["generator"].step()
            critic.requires_grad_(True)
            average.update(torch.cat([p.detach().flatten() for p in generator.parameters()]))
            window.append({"critic": loss, "clipped": clipped, "generator": float(mine.detach())})
            if (k + 1) % WINDOW == 0 or k + 1 == config.steps:
                history.append({"step": k + 1, **pd.DataFrame(window).mean().to_dict()})
                window = []
    with torch.no_grad():
        sizes = [p.numel() for p in generator.parameters()]
        for p, part in zip(generator.parameters(), average.average.split(sizes)):
            p.copy_(part.view(p.shape))
    return pd.DataFrame(history), time.perf_counter() - begun
