"""Attacks on the latents of a trained SiloFuse run, recorded: pairs, published rows, insiders, structure, marginals.

The public sample of the attacks is the held-out rows: the same population, no row of which was trained on. Guesses are
scored on the same rows for every attack, none of which any attack has as a known row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from feddiff.attacks import decoder_clone, latent_inversion, latent_structure
from feddiff.attacks.latent_rows import Rows, Scale, leak, learnt, linked, side_by_side
from feddiff.data.codec import Encoded
from feddiff.diffusion.table_autoencoder import latents
from feddiff.experiments import records, silofuse_splits
from feddiff.experiments.silofuse_study import Setting
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import silofuse
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import SiloFuseConfig

# Rows that guesses are scored on at most, and below which share of all rows.
SCORED, SHARE = 1_500, 0.4


@dataclass(frozen=True, eq=False)
class Target:
    """What is attacked: by silo, the uploaded latents and, of synthesis, the latents sent and the rows published.

    truth, public, released: the silos' columns of the training rows, the held-out rows and the synthetic rows, on the
    scale of the held-out rows. order: a random order of the training rows; known rows come from its front, the scored
    rows are its end. synthetic: the published table.
    """

    seed: int
    latents: dict[str, np.ndarray]
    z_synthetic: dict[str, np.ndarray]
    truth: dict[str, Rows]
    public: dict[str, Rows]
    released: dict[str, Rows]
    synthetic: pd.DataFrame
    order: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """The rows that guesses are scored on."""
        return self.order[-min(SCORED, int(SHARE * len(self.order))):]

    @property
    def most(self) -> int:
        """The largest number of rows that can be known."""
        return len(self.order) - len(self.scored)


def target(
    setting: Setting, model: SiloFuseRun, *, uploads: Mapping[str, np.ndarray] | None = None,
    sent: Mapping[str, np.ndarray] | None = None, parts: Mapping[str, pd.DataFrame] | None = None,
) -> Target:
    """Return a run as its attackers see it; uploads, sent, parts: of a defended run, in place of the model's own."""
    seed = setting.seed
    sent = model.generated(setting.rows, seed=seed) if sent is None else sent
    if parts is None:
        parts = {client.name: client.decode(sent[client.name], seed=seed) for client in model.clients}
    scales = {silo.name: Scale(silo.frame, silo.kinds) for silo in setting.held_out}
    held_out = {silo.name: silo.frame for silo in setting.held_out}
    return Target(
        seed=seed, latents=dict(model.latents if uploads is None else uploads), z_synthetic=dict(sent),
        truth={silo.name: scales[silo.name].rows(silo.frame) for silo in setting.silos},
        public={name: scale.rows(held_out[name]) for name, scale in scales.items()},
        released={name: scale.rows(parts[name]) for name, scale in scales.items()},
        synthetic=pd.concat(list(parts.values()), axis=1)[setting.columns],
        order=numpy_generator(seed, "known rows").permutation(model.rows),
    )


def paired(
    run: records.Run, aim: Target, known: Sequence[int], methods: Sequence[str] = latent_inversion.METHODS, **labels
) -> dict[tuple[str, int], float]:
    """Record the leak to one who knows k rows, for each k and method, with a control: as many pairs, permuted.

    Return (method, k) -> leak; the control's method is "control".
    """
    found = {}
    for k in [*known]:
        if not 1 <= k <= aim.most:
            raise ValueError(f"known must lie in 1..{aim.most}: the other rows are scored; got {k}")
        rows = aim.order[:k]
        for method in methods:
            found[method, k] = _learn(run, aim, rows, rows, method, attack="paired", known=k, **labels)
        mixed = numpy_generator(aim.seed, "permuted", k).permutation(rows)
        found["control", k] = _learn(run, aim, rows, mixed, "ridge", attack="paired_control", known=k, **labels)
    return found


def _learn(run: records.Run, aim: Target, rows: np.ndarray, plain: np.ndarray, method: str, **labels) -> float:
    guesses, seen = {}, {}
    for name, z in aim.latents.items():
        seen[name] = aim.truth[name].select(plain)
        guesses[name] = latent_inversion.invert(
            z[rows], seen[name], z[aim.scored], method=method,
            generator=torch_generator(aim.seed, "attack", name, len(rows)),
        )
    detail = method == "ridge" and labels["attack"] == "paired"
    return note(run, aim, guesses, seen, detail=detail, method=method, **labels)


def clone(
    run: records.Run, aim: Target, rows: Sequence[int | None], methods: Sequence[str] = ("ridge", "mlp"), **labels
) -> dict[tuple[str, int], float]:
    """Record what clones of the decoders read from the real latents, by number of published rows (None: all).

    With a control: all rows, published in another order. Return (method, rows) -> leak, the control's as "control".
    """
    whole, found = len(next(iter(aim.released.values()))), {}
    for count in rows:
        used = whole if count is None else count
        known = "all" if count is None else count
        for method in methods:
            found[method, used] = _clone(run, aim, aim.released, used, method, attack="clone", known=known, **labels)
    mixed = {
        name: decoder_clone.shuffled(part, numpy_generator(aim.seed, "shuffled", name))
        for name, part in aim.released.items()
    }
    found["control", whole] = _clone(run, aim, mixed, whole, "ridge", attack="clone_control", known="all", **labels)
    return found


def _clone(run: records.Run, aim: Target, released: Mapping[str, Rows], rows: int, method: str, **labels) -> float:
    guesses = {}
    for name, z in aim.latents.items():
        generator = torch_generator(aim.seed, "clone", name, rows)
        guesses[name] = decoder_clone.clone(
            aim.z_synthetic[name], released[name], z[aim.scored], method=method, rows=rows, generator=generator
        )
    return note(run, aim, guesses, {name: part.select(np.arange(rows)) for name, part in released.items()},
                detail=method == "ridge" and labels["attack"] == "clone", method=method, **labels)


def decoder(run: records.Run, aim: Target, setting: Setting, model: SiloFuseRun, **labels) -> float:
    """Record what whoever obtains the decoders themselves reads, mode and mean: about the most that any attack can."""
    scales, guesses = {silo.name: Scale(silo.frame, silo.kinds) for silo in setting.held_out}, {}
    for client in model.clients:
        z = torch.from_numpy(aim.latents[client.name][aim.scored])
        codes, numbers = client.model.draw(z, torch.Generator())
        guesses[client.name] = scales[client.name].rows(client.codec.decode(Encoded(codes.numpy(), numbers.numpy())))
    return note(run, aim, guesses, aim.public, attack="decoder", known="all", method="decoder", **labels)


def insider(run: records.Run, aim: Target, k: int, *, method: str = "ridge", **labels) -> dict[str, float]:
    """Record what the first silo learns of the others' columns from k known rows: without and with their latents."""
    names = list(aim.latents)
    rows, guesses, seen = aim.order[:k], {"insider_floor": {}, "insider": {}}, {}
    unknown = np.setdiff1d(np.arange(len(aim.order)), rows)
    scored = np.searchsorted(unknown, aim.scored)
    for name in names[1:]:
        both = latent_inversion.insider(
            aim.truth[names[0]], aim.latents[name], rows, aim.truth[name], method=method,
            generator=torch_generator(aim.seed, "insider", name),
        )
        seen[name] = aim.truth[name].select(rows)
        for attack, guess in zip(guesses, both):
            guesses[attack][name] = guess.select(scored)
    return {attack: note(run, aim, found, seen, attack=attack, known=k, method=method, **labels)
            for attack, found in guesses.items()}


def structure(run: records.Run, aim: Target, setting: Setting, model: SiloFuseRun) -> dict[str, float]:
    """Record what the latents tell without any pair: equal rows, neighbours, clusters, distances, a second release.

    Distances and neighbours over all silos' latents side by side, clusters and equal rows a silo at a time, mean over
    silos. The second release: the same rows encoded again, ties among numbers broken anew, as in another upload.
    """
    generator = numpy_generator(aim.seed, "structure")
    names, rows = list(aim.latents), aim.scored
    z, truth = np.concatenate([aim.latents[name] for name in names], axis=1), side_by_side(list(aim.truth.values()))
    alike = latent_structure.neighbours(z[rows], truth.select(rows))
    equal = pd.DataFrame([latent_structure.duplicates(aim.latents[name], aim.truth[name]) for name in names]).mean()
    groups = [value for name in names for value in latent_structure.clusters(
        aim.latents[name][rows], aim.truth[name].select(rows), generator).values()]
    again = []
    for client, silo in zip(model.clients, setting.silos, strict=True):
        encoded = client.codec.encode(silo.frame, numpy_generator(aim.seed, "second release", client.name))
        again.append(latents(client.model, encoded.codes, encoded.numbers).numpy())
    second = np.concatenate(again, axis=1)
    found = {
        "distance_correlation": latent_structure.distance_correlation(z, truth, generator),
        "neighbour_gain": float(alike["gain"].mean()),
        "cluster_agreement": float(np.mean(groups)) if groups else np.nan,
        "relinked": latent_structure.relinked(z[rows], second[rows]),
        **{f"duplicates_{name}": float(value) for name, value in equal.items()},
    }
    for name, value in found.items():
        run.metric(name, None if np.isnan(value) else value, reason="no category, or no equal rows in any silo")
    return found


def unpaired(run: records.Run, aim: Target) -> dict[str, float]:
    """Record what is read with a public sample in place of pairs, silo by silo; control: the guesses of other rows."""
    guesses = {
        name: latent_structure.align(
            z[aim.scored], aim.public[name], generator=numpy_generator(aim.seed, "unpaired", name)
        )
        for name, z in aim.latents.items()
    }
    moved = {name: guess.select(np.roll(np.arange(len(guess)), 1)) for name, guess in guesses.items()}
    labels = dict(known=0, method="transport", defence="none")
    return {
        attack: note(run, aim, found, aim.public, attack=attack, **labels)
        for attack, found in (("unpaired", guesses), ("unpaired_control", moved))
    }


def one_column_each(run: records.Run, setting: Setting, config: SiloFuseConfig) -> dict[str, float]:
    """Record what frequencies and quantiles of a public sample read when every silo has one column (no diffusion).

    Autoencoders of width 1 share the steps of the usual four and upload; control: the guesses of other rows.
    """
    apart = silofuse_splits.resplit(setting, len(setting.columns))
    config = silofuse_splits.equal_budget(config, len(apart.silos))
    model = silofuse.parties(apart.silos, replace(config, seed=setting.seed))
    uploads = {}
    for client in model.clients:
        client.fit(progress=False)
        uploads[client.columns[0]] = client.upload()["z"]
    scale = Scale(setting.test.frame, setting.train.kinds)
    public, truth = scale.rows(setting.test.frame), scale.rows(setting.train.frame)
    guess = latent_structure.by_columns([uploads[name] for name in public.names], public)
    moved = guess.select(np.roll(np.arange(len(guess)), 1))
    found = {}
    for attack, own in (("marginals", guess), ("marginals_control", moved)):
        scores = learnt(truth, own, public)
        found[attack] = leak(scores)
        labels = dict(attack=attack, known=0, method="marginals", defence="none")
        _note(run, scores, labels, detail=attack == "marginals")
    return found


def note(
    run: records.Run, aim: Target, guesses: Mapping[str, Rows], seen: Mapping[str, Rows], *, detail: bool = False,
    **labels,
) -> float:
    """Record leak, number_r2, category_gain and linked of guesses of the scored rows, by silo; return the leak.

    linked: share of scored rows found among the scored rows' true values by all guessed silos together. detail: the
    gain of each column too.
    """
    truth = {name: aim.truth[name].select(aim.scored) for name in guesses}
    scores = pd.concat([learnt(truth[name], guesses[name], seen[name]) for name in guesses], ignore_index=True)
    _note(run, scores, labels, detail=detail)
    share = linked(side_by_side(list(guesses.values())), side_by_side(list(truth.values())))
    run.metric("linked", share, **labels)
    return leak(scores)


def _note(run: records.Run, scores: pd.DataFrame, labels: Mapping[str, object], *, detail: bool) -> None:
    run.metric("leak", leak(scores), **labels)
    for name, kind in (("number_r2", "number"), ("category_gain", "category")):
        own = scores.loc[scores["kind"] == kind, "gain"].dropna()
        run.metric(name, float(own.mean()) if len(own) else None, reason=f"no {kind} that varies", **labels)
    for row in scores.dropna().itertuples() if detail else ():
        run.metric("column_gain", row.gain, column=row.column, kind=row.kind, **labels)
