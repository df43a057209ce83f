"""The two kinds of party of PFDM: what a client keeps and what it gives away, and what the server ever sees.

A client's clean pictures and its secret denoiser are reachable from its own object only; the server's object holds
noised uploads, labels, senders and the global denoiser trained on them.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.seeds import torch_generator
from feddiff.systems.image_clients import ImageClient, Space, clipped
from feddiff.systems.image_denoisers import Denoiser, denoiser, mix_clipped
from feddiff.systems.pfdm_config import PFDMConfig
from feddiff.systems.pfdm_starts import Uploads

Shape = tuple[int, int, int]


def global_denoiser(config: PFDMConfig, shape: Shape, classes: int, device: str) -> Denoiser:
    """Return z_w untrained, on the schedule on which it takes uploads for clean pictures."""
    return denoiser("global", config, shape, classes, schedule=config.global_schedule, device=device)


class PFDMClient:
    """A client m: clean pictures, the secret denoiser z_theta_m, and the public z_w once it was received."""

    def __init__(self, client: ImageClient, config: PFDMConfig, space: Space, classes: int, device: str):
        self.name, self.config, self.classes, self.device = client.name, config, classes, device
        self._space, self._labels = space, client.labels
        self._x = space.enter(client.images)
        self._secret = denoiser(
            client.name,
            config,
            tuple(self._x.shape[1:]),
            classes,
            hi=config.t0 if config.local_range == "t0" else config.T,
            flag=config.clip_mixing > 0,
            device=device,
        )
        self._global: dict[str, torch.Tensor] | None = None
        self._uploaded, self.fitted = False, False

    def __len__(self) -> int:
        return len(self._labels)

    def fit_local(self, *, folder: Path | None = None, progress: bool = True) -> None:
        """Train z_theta_m on own clean pictures, x_t at t in 1..t0, clipped ones mixed in under a flag."""
        config = self.config
        self._secret.fit(
            self._x,
            self._labels,
            config.training(config.images, hi=self._secret.hi, balanced=config.balanced),
            augment=mix_clipped(config.clip_mixing, config.C) if config.clip_mixing else None,
            folder=folder,
            progress=progress,
        )
        self.fitted = True

    def upload(self) -> dict[str, np.ndarray]:
        """Return sqrt(abar_t0) clip(x) + sqrt(1 - abar_t0) z of every picture, z drawn once, with the labels.

        Raises RuntimeError when called again: a second draw of z would be a second release, mu growing by sqrt(2).
        """
        if self._uploaded:
            raise RuntimeError(f"{self.name} has uploaded already: fresh noise on its pictures spends epsilon again")
        self._uploaded = True
        abar, x = self.config.alpha_bar, clipped(self._x, self.config.C)
        if self.config.secure:
            noise = SecureGaussianNoise()
        else:
            noise = GaussianNoise(torch_generator(self.config.seed, "upload-noise", self.name))
        z = noise.fill_(torch.empty(x.shape), 1.0)
        return {"images": (math.sqrt(abar) * x + math.sqrt(1 - abar) * z).numpy(), "labels": self._labels.numpy()}

    def mark_uploaded(self) -> None:
        """Take note that an upload was made earlier, with noise that cannot be drawn again."""
        self._uploaded = True

    def receive(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take up the weights of z_w."""
        self._global = {name: torch.from_numpy(value) for name, value in weights.items()}

    def continue_from(self, earlier: "PFDMClient") -> None:
        """Take up what an earlier run on the same pictures left: the upload that was made, and z_w."""
        same = self._x.shape == earlier._x.shape and torch.equal(self._labels, earlier._labels)
        if not (same and torch.equal(self._x, earlier._x)):
            raise ValueError(f"{self.name} has other pictures than in the run whose uploads it should share")
        self._uploaded, self._global = earlier._uploaded, earlier._global

    def global_stage(
        self, labels: torch.Tensor, *, seed: int, steps: int | None, sampler: str, noise_aware: bool
    ) -> torch.Tensor:
        """Return starts at step t0, (n, c, h, w): z_w walked back from N(0, I) to what it took for clean pictures."""
        if self._global is None:
            raise ValueError("this run has no global denoiser (global_images=0): choose another start")
        model = global_denoiser(self.config, tuple(self._x.shape[1:]), self.classes, self.device)
        model.network.load_state_dict(self._global)
        known = 1 - self.config.alpha_bar if noise_aware else 0.0
        stream = ("sampling", "global", self.name)
        return model.draw(labels, seed=seed, stream=stream, steps=steps, sampler=sampler, known_noise=known)

    def local_stage(
        self, starts: torch.Tensor, labels: torch.Tensor, *, seed: int, steps: int | None, sampler: str
    ) -> torch.Tensor:
        """Return pictures in [-1, 1] that z_theta_m makes of starts at step t0, asked for unclipped ones."""
        if not self.fitted:
            raise ValueError(f"{self.name}'s local denoiser was not trained: it is not among fit_clients")
        walk = dict(steps=steps, start=self.config.t0, sampler=sampler)
        x = self._secret.draw(labels, seed=seed, stream=("sampling", "local", self.name), starts=starts, **walk)
        return self._space.leave(x)

    def loss_per_record(
        self, images: torch.Tensor, labels: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return z_theta_m's loss of pictures in [-1, 1] at indices t (n, K) < t0 and noise (n, K, c, h, w), (n,).

        What an adversary scores who got hold of the client's model; the protocol never sends it anywhere.
        """
        return self._secret.loss_per_record(self._space.enter(images), labels, t, noise)

    def clean_pictures(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return clipped clean pictures and labels, for the oracles of the ladder only: no part of the protocol."""
        return clipped(self._x, self.config.C), self._labels

    @property
    def history(self):
        """Frame of step and loss of z_theta_m's training (private: computed on clean pictures)."""
        return self._secret.history

    @property
    def images_seen(self) -> int:
        """Training pictures that z_theta_m has seen."""
        return self._secret.images_seen

    def summary(self) -> dict:
        """Return the client's own state (for its own disk, or the cache of an experiment)."""
        return self._secret.summary()

    def restore(self, summary: dict) -> None:
        """Take up a `summary`."""
        self._secret.restore(summary)
        self.fitted = True


class PFDMServer:
    """The server: uploads as they came, and z_w, trained on them alone."""

    def __init__(self, config: PFDMConfig, shape: Shape, classes: int, device: str):
        self.config, self.classes = config, classes
        self.denoiser = None if config.global_images == 0 else global_denoiser(config, shape, classes, device)
        self._received: dict[str, dict[str, np.ndarray]] = {}
        self._pooled: Uploads | None = None

    def receive(self, sender: str, message: dict[str, np.ndarray]) -> None:
        """Keep one client's upload; ValueError when there is one of this sender."""
        if sender in self._received:
            raise ValueError(f"{sender} has uploaded already: every client uploads once")
        self._received[sender], self._pooled = message, None

    @property
    def uploads(self) -> Uploads:
        """All uploads, pooled in the order in which they came."""
        if self._pooled is None:
            parts = list(self._received.values())
            counts = torch.tensor([len(part["labels"]) for part in parts])
            self._pooled = Uploads(
                images=torch.cat([torch.from_numpy(part["images"]) for part in parts]),
                labels=torch.cat([torch.from_numpy(part["labels"]) for part in parts]),
                clients=torch.arange(len(parts)).repeat_interleave(counts),
            )
        return self._pooled

    def fit_global(self, *, folder: Path | None = None, progress: bool = True) -> None:
        """Train z_w on the pooled uploads, taken for clean pictures, at every step of its schedule."""
        pooled, images = self.uploads, self.config.shared["global_images"]
        training = self.config.training(images)
        self.denoiser.fit(pooled.images, pooled.labels, training, folder=folder, progress=progress)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights of z_w as they are sent."""
        return {name: value.numpy() for name, value in self.denoiser.state().items()}
