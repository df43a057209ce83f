"""Fairness downstream: classifiers trained on what each client has or draws, tested on real pictures class by class."""

from collections.abc import Sequence

import numpy as np
import torch

from feddiff.experiments import pfdm_study as study, records
from feddiff.experiments.pfdm_study import Setting

# A training set: pictures float32 (n, c, h, w) in [-1, 1] and labels int64 (n,).
Labelled = tuple[torch.Tensor, np.ndarray]


def training_sets(setting: Setting, *, first: int | None = None) -> dict[str, list[Labelled]]:
    """Return what needs no generator, method -> one set a client (the first so many): the ceiling and two floors.

    real_pictures: real ones that no client holds (where enough are left), as many as every method draws.
    own_pictures: all that a client holds, as it is. own_repeated: as many of every class as methods draw, rare ones
    repeated.
    """
    labels, clients = setting.labels.numpy(), range(len(setting.clients[:first]))
    return {
        "real_pictures": [(study.real(setting), labels)] * len(clients),
        "own_pictures": [(setting.clients[k].images, setting.clients[k].labels.numpy()) for k in clients],
        "own_repeated": [(study.real(setting, k), labels) for k in clients],
    }


def classify(
    run: records.Run, setting: Setting, sets: Sequence[Labelled], *, steps: int, **labels
) -> dict[str, float]:
    """Train a classifier of `steps` batches on each client's set, record what it is worth to that client, return means.

    Recorded for each client and, as client "all", for their mean: accuracy, recall of the worst class, best less worst
    class, mean recall of the classes of many and of few pictures; for each client the recall of every class.
    """
    each = []
    for client, (images, own) in enumerate(sets):
        found = study.downstream(run, setting, images, own, client=client, steps=steps, **labels)
        for asked, recall in enumerate(found.recalls):
            run.metric("class_recall", recall, client=client, asked=asked, **labels)
        groups = {f"{name}_recall": found.group(classes) for name, classes in setting.groups(client).items()}
        each.append({"accuracy": found.accuracy, "worst_recall": found.worst_recall, "recall_gap": found.gap, **groups})
    means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    for name, value in means.items():
        run.metric(name, value, client="all", **labels)
    return means
