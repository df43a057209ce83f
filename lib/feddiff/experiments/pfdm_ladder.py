"""The ladder: one fixed local model, begun from everything that could stand in for PFDM's server."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from feddiff.evaluation import image_quality
from feddiff.experiments import pfdm_study as study, records
from feddiff.experiments.pfdm_compare import difference
from feddiff.experiments.pfdm_study import Setting
from feddiff.systems.image_baseline import ImageBaseline
from feddiff.systems.pfdm import PFDMRun
from feddiff.systems.pfdm_starts import ORACLES, STARTS

# What is claimed of the server is claimed as these differences, never against a model trained alone.
PAIRS = (
    ("global", "noise"), ("global", "class_mean"), ("global", "class_gaussian"), ("global", "uploads"),
    ("uploads", "noise"), ("oracle", "noise"), ("clean_global", "noise"),
)


@dataclass(frozen=True, eq=False)
class Rung:
    """One start: the states x at step t0 and the pictures made of them, one tensor a client; the mean scores."""

    starts: list[torch.Tensor]
    samples: list[torch.Tensor]
    scores: dict[tuple[str, str], float]


def climb(
    run: records.Run, setting: Setting, model: PFDMRun, *, reference: ImageBaseline, steps: int | None,
    local_steps: int | None, first: int | None = None,
) -> dict[str, Rung]:
    """Judge one PFDM run from every start of STARTS and record each rung and the paired differences, under its t0.

    reference: the model of pooled clean pictures that "clean_global" draws from. steps: of it and of the global stage;
    local_steps: of the local one (None: all). All rungs share labels, local denoisers and the local stage's noise.
    first: only so many clients draw. Beside the scores: start_accuracy, what the judge reads in the start itself
    (divided by sqrt(abar_t0)); start_std; start_bytes, what a client has to receive before it can draw.
    """
    t0, found = model.config.t0, {}
    clients = model.clients[: len(setting.clients[:first])]
    walk = dict(seed=setting.seed, steps=None if local_steps is None else min(local_steps, t0), sampler="ancestral")
    for start in STARTS:
        cheat = dict(reference=reference) if start == "clean_global" else {}
        states = [model.starts(client.name, setting.labels, seed=setting.seed, start=start, steps=steps, **cheat)
                  for client in clients]
        samples = [client.local_stage(x, setting.labels, **walk) for client, x in zip(clients, states, strict=True)]
        scores = study.judge_all(run, setting, samples, start=start, t0=t0)
        found[start] = Rung(states, samples, scores)
        read = [_accuracy(setting, x / math.sqrt(model.config.alpha_bar)) for x in states]
        run.metric("start_accuracy", float(np.mean(read)), start=start, t0=t0)
        run.metric("start_std", float(np.mean([float(x.std()) for x in states])), start=start, t0=t0)
        if start not in ORACLES:
            run.metric("start_bytes", model.start_nbytes(start), start=start, t0=t0)
    for of, minus in PAIRS:
        names, pair = dict(of=of, minus=minus, t0=t0), (found[of].scores, found[minus].scores)
        difference(run, *pair, **names)
        for group in setting.groups(0):
            change = 100 * (pair[0]["frechet", group] / pair[1]["frechet", group] - 1)
            run.metric("frechet_change_percent", change, group=group, **names)
    return found


def _accuracy(setting: Setting, pictures: torch.Tensor) -> float:
    return image_quality.label_accuracy(setting.judge, pictures.clamp(-1, 1), setting.labels.numpy()).value
