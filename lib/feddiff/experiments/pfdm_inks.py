"""Inks of coloured digits: whether a sample is of one ink, and whether the inks are those that its client holds."""

from collections.abc import Sequence

import numpy as np
import torch

from feddiff.evaluation.image_features import Judge
from feddiff.experiments import records
from feddiff.experiments.pfdm_study import Setting


def inks_all(
    run: records.Run, setting: Setting, samples: Sequence[torch.Tensor], **labels
) -> dict[tuple[str, str], float]:
    """Record the `scores` of each client's pictures of `setting.labels`, and their mean as client "all"; return it."""
    each = [scores(setting, own, client=client) for client, own in enumerate(samples)]
    means = {place: float(np.mean([found[place] for found in each])) for place in each[0]}
    for client, found in [*enumerate(each), ("all", means)]:
        for (metric, group), value in found.items():
            run.metric(metric, value, group=group, client=client, **labels)
    return means


def scores(setting: Setting, samples: torch.Tensor, *, client: int) -> dict[tuple[str, str], float]:
    """Return (metric, group) -> what pictures of `setting.labels` are as inks go, by group of the client's classes.

    ink_purity: mean share of a picture's light that its strongest channel has, 1/3 (grey) to 1 (every real picture).
    ink_distance: total variation, 0 to 1, between the inks that the judge reads in the pictures and those of the
    client's own. ValueError for a set without inks.
    """
    if setting.train.colours is None:
        raise ValueError(f"{setting.train.name} has no inks; choose colour-mnist or colour-mnist-5k")
    number = len(setting.train.colour_names)
    pure, read = purity(samples), _read(setting, samples, number)
    rows, asked = setting.parts[client].rows, setting.labels.numpy()
    own, held = setting.train.colours[rows], setting.train.labels[rows]
    found = {}
    for group, classes in setting.groups(client).items():
        part = np.isin(asked, classes)
        shares = [np.bincount(inks, minlength=number) / len(inks) for inks in (read[part], own[np.isin(held, classes)])]
        found["ink_purity", group] = float(pure[part].mean())
        found["ink_distance", group] = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return found


def purity(samples: torch.Tensor) -> np.ndarray:
    """Return the share of each picture's light that its strongest channel has; 1/3 for a black one. [-1, 1] is clamped.

    samples: (n, 3, h, w). Returns float64 (n,).
    """
    light = ((samples.double().clamp(-1, 1) + 1) / 2).sum(dim=(2, 3)).numpy()
    total = light.sum(axis=1)
    return np.where(total > 0, light.max(axis=1) / np.where(total > 0, total, 1), 1 / light.shape[1])


def _read(setting: Setting, samples: torch.Tensor, number: int) -> np.ndarray:
    # The judge of a coloured set sums its pairs over the inks; here they are summed over the classes.
    pairs = Judge.probabilities(setting.judge, samples)
    return pairs.reshape(len(pairs), setting.classes, number).sum(1).argmax(1)
