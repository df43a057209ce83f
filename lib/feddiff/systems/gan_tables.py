"""GAN rivals on tables: linear layers (CTGAN-style) and convolutions over the row as an image (CTAB-GAN-style).

Both: a row is its categories as 0/1 cells beside its quantile-normal numbers; the generator ends in a Gumbel softmax a
category (temperature tau) and plain numbers; the critic judges `packing` rows at once under the Wasserstein loss with
gradient penalty (Gulrajani et al. 2017); Adam with betas (.5, .9), the generator's weights averaged.

Ours against theirs. CTGAN (Xu et al. 2019): no mode-specific normalisation (all rivals share one codec), no
conditional vector with training by sampling, LayerNorm in the place of BatchNorm, no dropout. CTAB-GAN (Zhao et al.
2021): no auxiliary classifier, no log transform, no conditional vector, GroupNorm; upsampling and 3 x 3 convolutions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import nn

from feddiff.data.columns import NUMERICS
from feddiff.diffusion.segments import Segments
from feddiff.seeds import torch_generator
from feddiff.systems.gan_networks import ConvCritic, ConvGenerator, LinearCritic, LinearGenerator
from feddiff.systems.gan_training import Rivalry, contend
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

NETWORKS = ("linear", "conv")
SCALES = ("quick", "standard", "paper")


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """Everything that determines a run.

    network: one of NETWORKS; width: of the hidden layers, or channels at 4 x 4 (halved at each doubling of the side);
    layers: hidden layers of the linear networks; noise: dimension of z; tau: temperature of the Gumbel softmax;
    packing: rows that the critic judges at once; steps: of the generator, each after critic_steps of the critic;
    penalty: weight of the gradient penalty; batch; lr of the generator and critic_lr, lowered along a cosine; ema:
    decay of the average of the generator's weights.
    """

    network: str = "linear"
    width: int = 256
    layers: int = 2
    noise: int = 128
    tau: float = 0.7
    packing: int = 1
    steps: int = 1500
    critic_steps: int = 2
    penalty: float = 2.0
    batch: int = 256
    lr: float = 1e-3
    critic_lr: float = 3e-3
    ema: float = 0.99
    numerics: str = "quantile-ties"
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(
            self, whole=("width", "layers", "noise", "packing", "steps", "critic_steps", "batch"),
            positive=("tau", "penalty", "lr", "critic_lr"), network=NETWORKS, numerics=NUMERICS,
        )
        if self.batch % self.packing:
            raise ValueError(f"batch must be a multiple of packing = {self.packing}, got {self.batch}")

    @property
    def name(self) -> str:
        """Name of the rival and of its random streams."""
        return f"gan-{self.network}"

    def rivalry(self) -> Rivalry:
        """Return how the two networks are trained."""
        names = (field.name for field in fields(Rivalry))
        return Rivalry(**{name: getattr(self, name) for name in names})


def ours(network: str, scale: str = "standard", **changes) -> GANConfig:
    """Return our settings of a "linear" or "conv" GAN at a scale of "quick", "standard" or "paper".

    Tuned a little on the public sets Loan and Cardio (10,000 rows), one seed, about a minute on one core for the linear
    one, more for the other. What mattered: a critic faster than the generator (rate 3 : 1, two steps), a gradient
    penalty of 1 or 2 in the place of 10, tau .7 in the place of .2. Loan, 600 steps: AUC of a classifier trained on
    the samples .86 with tau .2 and penalty 10 (batches of 512), .91 after 400 steps as here, .96 after 1,500.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
    steps = {"quick": 250, "standard": 1500, "paper": 30_000}[scale]
    special = dict(width=32, noise=64, batch=128, lr=2e-3, critic_lr=5e-3, penalty=1.0) if network == "conv" else {}
    return GANConfig(**(dict(network=network, steps=steps) | special | changes))


@dataclass(frozen=True)
class Cells:
    """A row as 0/1 cells of its categories, then its numbers: `dim` values."""

    levels: tuple[int, ...]
    numbers: int
    tau: float

    @cached_property
    def segments(self) -> Segments:
        """The 0/1 cells, column by column."""
        return Segments(self.levels)

    @property
    def dim(self) -> int:
        """Cells of a row."""
        return sum(self.levels) + self.numbers

    def real(self, table: WholeTable) -> torch.Tensor:
        """Return the rows of `table` as cells, float32 (n, dim)."""
        if not self.levels:
            return table.numbers
        law = torch.zeros(len(table), sum(self.levels))
        law.scatter_(1, table.codes + self.segments.offsets, 1.0)
        return torch.cat([law, table.numbers], dim=1)

    def soften(self, raw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return cells of raw generator outputs: Gumbel softmax at `tau` per category, numbers as they are."""
        cut = sum(self.levels)
        if not cut:
            return raw
        # -log of an exponential draw is a Gumbel draw.
        gumbel = -torch.empty(len(raw), cut).exponential_(generator=generator).log()
        return torch.cat([self.segments.probabilities((raw[:, :cut] + gumbel) / self.tau), raw[:, cut:]], dim=1)


@dataclass(eq=False)
class TableGAN(TableModel):
    """A trained generator (`network`) of rows."""

    cells: Cells

    def draw(self, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes drawn from the generator's softmax, and its numbers."""
        raw = self.network(torch.randn(rows, self.config.noise, generator=generator))
        cut = sum(self.cells.levels)
        blocks = raw[:, :cut].split(self.cells.levels, dim=1) if cut else ()
        drawn = [torch.multinomial(block.softmax(dim=1), 1, generator=generator) for block in blocks]
        codes = torch.cat(drawn, dim=1) if drawn else torch.empty(rows, 0, dtype=torch.int64)
        return codes, raw[:, cut:]


def gan_linear(
    data: Data, config: GANConfig, *, kinds: Mapping[str, str] | None = None, progress: bool = True
) -> TableGAN:
    """Return the CTGAN-style model trained on all columns of `data`: a frame with `kinds`, or silos (rows joined).

    Raises ValueError for bad input, FloatingPointError, naming step and network, when a loss is not finite.
    """
    return _gan(data, config, "linear", kinds, progress)


def gan_conv(
    data: Data, config: GANConfig, *, kinds: Mapping[str, str] | None = None, progress: bool = True
) -> TableGAN:
    """Return the CTAB-GAN-style model; as `gan_linear`."""
    return _gan(data, config, "conv", kinds, progress)


def from_state(
    state: dict, data: Data, config: GANConfig, *, kinds: Mapping[str, str] | None = None
) -> TableGAN:
    """Return the model that `TableGAN.to_state` described, on the same table and configuration."""
    table = whole_table(data, kinds, numerics=config.numerics, seed=config.seed)
    cells = Cells(table.levels, table.numbers.shape[1], config.tau)
    generator, _ = _networks(cells, config)
    return TableGAN(config=config, codec=table.codec, cells=cells, **restored(state, config.name, generator))


def _gan(data: Data, config: GANConfig, network: str, kinds: Mapping[str, str] | None, progress: bool) -> TableGAN:
    if config.network != network:
        raise ValueError(f"gan_{network} needs a configuration with network={network!r}, got {config.network!r}")
    table = whole_table(data, kinds, numerics=config.numerics, seed=config.seed)
    cells = Cells(table.levels, table.numbers.shape[1], config.tau)
    generator, critic = _networks(cells, config)
    streams = {what: torch_generator(config.seed, "draws", config.name, what) for what in ("noise", "penalty")}

    def draw(rows: int) -> torch.Tensor:
        raw = generator(torch.randn(rows, config.noise, generator=streams["noise"]))
        return cells.soften(raw, streams["noise"])

    trained = contend(
        generator, critic, draw, cells.real(table), config.rivalry(), seed=config.seed, name=config.name,
        draws=streams["penalty"], progress=progress,
    )
    settings = settings_of(
        config, parameters=parameters(generator), critic_parameters=parameters(critic), seconds=trained.seconds
    )
    return TableGAN(config.name, config, table.codec, generator.eval(), trained.history, settings, cells)


def _networks(cells: Cells, config: GANConfig) -> tuple[nn.Module, nn.Module]:
    ways = [torch_generator(config.seed, "init", config.name, part) for part in ("generator", "critic")]
    if config.network == "linear":
        size = dict(width=config.width, layers=config.layers)
        return (
            LinearGenerator(config.noise, cells.dim, generator=ways[0], **size),
            LinearCritic(cells.dim, packing=config.packing, generator=ways[1], **size),
        )
    return (
        ConvGenerator(config.noise, cells.dim, width=config.width, generator=ways[0]),
        ConvCritic(cells.dim, packing=config.packing, width=config.width, generator=ways[1]),
    )
