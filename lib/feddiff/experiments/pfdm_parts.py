"""Parts of PFDM taken apart for the notebooks on many clients (23) and on what breaks it (26).

Bytes of single messages; runs that take over the local denoisers of another run; clients whose pictures or labels
no longer fit those of the others.
"""

from dataclasses import replace

import numpy as np
import torch

from feddiff.diffusion.unet import unet
from feddiff.evaluation import image_quality
from feddiff.experiments.pfdm_study import Setting
from feddiff.federation.channel import Channel
from feddiff.seeds import torch_generator
from feddiff.systems import pfdm
from feddiff.systems.image_clients import ImageClient
from feddiff.systems.pfdm import PFDMConfig, PFDMRun

# What may be different about one client: the contrast of its pictures, or the names of its classes.
CHANGES = ("inverted", "relabelled")
# Training pictures of the papers' data sets, (number, channels, side).
PUBLISHED = {"MNIST": (60_000, 1, 28), "Colorized MNIST": (60_000, 3, 28), "CIFAR-10": (50_000, 3, 32),
             "CelebA-64": (162_770, 3, 64)}


def upload_nbytes(pictures: int, *, channels: int = 1, side: int = 28) -> int:
    """Return the bytes of one client's upload of so many grey or colour pictures, counted in the channel."""
    client = ImageClient(torch.zeros(pictures, channels, side, side), torch.zeros(pictures, dtype=torch.int64))
    config = PFDMConfig(network="tiny", classes=1, global_images=0)
    return pfdm.train([client], config, fit_clients=(), progress=False).nbytes


def model_nbytes(network: str, *, channels: int, side: int, classes: int = 10) -> int:
    """Return the bytes of a named network's weights as a message, float32, counted in the channel."""
    built = unet(network, channels=channels, size=side, classes=classes, schedule=PFDMConfig().schedule,
                 generator=torch_generator(0, "size"))
    channel = Channel()
    channel.send("server", "client", "weights", {name: value.numpy() for name, value in built.state_dict().items()})
    return channel.nbytes()


def break_even(upload: int, model: int, *, clients: int) -> float:
    """Return the rounds of federated averaging that send as many bytes as PFDM does in its one.

    PFDM: `upload` bytes from all clients together and one model to each. A round: one model to and from each client.
    """
    return (upload + clients * model) / (2 * clients * model)


def lend(run: PFDMRun, earlier: PFDMRun, client: int = 0) -> PFDMRun:
    """Return `run` with a client's local denoiser taken from an earlier run, where the same one would be trained.

    ValueError unless the client has the same pictures and labels and the local settings agree.
    """
    mine, theirs = run.clients[client], earlier.clients[client]
    own, other = mine.clean_pictures(), theirs.clean_pictures()
    same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(own, other, strict=True))
    one, two = (replace(part.config, stages="T + t0", global_images=None) for part in (run, earlier))
    if not same or one != two:
        raise ValueError(f"{mine.name}'s local denoiser of the earlier run was trained on other pictures or settings")
    mine.restore(theirs.summary())
    return run


def changed(setting: Setting, how: str, client: int = 1) -> Setting:
    """Return the setting with one client's pictures inverted (black for white), or its classes renamed.

    "relabelled": within each group of classes every class has the name of the next one. The pictures that judge stay
    as they were: they speak for the clients that were left alone.
    """
    if how not in CHANGES:
        raise ValueError(f"how must be one of {CHANGES}, got {how!r}")
    own, clients = setting.clients[client], list(setting.clients)
    if how == "inverted":
        clients[client] = replace(own, images=-own.images)
    else:
        clients[client] = replace(own, labels=torch.from_numpy(renamed(setting, client))[own.labels])
    return replace(setting, clients=tuple(clients), identity=f"{setting.identity} {how}={client}")


def renamed(setting: Setting, client: int = 1) -> np.ndarray:
    """Return the new name of each class under "relabelled": the next class of its group, in a circle."""
    names = np.arange(setting.classes)
    for group in setting.groups(client).values():
        if len(group):
            names[list(group)] = np.roll(group, -1)
    return names


def thinned(setting: Setting, label: int, kept: int) -> Setting:
    """Return the setting in which no client has more than the first `kept` pictures of one class."""
    if not 0 <= label < setting.classes or kept < 1:
        raise ValueError(f"label must lie in 0..{setting.classes - 1} and kept be at least 1, got {label} and {kept}")
    clients = []
    for own in setting.clients:
        extra = torch.nonzero(own.labels == label).flatten()[kept:]
        rest = torch.ones(len(own.labels), dtype=torch.bool)
        rest[extra] = False
        clients.append(replace(own, images=own.images[rest], labels=own.labels[rest]))
    return replace(setting, clients=tuple(clients), identity=f"{setting.identity} class {label}<={kept}")


def agreement(setting: Setting, client: int = 1) -> float:
    """Return the share of a client's pictures that the judge reads as what this client calls them, in [0, 1]."""
    own = setting.clients[client]
    return image_quality.label_accuracy(setting.judge, own.images, own.labels.numpy()).value


def class_accuracy(setting: Setting, samples: torch.Tensor, label: int) -> float:
    """Return the share of the samples of one class that the judge reads as that class, in [0, 1]."""
    own = setting.labels == label
    return image_quality.label_accuracy(setting.judge, samples[own], setting.labels[own].numpy()).value
