"""Whose records are they? The owner of records from one upload of each client of DP-Fed-FinDiff.

The adversary is the server: it knows weights, codec and configuration, sees every client's upload, and holds records
of one client. Clients that differ by construction are the claim, clients with equal draws of the same rows the control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from feddiff.attacks import source_inference
from feddiff.evaluation.statistics import Estimate
from feddiff.experiments import records
from feddiff.experiments.findiff_study import Federation
from feddiff.federation.client import Client, load_flat_weights
from feddiff.privacy import accounting
from feddiff.seeds import derive, numpy_generator, torch_generator
from feddiff.systems import findiff
from feddiff.systems.findiff import FinDiffRun


def within(setting: Federation, config: findiff.FinDiffConfig, updates: int) -> findiff.FinDiffConfig:
    """Return `config` with the noise that keeps its epsilon over training and an upload of `updates` steps after it.

    One noise multiplier for all clients: that of the smallest, whose records are sampled most often.
    """
    smallest = min(len(client) for client in setting.clients)
    sigma = accounting.noise_multiplier(
        target_epsilon=config.epsilon, sample_rate=config.B / smallest, steps=config.R * config.S + updates,
        delta=config.delta,
    )
    return replace(config, noise_multiplier=sigma)


def known_rows(held_out: pd.DataFrame, train: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return the held-out rows whose categories all occur in training: the codec knows no others."""
    known = np.ones(len(held_out), dtype=bool)
    for column, kind in kinds.items():
        if kind in ("categorical", "boolean"):
            known &= held_out[column].isin(train[column].unique()).to_numpy()
    return held_out[known].reset_index(drop=True)


def uploads(model: FinDiffRun, updates: int, *, seed: int) -> list[torch.Tensor]:
    """Return the weights that every client uploads after one more round, with random draws of its own.

    The learning rate is that of the middle of training (at its end it is nothing), the optimiser's state is new. The
    steps are entered in the model's ledger: its statement covers them.
    """
    weights, sent = model.federation.weights(), []
    for client in model.federation.clients:
        sent.append(_upload(client, weights, updates, seed))
        if client.noise_multiplier is not None:
            model.federation.ledger.spend_sgm(client.name, sample_rate=client.sample_rate, steps=updates,
                                              noise_multiplier=client.noise_multiplier)
    return sent


def whose(
    run: records.Run, model: FinDiffRun, sent: Sequence[torch.Tensor], groups: Sequence[int],
    reference: pd.DataFrame, *, rows: int, draws: int, seed: int, **labels,
) -> dict[int, Estimate]:
    """Record how often the owner of records is found by the smallest loss over the uploads, by records a guess.

    groups: so many records of one owner a guess. source_accuracy, its chance, source_advantage, what is above it, and
    source_accuracy_plain, without calibration (Hu et al. 2021). `rows` of every client, and the held-out rows
    `reference` that calibrate the clients against each other, are scored at `draws` fixed times and noises, equal for
    every record and upload.
    """
    members = model.federation.clients
    every = [numpy_generator(seed, "attack", "members", k).permutation(c.rows)[:rows] for k, c in enumerate(members)]
    owners = np.repeat(np.arange(len(members)), [len(part) for part in every])
    generator = torch_generator(seed, "attack", "scores")
    dim, T = model.head.space.dim, model.config.T
    t, noise = torch.randint(T, (1, draws), generator=generator), torch.randn(1, draws, dim, generator=generator)
    parts = [(own.codes[part], own.numbers[part], own.labels[part])
             for own, part in zip(model.prepared.rows, every, strict=True)]
    held = model.prepared.encode(reference, numpy_generator(seed, "attack", "ties"))
    losses = np.stack([_losses(model, weights, parts, t, noise) for weights in sent])
    held = [(held.codes, held.numbers, held.labels)]
    public = np.stack([_losses(model, weights, held, t, noise) for weights in sent])
    found = {}
    for size in groups:
        names = np.concatenate([k * rows + np.arange(len(part)) // size for k, part in enumerate(every)])
        truth = owners[np.unique(names, return_index=True)[1]]
        found[size] = source_inference.source_accuracy(source_inference.source(losses, public, names), truth)
        chance = float(np.bincount(truth).max() / len(truth))
        run.metric("source_accuracy", float(found[size].value), group=size, **labels)
        plain = source_inference.source_accuracy(source_inference.source(losses, groups=names), truth)
        run.metric("source_accuracy_plain", float(plain.value), group=size, **labels)
        run.metric("source_chance", chance, group=size, **labels)
        run.metric("source_advantage", float(found[size].value - chance), group=size, **labels)
    return found


@torch.no_grad()
def _losses(
    model: FinDiffRun, weights: torch.Tensor, parts: Sequence[tuple[torch.Tensor, ...]], t: torch.Tensor,
    noise: torch.Tensor,
) -> np.ndarray:
    """Return the loss of every record of all parts (codes, numbers, labels) under some weights."""
    load_flat_weights(model.network, weights)
    codes, numbers, labels = (torch.cat(same) for same in zip(*parts, strict=True))
    x0, n = model.head.space.embed(codes, numbers), len(labels)
    return model.head.loss(model.network, x0, codes, labels, t.expand(n, -1), noise.expand(n, -1, -1)).numpy()


def _upload(client: Client, weights: torch.Tensor, updates: int, seed: int) -> torch.Tensor:
    for name, generator in client.generators.items():
        generator.manual_seed(derive(seed, "attack", "upload", client.name, name))
    client.steps_taken, client.optimiser = client.training.total_steps // 2, client._new_optimiser()
    return client.update(weights, updates)[0]
