"""Comparisons that the PFDM notebooks share: methods pair by pair, what is read for what, how far clients differ."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from feddiff.data import images
from feddiff.evaluation import image_quality
from feddiff.experiments import records
from feddiff.experiments.pfdm_study import Setting
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.pfdm import PFDMConfig

# Pairs are compared in these; the first is better when larger, the second when smaller.
COMPARED = ("label_accuracy", "frechet")
# The classifier of noised pictures takes [-1, 1]: four standard deviations of the noise fit into it.
SHRINK = 4.0
# Clients count as alike where a classifier is at most this far above chance (two clients: .55).
ALIKE = 0.05


def difference(
    run: records.Run, of: Mapping[tuple[str, str], float], minus: Mapping[tuple[str, str], float], /, **labels
) -> dict[tuple[str, str], float]:
    """Record `of` less `minus`, both (metric, group) -> value of one seed, as <metric>_difference; return them."""
    found = {}
    for metric, group in of:
        if metric in COMPARED:
            found[metric, group] = of[metric, group] - minus[metric, group]
            run.metric(f"{metric}_difference", found[metric, group], group=group, **labels)
    return found


def holdings(run: records.Run, setting: Setting) -> None:
    """Record how many pictures of each class every client holds (public, as labels are)."""
    for client, own in enumerate(setting.clients):
        for label, count in enumerate(np.bincount(own.labels.numpy(), minlength=setting.classes)):
            run.metric("pictures_held", int(count), client=client, asked=label)


def confusions(run: records.Run, setting: Setting, samples: torch.Tensor, *, client: int, **labels) -> np.ndarray:
    """Record and return, for each class asked for, the shares of pictures that the judge reads as each class."""
    counts = image_quality.confusion(setting.judge, samples, setting.labels.numpy())
    shares = counts / counts.sum(axis=1, keepdims=True)
    for asked, row in enumerate(shares):
        for read, share in enumerate(row):
            run.metric("confusion", float(share), client=client, asked=asked, read=read, **labels)
    return shares


def separation(
    run: records.Run, setting: Setting, config: PFDMConfig, times: Sequence[int], *, steps: int = 600
) -> dict[int, tuple[float, float]]:
    """Record how well classifiers tell noised pictures apart at steps t of the schedule; return t -> (client, class).

    Two LeNets a step (t = 0: clean), trained on one half of every client's pictures and tested on the other: one names
    the client that holds a picture, one its class. Shares in [0, 1], mean over clients and over classes (chance is one
    over their number). What clients can share while they look alike is class_accuracy_where_alike: the classes at the
    first t at which the client is named within ALIKE of chance.
    """
    halves = [_halves(setting, client) for client in range(len(setting.clients))]
    pictures, labels, owners = [], [], []
    for half in range(2):
        rows = [own[half] for own in halves]
        pictures.append(torch.cat([c.images[r] for c, r in zip(setting.clients, rows, strict=True)]))
        labels.append(np.concatenate([c.labels.numpy()[r] for c, r in zip(setting.clients, rows, strict=True)]))
        owners.append(np.repeat(np.arange(len(rows)), [len(r) for r in rows]))
    found = {}
    for t in times:
        x = [_noised(half, config, t, torch_generator(setting.seed, "separation", t, place))
             for place, half in enumerate(pictures)]
        told = [
            image_quality.tstr(x[0], names[0], x[1], names[1], classes=count, seed=setting.seed, steps=steps,
                               progress=False).balanced_accuracy
            for names, count in ((owners, len(halves)), (labels, setting.classes))
        ]
        for name, value in zip(("client_accuracy", "class_accuracy"), told, strict=True):
            run.metric(name, value, t=t)
        found[t] = tuple(told)
    alike = [t for t in sorted(found) if found[t][0] <= 1 / len(halves) + ALIKE]
    kept = found[alike[0]][1] if alike else None
    run.metric("class_accuracy_where_alike", kept, reason="clients differ at every t that was looked at")
    return found


def _halves(setting: Setting, client: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two halves of a client's rows, every class halved; of an odd class the first half has one more."""
    generator, labels = numpy_generator(setting.seed, "halves", client), setting.clients[client].labels.numpy()
    parts = [generator.permutation(np.flatnonzero(labels == label)) for label in range(setting.classes)]
    first, second = ([part[half::2] for part in parts] for half in range(2))
    return np.concatenate(first), np.concatenate(second)


def _noised(pictures: torch.Tensor, config: PFDMConfig, t: int, generator: torch.Generator) -> torch.Tensor:
    if not 0 <= t <= config.T:
        raise ValueError(f"t must lie in 0..{config.T}, got {t}")
    abar = 1.0 if t == 0 else float(config.schedule.alpha_bar[t - 1])
    noise = torch.randn(pictures.shape, generator=generator)
    return (abar**0.5 * pictures + (1 - abar) ** 0.5 * noise) / SHRINK
