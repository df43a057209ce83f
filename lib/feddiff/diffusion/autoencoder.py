"""A convolutional autoencoder of pictures, for PFDM in a latent space.

Train it on public pictures: what it learns from private ones is in no privacy statement of the diffusion.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from feddiff.diffusion.descent import Batches, Descent, Fitted, descend
from feddiff.diffusion.image_loss import CHUNK
from feddiff.diffusion.training import check_pictures, fingerprint
from feddiff.diffusion.unet_blocks import Upsample, conv_layer


class ConvAutoencoder(nn.Module):
    """Encoder and decoder between pictures (n, channels, size, size) and latents (n, latent, side, side).

    side = size / 2^len(widths): every width is one convolution with stride 2 on the way down and one doubling on the
    way up. Latents are standardised by `shift` and `scale` (latent,), which `fit_autoencoder` measures: every channel
    has mean 0 and variance 1 over the pictures it was fitted on, as the forward process expects.

    ValueError for a size that the network cannot take, as a multiple of 2^len(widths), or for widths and groups that
    do not fit together.
    """

    classes = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        generator: torch.Generator,
        widths: Sequence[int] = (32,),
        latent: int = 4,
        groups: int = 8,
    ):
        super().__init__()
        if not widths or any(w < 1 or w % groups for w in widths):
            raise ValueError(f"widths must be multiples of groups={groups}, one a halving, got {tuple(widths)}")
        if latent < 1:
            raise ValueError(f"latent must be at least 1 channel, got {latent}")
        if size < 1 or size % 2 ** len(widths):
            raise ValueError(
                f"pictures of size {size} do not fit {len(widths)} halvings: the size must be a multiple of "
                f"{2 ** len(widths)}"
            )
        self.channels, self.size, self.widths, self.latent = channels, size, tuple(widths), latent
        self.side = size // 2 ** len(widths)
        down, up = [conv_layer(channels, widths[0], generator)], [conv_layer(latent, widths[-1], generator)]
        for w, following in zip(widths, [*widths[1:], widths[-1]]):
            down += [nn.GroupNorm(groups, w), nn.SiLU(), conv_layer(w, following, generator, stride=2)]
        for w, following in zip(widths[::-1], [*widths[-2::-1], widths[0]]):
            up += [nn.GroupNorm(groups, w), nn.SiLU(), Upsample(w, generator, conv=True)]
            up += [nn.GroupNorm(groups, w), nn.SiLU(), conv_layer(w, following, generator)]
        self.encoder = nn.Sequential(
            *down, nn.GroupNorm(groups, widths[-1]), nn.SiLU(), conv_layer(widths[-1], latent, generator)
        )
        self.decoder = nn.Sequential(
            *up, nn.GroupNorm(groups, widths[0]), nn.SiLU(), conv_layer(widths[0], channels, generator)
        )
        self.register_buffer("shift", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (latent, side, side) of the code of one picture."""
        return self.latent, self.side, self.side

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the standardised latents of images (n, channels, size, size)."""
        raw = torch.cat([self.encoder(part) for part in images.split(CHUNK)])
        return (raw - _along_channels(self.shift)) / _along_channels(self.scale)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pictures of standardised latents; values may leave [-1, 1] slightly."""
        raw = latents * _along_channels(self.scale) + _along_channels(self.shift)
        return torch.cat([self.decoder(part) for part in raw.split(CHUNK)])


def fit_autoencoder(
    autoencoder: ConvAutoencoder,
    images: torch.Tensor,
    config: Descent,
    *,
    seed: int,
    name: str = "autoencoder",
    jitter: float = 0.1,
    device: str | torch.device = "cpu",
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
) -> Fitted:
    """Train `autoencoder` in place on images float32 (n, c, h, w) by mean squared error, then measure its latents.

    jitter: in training the decoder sees latents with this much noise, in standard deviations of each channel over the
    batch, so that it forgives the errors of sampled latents. The rest is as in `training.fit`.
    """
    if not 0 <= jitter < math.inf:
        raise ValueError(f"jitter must be >= 0, got {jitter!r}")
    if config.balanced:
        raise ValueError("balanced batches need labels, and an autoencoder has none: set balanced=False")
    # The autoencoder conditions on nothing: all pictures are of its one class.
    labels = torch.zeros(len(images), dtype=torch.int64)
    check_pictures(autoencoder, images, labels)
    device = torch.device(device)
    autoencoder.to(device)
    pictures, bf16 = images.to(device), config.in_bf16(autoencoder.widths[0], device)

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x = pictures[rows]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            code = autoencoder.encoder(x)
            spread = code.detach().float().std(dim=(0, 2, 3), correction=0, keepdim=True)
            noise = torch.randn(code.shape, generator=generator, device=device)
            return functional.mse_loss(autoencoder.decoder(code + jitter * spread * noise).float(), x)

    autoencoder.shift.zero_()
    autoencoder.scale.fill_(1)
    fitted = descend(
        autoencoder,
        loss,
        Batches(labels, config.batch, False, seed, name),
        config,
        seed=seed,
        name=name,
        device=device,
        progress=progress,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        fingerprint="" if checkpoint is None else fingerprint(autoencoder, config, seed, name, device, images),
    )
    raw = autoencoder.encode(pictures).double()
    autoencoder.shift.copy_(raw.mean(dim=(0, 2, 3)))
    autoencoder.scale.copy_(raw.std(dim=(0, 2, 3)).clamp(min=1e-6))
    fitted.state["shift"], fitted.state["scale"] = autoencoder.shift.cpu().clone(), autoencoder.scale.cpu().clone()
    return fitted


def _along_channels(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, -1, 1, 1)
