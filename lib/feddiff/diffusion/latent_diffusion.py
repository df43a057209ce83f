"""A diffusion model of latent vectors: a residual MLP, trained and sampled as DDPM (Ho et al. 2020)."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from feddiff.diffusion import image_samplers, schedules
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.diffusion.descent import Batches, Descent, Fitted, descend
from feddiff.diffusion.process import q_sample, velocity, x0_from_epsilon, x0_from_velocity
from feddiff.diffusion.training import fingerprint
from feddiff.diffusion.unet_blocks import Dropout

PREDICTIONS = ("epsilon", "x0", "v")
SCHEDULES = ("cosine", "linear")


class LatentDiffusion(nn.Module):
    """DDPM over vectors z (n, dim), best with mean 0 and variance 1 in every place.

    width, blocks: of the residual body; dropout after each block. T, schedule: "cosine", or "linear" with betas scaled
    by 1000 / T. prediction: what the network gives, "epsilon", "x0" or "v". The buffers low and high (dim,), the range
    of the vectors it was fitted on, bound the predicted x0 in sampling: at the noisy end of the chain an error of the
    network is divided by sqrt(alpha_bar), which is nearly 0 there.
    """

    def __init__(
        self,
        dim: int,
        *,
        generator: torch.Generator,
        width: int = 128,
        blocks: int = 4,
        T: int = 200,
        schedule: str = "cosine",
        prediction: str = "epsilon",
        dropout: float = 0.0,
    ):
        super().__init__()
        for name, value in (("dim", dim), ("width", width), ("blocks", blocks), ("T", T)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}")
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        self.dim, self.prediction = dim, prediction
        self.schedule = schedules.cosine(T) if schedule == "cosine" else schedules.linear(T, scale_betas=True)
        self.network = MLPDenoiser(
            dim, dim, hidden=(width,) * blocks, classes=1, body="residual", generator=generator
        )
        if dropout:
            first, *others = self.network.body
            self.network.body = nn.Sequential(first, *[part for b in others for part in (b, Dropout(dropout))])
        self.register_buffer("low", torch.full((dim,), -math.inf))
        self.register_buffer("high", torch.full((dim,), math.inf))

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the network's prediction at noisy vectors z (n, dim) and steps t, (n,) or (1,)."""
        return self.network(z, t, torch.zeros(len(z), dtype=torch.int64, device=z.device))

    def loss_per_record(self, z: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return (n,) the mean squared error over the places of each vector, at steps t (n,) and noise (n, dim)."""
        noisy = q_sample(z, t, noise, self.schedule)
        target = {"epsilon": lambda: noise, "x0": lambda: z, "v": lambda: velocity(z, t, noise, self.schedule)}
        return (self(noisy, t) - target[self.prediction]()).square().mean(dim=1)

    def predict_x0(self, z: torch.Tensor, t: int) -> torch.Tensor:
        """Return the clean vectors that noisy ones at step t imply, within the range of the fitted ones."""
        at = torch.tensor([t], device=z.device)
        out = self(z, at)
        if self.prediction == "epsilon":
            out = x0_from_epsilon(z, at, out, self.schedule)
        elif self.prediction == "v":
            out = x0_from_velocity(z, at, out, self.schedule)
        return out.clamp(self.low, self.high)

    def denoised(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the clean vectors implied at per-record steps t (n,), unbounded and differentiable."""
        out = self(z, t)
        if self.prediction == "epsilon":
            return x0_from_epsilon(z, t, out, self.schedule)
        return out if self.prediction == "x0" else x0_from_velocity(z, t, out, self.schedule)

    def fit(
        self,
        z: np.ndarray | torch.Tensor,
        config: Descent,
        *,
        seed: int,
        name: str = "diffusion",
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
    ) -> Fitted:
        """Train on vectors float32 (n, dim); the model ends in evaluation mode with the averaged weights.

        Algorithm 1 of Ho et al. (2020): uniform t, white noise, mean squared error. checkpoint: as in
        `descent.descend`. ValueError for vectors it cannot take; FloatingPointError for a loss that is not finite.
        """
        z = torch.as_tensor(z)
        if z.dtype != torch.float32 or z.dim() != 2 or z.shape[1] != self.dim or not len(z):
            raise ValueError(f"latents must be float32 (n, {self.dim}) with n >= 1, got {z.dtype} {tuple(z.shape)}")
        wrong = (~z.isfinite()).nonzero()
        if len(wrong):
            row, place = wrong[0].tolist()
            raise ValueError(f"{len(wrong)} latents are not finite, the first is latent {place} of row {row}")
        if config.balanced:
            raise ValueError("balanced batches need labels, and latents have none: set balanced=False")
        self.low.copy_(z.amin(dim=0))
        self.high.copy_(z.amax(dim=0))

        def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            t = torch.randint(0, self.schedule.T, (len(rows),), generator=generator)
            noise = torch.randn(len(rows), self.dim, generator=generator)
            return self.loss_per_record(z[rows], t, noise).mean()

        device, batches = torch.device("cpu"), Batches(torch.zeros(len(z)), config.batch, False, seed, name)
        mark = "" if checkpoint is None else fingerprint(self, config, seed, name, device, z)
        return descend(self, loss, batches, config, seed=seed, name=name, device=device, progress=progress,
                       checkpoint=checkpoint, checkpoint_every=checkpoint_every, fingerprint=mark)

    @torch.no_grad()
    def sample(
        self, rows: int, generator: torch.Generator, *, steps: int | None = 25, known_noise: float = 0.0
    ) -> torch.Tensor:
        """Return (rows, dim) new vectors by `steps` strided stochastic steps (None: all T) from N(0, I).

        The steps are those of DDIM with eta = 1 (Song et al. 2021), the posterior of Ho et al. (2020) over a stride;
        known_noise: see `image_samplers.ancestral`.
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        z = torch.randn(rows, self.dim, generator=generator)
        return image_samplers.ancestral(
            self.predict_x0, z, self.schedule, generator, steps=steps, known_noise=known_noise
        )

    def set_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Set where the masks of dropout come from; None outside training."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator
