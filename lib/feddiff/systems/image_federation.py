"""Rounds of federated training for denoisers of pictures, with and without DP, on the federation that tables use."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from feddiff.diffusion.ema import EMA
from feddiff.diffusion.image_loss import loss_per_record
from feddiff.federation.client import BatchLoss, Client, LocalTraining, flat_weights, load_flat_weights
from feddiff.federation.rounds import Federation
from feddiff.federation.strategies import Server, Strategy
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.seeds import torch_generator
from feddiff.systems.image_clients import ImageClient, PixelSpace
from feddiff.systems.image_denoisers import Denoiser


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """How a federated baseline trains.

    R: communication rounds (a few more or less where the budget does not divide); B: expected Poisson batch of a
    client; lr, constant or with cosine decay; K: noise draws a picture; ema: decay of the average over rounds (0:
    none); strategy: the server's. C: bound on the gradient of a picture under DP-SGD; move_norm: bound on the move of
    a client in a round where moves are noised; microbatch: pictures at a time through the network under DP-SGD.
    """

    R: int = 50
    B: int = 64
    lr: float = 3e-3
    lr_schedule: str = "cosine"
    K: int = 1
    ema: float = 0.9
    strategy: Strategy = field(default_factory=Strategy)
    C: float = 1.0
    move_norm: float = 1.0
    microbatch: int | None = None

    def __post_init__(self) -> None:
        for name in ("R", "B", "K"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        for name in ("lr", "C", "move_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number > 0, got {getattr(self, name)!r}")

    def horizon(self, images: int, clients: int) -> tuple[int, int]:
        """Return (rounds, local steps a round) with which `clients` clients see `images` pictures between them."""
        steps = -(-images // (self.B * clients))
        local = max(1, round(steps / self.R))
        return -(-steps // local), local


class ImageMember(Client):
    """A client that trains a U-Net, on the device of its denoiser; by DP-SGD if noise_multiplier is set."""

    def __init__(
        self,
        model: Denoiser,
        client: ImageClient,
        rounds: RoundsConfig,
        *,
        total_steps: int,
        noise_multiplier: float | None = None,
    ):
        model.network.to(model.device).train()
        seed = model.config.seed
        model.network.set_dropout_generator(torch_generator(seed, "dropout", client.name, device=model.device))
        training = LocalTraining(
            batch_size=rounds.B,
            total_steps=total_steps,
            lr=rounds.lr,
            lr_schedule=rounds.lr_schedule,
            proximal=rounds.strategy.proximal,
            clip_norm=rounds.C,
            microbatch=rounds.microbatch,
        )
        super().__init__(
            name=client.name,
            rows=len(client),
            network=model.network,
            draws=_draws(model, client, rounds.K),
            training=training,
            noise_multiplier=noise_multiplier,
            seed=seed,
        )
        if noise_multiplier is not None and model.device != "cpu":
            # Noise is drawn where the gradients are.
            self.generators["dp-noise"] = torch_generator(seed, "dp-noise", client.name, device=model.device)
            self.step.noise = GaussianNoise(self.generators["dp-noise"])

    def update(self, weights: torch.Tensor, steps: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Return locally trained weights, on the CPU, and diagnostics."""
        trained, diagnostics = super().update(weights, steps)
        return trained.cpu(), diagnostics


class NoisyMember(ImageMember):
    """A client that trains plainly and sends its move clipped to `move_norm` and noised: local DP of all it holds."""

    def __init__(self, *args, move_norm: float, move_noise: float, **options):
        super().__init__(*args, **options)
        self.move_norm, self.move_noise = move_norm, move_noise

    def update(self, weights: torch.Tensor, steps: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Return weights + clip(move, S) + N(0, (move_noise S)^2), S = move_norm."""
        trained, diagnostics = super().update(weights, steps)
        move = trained - weights
        scale = min(1.0, self.move_norm / max(float(move.norm()), 1e-12))
        noise = GaussianNoise(self.generators["dp-noise"])
        drawn = noise.fill_(torch.empty_like(move), self.move_noise * self.move_norm)
        return weights + scale * move + drawn, diagnostics | {"clipped": float(scale < 1)}


def federate(
    model: Denoiser,
    parties: Sequence[Client],
    rounds: RoundsConfig,
    *,
    horizon: tuple[int, int],
    ledger: PrivacyLedger | None,
    progress: bool,
) -> Federation:
    """Run the rounds over `parties`, who all take part in each, and leave the averaged weights in `model`."""
    federation = Federation(
        clients=parties,
        server=Server(rounds.strategy, flat_weights(model.network).cpu()),
        ledger=ledger,
        ema=EMA(rounds.ema) if rounds.ema else None,
    )
    everybody = tuple(range(len(parties)))
    federation.run([everybody] * horizon[0], horizon[1], progress=progress)
    load_flat_weights(model.network, federation.weights())
    model.network.set_dropout_generator(None)
    model.network.eval()
    return federation


def _draws(model: Denoiser, client: ImageClient, K: int) -> BatchLoss:
    config, device, schedule = model.config, model.device, model.schedule
    images, labels = PixelSpace(config.values).enter(client.images).to(device), client.labels.to(device)

    def draws(batch: torch.Tensor, generator: torch.Generator) -> Callable[[slice], torch.Tensor]:
        t = torch.randint(model.hi, (len(batch), K), generator=generator).to(device)
        noise = torch.randn(len(batch), K, *images.shape[1:], generator=generator).to(device)
        rows = batch.to(device)
        x, y = images[rows], labels[rows]
        return lambda i: loss_per_record(model.network, x[i], y[i], t[i], noise[i], schedule, weight=config.weight)

    return draws
