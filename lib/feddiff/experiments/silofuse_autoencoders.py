"""The silos' autoencoders taken by themselves: their widths, how well they generalise, what their latents give away."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge

from feddiff.data import silos as columns
from feddiff.evaluation import membership
from feddiff.experiments import cache, records, silofuse_judge
from feddiff.experiments.silofuse_splits import all_pairs
from feddiff.experiments.silofuse_study import DATA_CODE, Setting
from feddiff.seeds import numpy_generator
from feddiff.systems import silofuse
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import SiloFuseConfig
from feddiff.systems.silofuse_parties import SiloClient


def look(run: records.Run, setting: Setting, model: SiloFuseRun, *, known: int, **labels) -> dict[str, float]:
    """Record a SiloFuse run from its autoencoders on, and return the headline numbers.

    reconstruction of every column, sizes, what `known` rows reveal, and what the synthetic rows are worth.
    """
    synthetic = model.sample(setting.rows, seed=setting.seed)
    found = silofuse_judge.reconstruction(run, model, **labels)
    found |= sizes(run, setting, model, **labels) | leak(run, setting, model, known=known, **labels)
    found |= silofuse_judge.judge(run, setting, synthetic, useful=False, **labels)
    return found | all_pairs(run, setting, synthetic, **labels)


def sizes(run: records.Run, setting: Setting, model: SiloFuseRun, **labels) -> dict[str, float]:
    """Record and return the latents' width s, s over the number of columns, and one-hot columns over s."""
    counted = columns.sizes(setting.train)
    found = {
        "latent_width": model.width, "latents_per_column": model.width / counted["columns"],
        "one_hot_per_latent": counted["one_hot"] / model.width,
    }
    for name, value in found.items():
        run.metric(name, value, **labels)
    return found


def leak(run: records.Run, setting: Setting, model: SiloFuseRun, *, known: int, **labels) -> dict[str, float]:
    """Record and return known_rows_leak, what a holder of the latents learns of the other rows from `known` rows.

    Ridge regression from each silo's latents to its columns, fitted on the known rows; for a category the accuracy that
    it gains over the majority, as a share of what could be gained, for a number R^2; at least 0, mean over columns, in
    [0, 1], 1: everything. A plain attacker: what it finds is a lower bound.
    """
    chosen = numpy_generator(setting.seed, "known rows").permutation(model.rows)
    if not 2 <= known < model.rows:
        raise ValueError(f"known must lie in 2..{model.rows - 1}, the rows but one, got {known!r}")
    seen, other, scores = chosen[:known], chosen[known:], []
    for client in model.clients:
        z = model.latents[client.name]
        for level, codes in zip(client.codec.levels, client.codes.numpy().T):
            fitted = Ridge(alpha=1e-3).fit(z[seen], np.eye(level)[codes[seen]])
            guess = fitted.predict(z[other]).reshape(len(other), level).argmax(axis=1)
            most = float(np.mean(codes[other] == np.bincount(codes[seen]).argmax()))
            scores.append((float(np.mean(guess == codes[other])) - most) / max(1 - most, 1e-9))
        for values in client.numbers.numpy().T:
            guess = Ridge(alpha=1e-3).fit(z[seen], values[seen]).predict(z[other])
            spread = float(np.square(values[other] - values[other].mean()).sum())
            scores.append(1 - float(np.square(values[other] - guess).sum()) / max(spread, 1e-9))
    value = float(np.clip(scores, 0, 1).mean())
    run.metric("known_rows_leak", value, **labels)
    return {"known_rows_leak": value}


def autoencoder(setting: Setting, config: SiloFuseConfig, *, progress: bool = True) -> SiloClient:
    """Return the trained autoencoder of a setting with ONE silo, from the cache where it is; no diffusion model."""
    if len(setting.silos) != 1:
        raise ValueError(f"one silo with all columns is needed, got {len(setting.silos)}: split with silos=1")
    config = replace(config, seed=setting.seed)
    client = silofuse.parties(setting.silos, config).clients[0]

    def state() -> dict[str, Any]:
        client.fit(progress=progress)
        return client.summary()

    kept = {name: value for name, value in asdict(config).items() if not name.startswith("dm_")}
    entry = cache.cached("silofuse-autoencoder", kept, f"{setting.identity} alone", state,
                         code=["feddiff.systems.silofuse", *DATA_CODE])
    client.restore(entry.state)
    return client


def generalisation(run: records.Run, setting: Setting, client: SiloClient, **labels) -> dict[str, float]:
    """Record and return how an autoencoder treats the rows it was trained on and rows that it never saw.

    nll_training, nll_held_out (nats a row, lower is better), nll_gap between them, reconstruction_training and
    reconstruction_held_out (mean over columns), and membership_auc: how well the loss tells the two apart (.5: not).
    Only the silo itself can compute this, or whoever gets hold of encoder and decoder.
    """
    losses, found = {}, {}
    for rows, table in (("training", setting.train), ("held_out", setting.test)):
        frame = table.frame[client.columns]
        encoded = client.codec.encode(frame, numpy_generator(setting.seed, "ranks", rows))
        with torch.no_grad():
            loss = client.model.loss_per_record(torch.from_numpy(encoded.codes), torch.from_numpy(encoded.numbers))
        losses[rows] = loss.double().numpy()
        found[f"nll_{rows}"] = float(losses[rows].mean())
        found[f"reconstruction_{rows}"] = float(client.reconstruction(frame)["score"].mean())
    found["nll_gap"] = found["nll_held_out"] - found["nll_training"]
    found["membership_auc"] = membership.auc(-losses["training"], -losses["held_out"])
    for name, value in found.items():
        run.metric(name, value, **labels)
    return found
