"""A class-conditional denoiser of pictures as the systems use it: a U-Net on its schedule, trained and walked back."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from feddiff.diffusion.image_loss import loss_per_record, predict_x0
from feddiff.diffusion.image_samplers import ancestral, ddim
from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.training import Augment, FitConfig, fit
from feddiff.diffusion.unet import UNet, unet
from feddiff.seeds import torch_generator
from feddiff.systems.image_clients import clipped
from feddiff.systems.pfdm_config import PFDMConfig

SAMPLERS = ("ancestral", "ddim")
# Pictures that are drawn together: a chain's length times this many network inputs, and one stream of noise.
SAMPLE_CHUNK = 500


@dataclass(eq=False)
class Denoiser:
    """A U-Net on `schedule`, trained on its steps 1..hi; `flag` tells it clipped pictures from whole ones.

    images_seen and history (columns step, loss) say how it was trained.
    """

    name: str
    network: UNet
    schedule: Schedule
    config: PFDMConfig
    hi: int
    flag: bool = False
    device: str = "cpu"
    images_seen: int = 0
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"step": [], "loss": []}))

    def fit(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        training: FitConfig,
        *,
        augment: Augment | None = None,
        folder: Path | None = None,
        progress: bool = True,
    ) -> None:
        """Train on (images, labels); with a folder, resume from and write a checkpoint there."""
        fitted = fit(
            self.network,
            images,
            labels,
            training,
            self.schedule,
            seed=self.config.seed,
            name=self.name,
            augment=augment,
            device=self.device,
            progress=progress,
            checkpoint=None if folder is None else folder / f"{self.name}.pt",
        )
        self.images_seen, self.history = fitted.images_seen, fitted.history

    def reverse(
        self,
        x: torch.Tensor,
        labels: torch.Tensor,
        generator: torch.Generator,
        *,
        steps: int | None,
        start: int | None = None,
        sampler: str = "ancestral",
        known_noise: float = 0.0,
    ) -> torch.Tensor:
        """Return x at level 0 from x (n, c, h, w) at the step `start` (None: hi), over `steps` of 1..start (None: all).

        sampler: "ancestral" or "ddim" (deterministic). known_noise: variance of the white noise in what level 0 means
        to this denoiser. A flagged denoiser is asked for whole, unclipped pictures.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {SAMPLERS}, got {sampler!r}")
        self.network.to(self.device)
        predict = predict_x0(
            self.network,
            labels.to(self.device),
            self.schedule,
            flag=False if self.flag else None,
            autocast=self.config.training(1).in_bf16(self.network.widths[0], torch.device(self.device)),
        )
        walk = dict(steps=steps, start=(start or self.hi) - 1)
        if sampler == "ddim":
            return ddim(predict, x.to(self.device), self.schedule, **walk).cpu()
        x = ancestral(predict, x.to(self.device), self.schedule, generator, known_noise=known_noise, **walk)
        return x.cpu()

    def draw(
        self,
        labels: torch.Tensor,
        *,
        seed: int,
        stream: tuple[str | int, ...],
        starts: torch.Tensor | None = None,
        **walk,
    ) -> torch.Tensor:
        """Return one walk back for each label, from `starts` or from N(0, I), a chunk of labels at a time."""
        parts = []
        for first in range(0, len(labels), SAMPLE_CHUNK):
            rows = slice(first, first + SAMPLE_CHUNK)
            generator = torch_generator(seed, *stream, first, device=self.device)
            if starts is None:
                shape = (len(labels[rows]), self.network.channels, self.network.size, self.network.size)
                x = torch.randn(shape, generator=torch_generator(seed, *stream, "start", first))
            else:
                x = starts[rows]
            parts.append(self.reverse(x, labels[rows], generator, **walk))
        return torch.cat(parts)

    @torch.no_grad()
    def loss_per_record(
        self, images: torch.Tensor, labels: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return the unweighted loss of each picture at indices t (n, K) and noise (n, K, c, h, w), shape (n,).

        images: in the range of the configuration. What a white-box adversary scores; a flagged denoiser takes them for
        unclipped.
        """
        self.network.to(self.device).eval()
        parts = []
        for rows in torch.arange(len(labels)).split(SAMPLE_CHUNK):
            given = (part[rows].to(self.device) for part in (images, labels, t, noise))
            flag = torch.zeros(len(rows), dtype=torch.bool, device=self.device) if self.flag else None
            parts.append(loss_per_record(self.network, *given, self.schedule, flag=flag).cpu())
        return torch.cat(parts)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights by name, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}

    def summary(self) -> dict:
        """Return weights and history as tensors and plain values (for a cache)."""
        return {"weights": self.state(), "images_seen": self.images_seen, "history": self.history.to_dict("list")}

    def restore(self, summary: dict) -> None:
        """Take up a `summary`."""
        self.network.load_state_dict(summary["weights"])
        self.network.eval()
        self.images_seen = summary["images_seen"]
        self.history = pd.DataFrame(summary["history"])


def denoiser(
    name: str,
    config: PFDMConfig,
    shape: tuple[int, int, int],
    classes: int,
    *,
    schedule: Schedule | None = None,
    hi: int | None = None,
    flag: bool = False,
    device: str = "cpu",
) -> Denoiser:
    """Return an untrained denoiser of pictures of `shape` (c, h, w); ValueError for a size the network cannot take."""
    schedule = config.schedule if schedule is None else schedule
    network = unet(
        config.network,
        channels=shape[0],
        size=shape[1],
        classes=classes,
        schedule=schedule,
        generator=torch_generator(config.seed, "init", name),
        flag=flag,
    )
    # As training leaves it: a network with the same weights in another layout rounds differently.
    network.to(memory_format=torch.channels_last)
    return Denoiser(name, network, schedule, config, hi=hi or schedule.T, flag=flag, device=device)


def mix_clipped(share: float, C: float) -> Augment:
    """Return the augmentation of local training: each picture is clipped to norm C, and flagged, with this chance."""

    def augment(x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        flag = torch.rand(len(x), generator=generator, device=x.device) < share
        return torch.where(flag.reshape(-1, *[1] * (x.dim() - 1)), clipped(x, C), x), flag

    return augment
