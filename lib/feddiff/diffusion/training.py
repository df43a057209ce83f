"""Training of an image denoiser without privacy: DDPM's algorithm 1 (Ho et al. 2020), on a range of steps if wanted."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from feddiff.diffusion.descent import Batches, Descent, Fitted, descend
from feddiff.diffusion.image_loss import WEIGHTS, loss_per_record
from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.unet import UNet

# augment(x (n, c, h, w), generator on the device of x) -> (x, flag (n,) bool or None)
Augment = Callable[[torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class FitConfig(Descent):
    """Descent plus the diffusion: the loss `weight` ("eps", the papers', or "v") and the range of trained indices.

    lo, hi: t is drawn uniformly from the indices lo <= t < hi (None: T). PFDM's local model has hi = t0.
    """

    weight: str = "v"
    lo: int = 0
    hi: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight not in WEIGHTS:
            raise ValueError(f"weight must be one of {WEIGHTS}, got {self.weight!r}")

    def range_of(self, schedule: Schedule) -> tuple[int, int]:
        """Return (lo, hi) under a schedule. ValueError unless 0 <= lo < hi <= T."""
        hi = schedule.T if self.hi is None else self.hi
        if not 0 <= self.lo < hi <= schedule.T:
            raise ValueError(f"the range of indices must satisfy 0 <= lo < hi <= T={schedule.T}, got [{self.lo}, {hi})")
        return self.lo, hi


def fit(
    network: UNet,
    images: torch.Tensor,
    labels: torch.Tensor,
    config: FitConfig,
    schedule: Schedule,
    *,
    seed: int,
    name: str = "fit",
    augment: Augment | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
) -> Fitted:
    """Train `network` in place on images float32 (n, c, h, w), labels int64 (n,), and return what came of it.

    The network ends on `device`, in evaluation mode, with the averaged weights. seed, name: all random draws come
    from generators named after both, so that two trainings of one run never share a stream. augment: changes a batch
    before it is noised and says which pictures it changed, for a network with a flag (PFDM's clip mixing).
    checkpoint: as in `descent.descend`; a file of another configuration, seed, network shape or data is refused.

    ValueError for pictures or labels that the network cannot take; FloatingPointError for a loss that is not finite.
    """
    check_pictures(network, images, labels)
    if not network.follows(schedule):
        raise ValueError("this network was built for another schedule: build it with the one that it is trained on")
    lo, hi = config.range_of(schedule)
    device = torch.device(device)
    network.to(device)
    images, bf16 = images.to(device), config.in_bf16(network.widths[0], device)
    labels_there = labels.to(device)

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x0, flag = (images[rows], None) if augment is None else augment(images[rows], generator)
        t = torch.randint(lo, hi, (len(rows), 1), generator=generator, device=device)
        noise = torch.randn(len(rows), 1, *x0.shape[1:], generator=generator, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return loss_per_record(
                network, x0, labels_there[rows], t, noise, schedule, weight=config.weight, flag=flag
            ).mean()

    return descend(
        network,
        loss,
        Batches(labels.cpu(), config.batch, config.balanced, seed, name),
        config,
        seed=seed,
        name=name,
        device=device,
        progress=progress,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        fingerprint="" if checkpoint is None else fingerprint(network, config, seed, name, device, images, labels),
    )


def check_pictures(network: UNet, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless the network can be trained on these pictures and labels."""
    wanted = (network.channels, network.size, network.size)
    if images.dtype != torch.float32 or images.dim() != 4 or tuple(images.shape[1:]) != wanted or not len(images):
        raise ValueError(
            f"images must be float32 (n, {', '.join(map(str, wanted))}) for this network, with n >= 1, got "
            f"{images.dtype} {tuple(images.shape)}"
        )
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise ValueError(f"labels must be int64 ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < network.classes:
        raise ValueError(f"labels must lie in 0..{network.classes - 1}, the classes of the network, got {low}..{high}")
    bad = (~images.flatten(1).isfinite().all(1)).nonzero()
    if len(bad):
        raise ValueError(f"{len(bad)} pictures hold values that are not finite, the first is picture {int(bad[0])}")


def fingerprint(
    network: nn.Module, config: Descent, seed: int, name: str, device: torch.device, *data: torch.Tensor
) -> str:
    """Return a digest of everything that a checkpoint must share with the training that resumes it."""
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    said = [dataclasses.asdict(config), shapes, seed, name, device.type]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for part in data:
        digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()
