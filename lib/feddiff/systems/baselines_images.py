"""What PFDM is measured against on pictures: the same U-Net and the same number of training pictures, other sharing.

- centralised: one model of the pooled clean pictures; no privacy, the ceiling.
- local_only: one model a client, of its own pictures; nothing is shared. With class-balanced batches, and with what
  PFDM's local stage has beside its start (clipped pictures under a flag, steps 1..t0), so that these can be told apart
  from what the server adds.
- fedavg: federated averaging of a diffusion model (FedDM, Vora et al. 2024; McMahan et al. 2017); no privacy.
- dp_sgd: DP-SGD with noise multiplicity K (DPDM, Dockhorn et al. 2023), one model a client or one federated;
  (epsilon, delta) per picture, label included, against whoever sees the weights.
- fedavg_dp: federated averaging where each client clips and noises its own move before it is sent; (epsilon, delta)
  per client, hence for each of its pictures too, against the server as well (no trusted party, as in PFDM).

Budget: every model is trained on config.images pictures, those of a federation split over its clients; K draws a
picture multiply the network's inputs, not its pictures.
"""

import copy
from pathlib import Path

import pandas as pd
import torch

from feddiff.federation.rounds import Federation
from feddiff.privacy import accounting
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems.image_baseline import SHARED, Clients, ImageBaseline, from_state, joined, statement, without_dp
from feddiff.systems.image_clients import ImageClient, Members, PixelSpace, members
from feddiff.systems.image_denoisers import Denoiser, denoiser, mix_clipped
from feddiff.systems.image_federation import ImageMember, NoisyMember, RoundsConfig, federate
from feddiff.systems.pfdm_config import RANGES, PFDMConfig

__all__ = [
    "ImageBaseline", "RoundsConfig", "centralised", "dp_sgd", "fedavg", "fedavg_dp", "from_state", "local_only",
]


def centralised(
    clients: Clients,
    config: PFDMConfig,
    *,
    balanced: bool = False,
    device: str = "cpu",
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> ImageBaseline:
    """Train one model on the pooled clean pictures of all clients. balanced: class-balanced batches."""
    found = members(clients, config.classes)
    pooled = ImageClient(
        images=torch.cat([client.images for client in found.clients]),
        labels=torch.cat([client.labels for client in found.clients]),
        name="centralised",
    )
    model = denoiser("centralised", config, found.shape, found.classes, device=device)
    _fit(model, pooled, config, balanced, checkpoint, progress)
    return _plain("centralised", config, found, {SHARED: model}, {SHARED: model.history})


def local_only(
    clients: Clients,
    config: PFDMConfig,
    *,
    balanced: bool = False,
    clip_mixing: bool = False,
    local_range: str = "T",
    device: str = "cpu",
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> ImageBaseline:
    """Train one model a client on its own clean pictures; nothing is sent.

    balanced: class-balanced batches. clip_mixing, local_range: as PFDM's local stage has them (clipped pictures under a
    flag; steps "t0" or "T"); with both, and "t0", the models are PFDM's own local denoisers and start from N(0, I).
    """
    if local_range not in RANGES:
        raise ValueError(f"local_range must be one of {RANGES}, got {local_range!r}")
    if clip_mixing and not config.clip_mixing:
        raise ValueError("clip_mixing=True takes its share from the configuration, where clip_mixing is 0")
    found, models = members(clients, config.classes), {}
    for client in found.clients:
        hi = config.t0 if local_range == "t0" else config.T
        models[client.name] = denoiser(
            client.name, config, found.shape, found.classes, hi=hi, flag=clip_mixing, device=device
        )
    for client in found.clients:
        _fit(models[client.name], client, config, balanced, checkpoint, progress)
    return _plain("local only", config, found, models, {name: model.history for name, model in models.items()})


def fedavg(
    clients: Clients,
    config: PFDMConfig,
    rounds: RoundsConfig | None = None,
    *,
    device: str = "cpu",
    progress: bool = True,
) -> ImageBaseline:
    """Train one model by federated averaging of weights (or another strategy of `rounds`), without privacy."""
    rounds = rounds or RoundsConfig()
    found = members(clients, config.classes)
    model = denoiser("fedavg", config, found.shape, found.classes, device=device)
    rounds_of = rounds.horizon(config.images, len(found.clients))
    parties = [
        ImageMember(_copy(model), client, rounds, total_steps=rounds_of[0] * rounds_of[1]) for client in found.clients
    ]
    run = federate(model, parties, rounds, horizon=rounds_of, ledger=None, progress=progress)
    return _federated("FedAvg", config, found, model, run, without_dp(found, config))


def dp_sgd(
    clients: Clients,
    config: PFDMConfig,
    rounds: RoundsConfig | None = None,
    *,
    epsilon: float,
    federated: bool,
    device: str = "cpu",
    progress: bool = True,
) -> ImageBaseline:
    """Train by DP-SGD to (epsilon, config.delta) per picture of a client, K noise draws a picture.

    federated: one model, averaged every round; else one model a client, which no other client helps.
    """
    rounds = rounds or RoundsConfig(K=4)
    found = members(clients, config.classes)
    ledger = PrivacyLedger(clients=found.names, delta=config.delta, unit="image")
    rounds_of = rounds.horizon(config.images, len(found.clients) if federated else 1)
    steps = rounds_of[0] * rounds_of[1]
    names = ["fedavg"] if federated else list(found.names)
    models = {name: denoiser(name, config, found.shape, found.classes, device=device) for name in names}

    def party(model: Denoiser, client: ImageClient) -> ImageMember:
        _enough(client, rounds)
        sigma = accounting.noise_multiplier(
            target_epsilon=epsilon, sample_rate=rounds.B / len(client), steps=steps, delta=config.delta
        )
        return ImageMember(_copy(model), client, rounds, total_steps=steps, noise_multiplier=sigma)

    if federated:
        model = models["fedavg"]
        parties = [party(model, client) for client in found.clients]
        run = federate(model, parties, rounds, horizon=rounds_of, ledger=ledger, progress=progress)
        return _federated("DP-SGD, federated", config, found, model, run, statement(run.ledger))
    histories = {}
    parties = [party(models[client.name], client) for client in found.clients]
    for member in parties:
        run = federate(models[member.name], [member], rounds, horizon=rounds_of, ledger=ledger, progress=progress)
        histories[member.name] = pd.DataFrame(run.history)
        models[member.name].images_seen = steps * rounds.B
    return ImageBaseline(
        name="DP-SGD, a model a client",
        config=config,
        members=found,
        models=models,
        privacy=statement(ledger),
        budget={name: model.images_seen for name, model in models.items()},
        history=joined(histories),
    )


def fedavg_dp(
    clients: Clients,
    config: PFDMConfig,
    rounds: RoundsConfig | None = None,
    *,
    epsilon: float,
    device: str = "cpu",
    progress: bool = True,
) -> ImageBaseline:
    """Train by federated averaging of moves that each client clips and noises: (epsilon, config.delta) per client.

    A client's whole holding may be replaced, so that one round has sensitivity 2 move_norm; the rounds compose. Fewer
    rounds than without noise pay.
    """
    rounds = rounds or RoundsConfig(R=10)
    found = members(clients, config.classes)
    model = denoiser("fedavg", config, found.shape, found.classes, device=device)
    rounds_of = rounds.horizon(config.images, len(found.clients))
    sigma = accounting.noise_multiplier(
        target_epsilon=epsilon, sample_rate=1.0, steps=rounds_of[0], delta=config.delta, adjacency="replace-one"
    )
    ledger = PrivacyLedger(clients=found.names, delta=config.delta, unit="client", adjacency="replace-one")
    for name in found.names:
        ledger.spend_sgm(name, sample_rate=1.0, noise_multiplier=sigma, steps=rounds_of[0])
    parties = [
        NoisyMember(
            _copy(model),
            client,
            rounds,
            total_steps=rounds_of[0] * rounds_of[1],
            move_norm=rounds.move_norm,
            move_noise=sigma,
        )
        for client in found.clients
    ]
    run = federate(model, parties, rounds, horizon=rounds_of, ledger=None, progress=progress)
    said = statement(ledger) | {
        "model": "local: every move is clipped and noised before it leaves its client",
        "sampling": "none: every client takes part in every round",
        "public": ["number of pictures of each client"],
    }
    return _federated("FedAvg with noised moves", config, found, model, run, said)


def _fit(
    model: Denoiser,
    client: ImageClient,
    config: PFDMConfig,
    balanced: bool,
    checkpoint: str | Path | None,
    progress: bool,
) -> None:
    model.fit(
        PixelSpace(config.values).enter(client.images),
        client.labels,
        config.training(config.images, hi=model.hi, balanced=balanced),
        augment=mix_clipped(config.clip_mixing, config.C) if model.flag else None,
        folder=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )


def _copy(model: Denoiser) -> Denoiser:
    """Return the model as a client gets it: its own network, with the same initial weights."""
    return Denoiser(model.name, copy.deepcopy(model.network), model.schedule, model.config, hi=model.hi,
                    device=model.device)


def _enough(client: ImageClient, rounds: RoundsConfig) -> None:
    if len(client) < rounds.B:
        raise ValueError(f"{client.name} has {len(client)} pictures, fewer than the batch B={rounds.B}; lower B")


def _plain(
    name: str, config: PFDMConfig, found: Members, models: dict[str, Denoiser], histories: dict[str, pd.DataFrame]
) -> ImageBaseline:
    return ImageBaseline(
        name=name,
        config=config,
        members=found,
        models=models,
        privacy=without_dp(found, config),
        budget={owner: model.images_seen for owner, model in models.items()},
        history=joined(histories),
    )


def _federated(
    name: str, config: PFDMConfig, found: Members, model: Denoiser, run: Federation, privacy: dict
) -> ImageBaseline:
    model.images_seen = sum(member.steps_taken * member.training.batch_size for member in run.clients)
    return ImageBaseline(
        name=name,
        config=config,
        members=found,
        models={SHARED: model},
        privacy=privacy,
        budget={SHARED: model.images_seen},
        history=joined({SHARED: pd.DataFrame(run.history)}),
        nbytes=run.channel.nbytes(),
    )
