"""Where the local stage may start: substitutes for the global denoiser that use the same public uploads, or cheat.

What the server really adds is a question of starts: one fixed local denoiser, begun at step t0 from N(0, I), from a
Gaussian with the class mean of the uploads, from one with their covariance too, from the uploads themselves, or from
the global denoiser. All of these are post-processing of the uploads and cost no further privacy. Two oracles, which
see clean pictures, bound what any server could add.
"""

import math
from dataclasses import dataclass

import torch

STARTS = ("noise", "class_mean", "class_gaussian", "global", "uploads", "oracle", "clean_global")
ORACLES = ("oracle", "clean_global")


@dataclass(frozen=True, eq=False)
class Uploads:
    """What the server holds: noised pictures (n, c, h, w) float32, labels (n,) int64, and who sent each, int64 (n,)."""

    images: torch.Tensor
    labels: torch.Tensor
    clients: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, label: int) -> torch.Tensor:
        """Return the uploads of one class; ValueError when nobody has any."""
        found = self.images[self.labels == label]
        if not len(found):
            raise ValueError(f"class {label} has no upload: no client has a picture of it")
        return found


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """A Gaussian for each class at step t0: means (classes, d), directions scaled by their standard deviation.

    A draw is mean + directions w + sqrt(noise) z with w, z ~ N(0, I). directions: one (d, k) a class.
    """

    means: torch.Tensor
    directions: dict[int, torch.Tensor]
    noise: float
    shape: tuple[int, ...]

    def draw(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return one start at step t0 for each label, (n, c, h, w)."""
        z = torch.randn(len(labels), self.means.shape[1], generator=generator)
        x = self.means[labels] + math.sqrt(self.noise) * z
        for label in sorted(self.directions):
            mine = torch.nonzero(labels == label).flatten()
            w = torch.randn(len(mine), self.directions[label].shape[1], generator=generator)
            x[mine] += w @ self.directions[label].T
        return x.reshape(-1, *self.shape)

    @property
    def values(self) -> int:
        """Numbers that a client has to receive to draw from them."""
        return self.means.numel() + sum(part.numel() for part in self.directions.values())


def class_gaussians(
    uploads: Uploads, labels: torch.Tensor, noise: float, *, components: int | None = 0
) -> ClassGaussians:
    """Return the Gaussians of the classes among `labels`, from the uploads' first two moments.

    noise: 1 - abar_t0, the variance that is known to be noise. components: how many principal directions of the
    covariance less noise I are kept (0: the mean alone; None: all). A direction counts only where its variance
    exceeds noise (1 + sqrt(d / n))^2, the most that n white uploads show by chance (Marchenko & Pastur 1967).
    """
    shape = tuple(uploads.images.shape[1:])
    d = math.prod(shape)
    present = sorted(set(labels.tolist()))
    means, directions = torch.zeros(max(present) + 1, d), {}
    for label in present:
        x = uploads.of_class(label).flatten(1)
        means[label] = x.mean(0)
        if components == 0 or len(x) < 2:
            continue
        centred = (x - means[label]).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
        variances, axes = variances.flip(0)[:components], axes.flip(1)[:, :components]
        kept = variances > noise * (1 + math.sqrt(d / len(x))) ** 2
        directions[label] = (axes[:, kept] * (variances[kept] - noise).sqrt()).float()
    return ClassGaussians(means=means, directions=directions, noise=noise, shape=shape)


def replay(uploads: Uploads, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a random upload of each label's class; one is used again only after all of its class were."""
    return uploads.images[_picked(uploads.labels, labels, generator)]


def noised(
    clean: torch.Tensor, own_labels: torch.Tensor, labels: torch.Tensor, alpha_bar: float, generator: torch.Generator
) -> torch.Tensor:
    """Return random clean pictures of each label's class with fresh noise of step t0: an oracle, no release."""
    x = clean[_picked(own_labels, labels, generator)]
    return math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * torch.randn(x.shape, generator=generator)


def _picked(available: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    rows = torch.empty(len(labels), dtype=torch.int64)
    for label in sorted(set(labels.tolist())):
        wanted = torch.nonzero(labels == label).flatten()
        own = torch.nonzero(available == label).flatten()
        if not len(own):
            raise ValueError(f"class {label} has no upload: no client has a picture of it")
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-len(wanted) // len(own)))]
        rows[wanted] = torch.cat(rounds)[: len(wanted)]
    return rows
