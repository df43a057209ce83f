"""Clients of an image federation: labelled pictures that stay where they are, checked before any work starts."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from feddiff.diffusion.autoencoder import ConvAutoencoder

# Names of other parties and of models, in messages and in files of checkpoints.
RESERVED = ("server", "global", "centralised", "fedavg")


@dataclass(frozen=True, eq=False)
class ImageClient:
    """Pictures of one data holder: images float32 (n, c, h, w) in [-1, 1] with h == w, labels int64 (n,)."""

    images: torch.Tensor
    labels: torch.Tensor
    name: str = ""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Members:
    """The clients of a run with what is public of them: names, picture shape (c, h, w), number of classes."""

    clients: tuple[ImageClient, ...]
    classes: int

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names, in order."""
        return tuple(client.name for client in self.clients)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every picture."""
        return tuple(self.clients[0].images.shape[1:])

    def position(self, client: int | str) -> int:
        """Return the position of a client given by position or name; ValueError when there is none such."""
        if isinstance(client, str) and client in self.names:
            return self.names.index(client)
        if isinstance(client, int) and not isinstance(client, bool) and 0 <= client < len(self.names):
            return client
        raise ValueError(f"no client {client!r}; there are {', '.join(self.names)} (or 0..{len(self.names) - 1})")

    def codes(self, labels: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Return labels to sample as int64 (n,); ValueError unless each is one of the classes."""
        codes = torch.as_tensor(labels)
        if codes.dim() != 1 or not len(codes) or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"labels must be a non-empty sequence of class numbers, got {type(labels).__name__} "
                             f"of shape {tuple(codes.shape)} and {codes.dtype}")
        codes = codes.long().cpu()
        if not 0 <= int(codes.min()) <= int(codes.max()) < self.classes:
            raise ValueError(f"labels must lie in 0..{self.classes - 1}, got {int(codes.min())}..{int(codes.max())}")
        return codes


def members(clients: Sequence, classes: int | None = None) -> Members:
    """Return checked clients; each is an ImageClient or a pair (images, labels) of tensors or arrays.

    Clients without a name are called client-0, client-1, ... ValueError names the client and what is wrong with it:
    shapes, type, values outside [-1, 1], labels outside the classes, a class of which no client has a picture.
    """
    if isinstance(clients, (torch.Tensor, ImageClient)) or not len(clients):
        raise ValueError("clients must be a list of at least one ImageClient or (images, labels); wrap a single one")
    found = tuple(_client(k, given) for k, given in enumerate(clients))
    names = [client.name for client in found]
    if len(set(names)) < len(names):
        raise ValueError(f"clients must have distinct names, got {names}")
    for name in names:
        if name in RESERVED or not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"client name {name!r}: use letters, digits, '.', '-' and '_', and none of {RESERVED}")
    for client in found:
        if client.images.shape[1:] != found[0].images.shape[1:]:
            raise ValueError(
                f"{client.name} has pictures of shape {tuple(client.images.shape[1:])}, {found[0].name} of "
                f"{tuple(found[0].images.shape[1:])}; resize them alike"
            )
    labels = torch.cat([client.labels for client in found])
    highest = int(labels.max()) + 1
    classes = highest if classes is None else classes
    for client in found:
        if int(client.labels.max()) >= classes:
            raise ValueError(f"{client.name} has label {int(client.labels.max())}, but there are {classes} classes")
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    if absent:
        raise ValueError(
            f"no client has a picture of class {', '.join(map(str, absent))}; number the classes 0, 1, ... without "
            "gaps, or leave these out"
        )
    return Members(clients=found, classes=classes)


@dataclass(frozen=True)
class PixelSpace:
    """Pictures are diffused as they are, in the range `values` of the configuration: "[-1, 1]" or "[0, 1]"."""

    values: str
    latent = False

    def shape(self, pictures: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of one picture's code: its own."""
        return pictures

    def enter(self, images: torch.Tensor) -> torch.Tensor:
        """Return pictures in [-1, 1] mapped to the range."""
        return images if self.values == "[-1, 1]" else (images + 1) / 2

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inverse of `enter`, limited to [-1, 1]."""
        return (x if self.values == "[-1, 1]" else 2 * x - 1).clamp(-1, 1)


@dataclass(frozen=True)
class LatentSpace:
    """Pictures are diffused as standardised codes of an autoencoder that all clients have."""

    autoencoder: ConvAutoencoder
    latent = True

    def shape(self, pictures: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of one picture's code; ValueError for pictures that the autoencoder was not built for."""
        wanted = (self.autoencoder.channels, self.autoencoder.size, self.autoencoder.size)
        if pictures != wanted:
            raise ValueError(f"the autoencoder takes pictures of shape {wanted}, the clients have {pictures}")
        return self.autoencoder.latent_shape

    def enter(self, images: torch.Tensor) -> torch.Tensor:
        """Return the codes of pictures in [-1, 1]."""
        return self.autoencoder.encode(images)

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pictures of codes, limited to [-1, 1]."""
        return self.autoencoder.decode(x).clamp(-1, 1)


Space = PixelSpace | LatentSpace


def clipped(x: torch.Tensor, C: float | None) -> torch.Tensor:
    """Return x min(1, C / ||x||_2), picture by picture (None: as it is): the projection onto the ball of radius C."""
    if C is None:
        return x
    norms = x.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    return x * (C / norms).clamp(max=1.0).reshape(-1, *[1] * (x.dim() - 1))


def _client(k: int, given: ImageClient | tuple) -> ImageClient:
    if not isinstance(given, ImageClient):
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(f"client {k} must be an ImageClient or a pair (images, labels), got {type(given).__name__}")
        given = ImageClient(*given)
    name = given.name or f"client-{k}"
    images, labels = torch.as_tensor(given.images), torch.as_tensor(given.labels)
    if images.dtype != torch.float32 or images.dim() != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"{name}: images must be float32 (n, channels, side, side) in [-1, 1], got {images.dtype} "
            f"{tuple(images.shape)}; stored pictures (n, h, w, c) go through data.images.to_tensor"
        )
    if not len(images):
        raise ValueError(f"{name} has no pictures; leave it out of the federation")
    low, high = float(images.min()), float(images.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= -1 and high <= 1):
        raise ValueError(f"{name}: images must lie in [-1, 1], got {low:g}..{high:g}; the clip norm relies on it")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"{name}: labels must be integers of shape ({len(images)},), one a picture, got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    if int(labels.min()) < 0:
        raise ValueError(f"{name}: labels must be >= 0, got {int(labels.min())}")
    return ImageClient(images=images, labels=labels.long(), name=name)
