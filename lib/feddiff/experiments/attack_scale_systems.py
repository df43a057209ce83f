"""The three systems trained on the same persons, each attacked where it shows most: its server, and what it publishes.

View "server": FinDiff's server and clients have the global weights; SiloFuse's coordinator has the latents of all rows,
and the published rows beside the latents that it made them from; PFDM's server has the uploads (its global denoiser is
made of them and tells no more). View "release": the synthetic rows alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from feddiff.attacks import decoder_clone, membership_tables as white, upload_matching as matching
from feddiff.attacks.latent_rows import Rows
from feddiff.data import images
from feddiff.data.codec import TableCodec
from feddiff.data.images import ImageSet
from feddiff.data.silos import split_columns
from feddiff.data.tables import Table
from feddiff.evaluation.nearest import nearest_distances
from feddiff.experiments import attack_latent_defences as defences, attack_latents, findiff_study, records
from feddiff.experiments import silofuse_study
from feddiff.experiments.attack_membership import TIMES, gradient_norms
from feddiff.experiments.attack_scale import (
    DELTA, TARGET, Persons, View, by_rows, linked, margins_of, named, record, table, useful,
)
from feddiff.privacy import accounting
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import findiff, pfdm
from feddiff.systems.findiff import FinDiffConfig, FinDiffRun
from feddiff.systems.image_clients import ImageClient, clipped
from feddiff.systems.pfdm import PFDMConfig
from feddiff.systems.silofuse_config import SiloFuseConfig

SILOS = 4
Seen = list[dict[str, float | str | None]]


def findiff_views(
    run: records.Run, drawn: Persons, config: FinDiffConfig, choice: str, *, ceiling: float, draws: int = 4
) -> Seen:
    """Train FinDiff on the members, record utility and both views; `draws` fixed noises for the loss."""
    everyone, reference = table(drawn.members), table(drawn.reference)
    codec = TableCodec.fit(reference.frame, reference.kinds, columns=reference.features, numerics="standard",
                           provenance="public")
    setting = findiff_study.Federation(
        train=everyone, test=table(drawn.test), clients=tuple(everyone.select(part) for part in drawn.parts),
        rows=len(drawn), seed=drawn.seed, identity=f"{drawn.identity} clients={len(drawn.parts)}",
    )
    config = replace(config, preprocessing="public", delta=DELTA)
    model = findiff_study.trained(setting, config, public=codec, progress=False)
    run.privacy(model.privacy, system="findiff", choice=choice)
    synthetic = model.sample(setting.rows, seed=drawn.seed)
    noises = white.fixed_noises(model.head.space.dim, draws, numpy_generator(drawn.seed, "noises"))
    few = dict(times=TIMES[1:2], noises=noises[:4])
    weights = {
        "loss": white.loss_scores(white.losses(model.loss_per_record, drawn.frame, times=TIMES, noises=noises)),
        "gradient": white.loss_scores(white.losses(gradient_norms(model, drawn.seed), drawn.frame, **few)),
    }
    stated, halves = replaced(model, drawn), linked(drawn, synthetic)
    rows = by_rows(drawn, synthetic)
    # Whoever has the weights draws rows from them.
    views = [View("findiff", choice, name, scores, margins_of(scores), halves, stated)
             for name, scores in (("server", weights | rows), ("release", rows))]
    return _recorded(run, drawn, views, synthetic, ceiling)


def replaced(model: FinDiffRun, drawn: Persons) -> float | None:
    """Return the epsilon that a run spent on one record replaced by another, None without DP."""
    config, spent = model.config, []
    if not config.private:
        return None
    prepared = model.prepared
    for part, noise, limit in zip(drawn.parts, prepared.noise_multipliers, prepared.max_steps, strict=True):
        steps = config.R * config.S if limit is None else min(limit, config.R * config.S)
        spent.append(accounting.epsilon(sample_rate=config.B / len(part), noise_multiplier=noise, steps=steps,
                                        delta=config.delta, adjacency="replace-one"))
    return max(spent)


def silofuse_views(
    run: records.Run, drawn: Persons, config: SiloFuseConfig, budgets: Sequence[str], *, ceiling: float,
    method: str = "ridge",
) -> Seen:
    """Train SiloFuse once, upload latents plainly ("inf") or noised for each budget; record utility and both views."""
    everyone = table(drawn.members)
    silos = split_columns(everyone, SILOS, order="contiguous", generator=numpy_generator(drawn.seed, "silos"))
    setting = silofuse_study.Setting(
        train=everyone, test=table(drawn.test), silos=tuple(silos), seed=drawn.seed, rows=len(drawn),
        identity=f"{drawn.identity} silos={SILOS}",
    )
    model = silofuse_study.trained(setting, "silofuse", replace(config, numerics="standard"), progress=False)
    seen = []
    for choice in budgets:
        if choice == "inf":
            aim, stated = attack_latents.target(setting, model), None
        else:
            stated = float(choice)
            aim = defences.noised(run, setting, model, stated, progress=False, system="silofuse", choice=choice)
        found = recovered(aim, everyone, method)
        scores = by_rows(drawn, found) | {"posterior": by_messages(drawn, found)}
        rows = by_rows(drawn, aim.synthetic)
        candidates, points = _points(drawn.frame), _points(found)
        apart = np.square(candidates).sum(1) - 2 * points @ candidates.T
        place = np.arange(len(drawn))
        messages = {"message": apart[place, len(drawn) + place] - apart[place, place]}
        server = View("silofuse", choice, "server", scores, messages, named(drawn, apart.argmin(1)), stated)
        # The noise is on latents: decoders, and so the rows that they make, are outside of its epsilon.
        release = View("silofuse", choice, "release", rows, margins_of(rows), linked(drawn, aim.synthetic), None)
        seen += _recorded(run, drawn, [server, release], aim.synthetic, ceiling)
    return seen


def recovered(aim: attack_latents.Target, like: Table, method: str) -> pd.DataFrame:
    """Return the rows that a clone of the decoders, learnt from the published rows, reads from the real latents."""
    names, pixels = list(aim.latents), like.features
    z, sent = (np.concatenate([side[name] for name in names], axis=1) for side in (aim.latents, aim.z_synthetic))
    classes = pd.Index(sorted(like.frame[TARGET].unique()))
    published = Rows(classes.get_indexer(aim.synthetic[TARGET])[:, None], aim.synthetic[pixels].to_numpy(float) / 255,
                     (len(classes),), (TARGET, *pixels))
    guess = decoder_clone.clone(sent, published, z, generator=torch_generator(aim.seed, "clone"), method=method)
    frame = pd.DataFrame((255 * guess.numbers.clip(0, 1)).round().astype(np.int64), columns=pixels)
    return frame.assign(**{TARGET: classes.to_numpy(dtype=object)[guess.codes[:, 0]]})


def by_messages(drawn: Persons, frame: pd.DataFrame) -> np.ndarray:
    """Return the likelihood ratio of all persons given recovered rows, taken for persons under white noise.

    Its variance: the median row's squared distance to the nearest public person, a pixel, which the adversary can see.
    """
    rows, public = _points(frame), _points(table(drawn.reference).frame)
    noise = float(np.median(np.square(nearest_distances(rows, public))) / rows.shape[1])
    share = 1 / (1 + noise)
    return matching.membership(math.sqrt(share) * rows, _points(drawn.frame), public, alpha_bar=share)


def pfdm_views(run: records.Run, drawn: Persons, config: PFDMConfig, *, ceiling: float, steps: int = 30) -> Seen:
    """Train PFDM on the members, record utility and both views; every client publishes pictures like its own."""
    pictures, labels = images.to_tensor(drawn.members.images), torch.from_numpy(drawn.members.labels)
    clients = [ImageClient(pictures[part], labels[part]) for part in drawn.parts]
    config = replace(config, seed=drawn.seed, delta=DELTA, classes=len(drawn.members.class_names))
    model = pfdm.train(clients, config, progress=False)
    choice, stated = str(config.t0), model.upload_privacy.epsilon()
    run.privacy(model.privacy, system="pfdm", choice=choice)
    drawn_by = [model.sample(k, client.labels, seed=drawn.seed, steps=steps, local_steps=steps)
                for k, client in enumerate(clients)]
    release = replace(drawn.members, images=images.to_uint8(torch.cat(drawn_by)))
    synthetic, known = table(release).frame, dict(alpha_bar=config.alpha_bar)
    x, other, public = (_noised_range(model, part) for part in (drawn.members, drawn.others, drawn.reference))
    y, everyone = model.uploads.images.numpy(), np.concatenate([x, other])
    both = np.concatenate([drawn.members.labels, drawn.others.labels])
    matches = matching.match(y, everyone, np.arange(len(drawn)), labels=(drawn.members.labels, both), **known)
    margins = [matching.paired_membership(y, side, public, **known) for side in (x, other)]
    uploads = {"posterior": matching.membership(y, everyone, public, **known)}
    rows = by_rows(drawn, synthetic)
    views = [
        View("pfdm", choice, "server", uploads, {"message": margins[0] - margins[1]}, named(drawn, matches.best),
             stated),
        # Local denoisers are trained on clean pictures: what they draw is outside of the uploads' epsilon.
        View("pfdm", choice, "release", rows, margins_of(rows), linked(drawn, synthetic), None),
    ]
    return _recorded(run, drawn, views, synthetic, ceiling)


def _recorded(
    run: records.Run, drawn: Persons, views: Sequence[View], synthetic: pd.DataFrame, ceiling: float
) -> Seen:
    share = useful(run, drawn, synthetic, ceiling, system=views[0].system, choice=views[0].choice)
    return [record(run, drawn, view) | {"utility_share": share} for view in views]


def _noised_range(model: pfdm.PFDMRun, pictures: ImageSet) -> np.ndarray:
    entered = model.space.enter(images.to_tensor(pictures.images))
    return clipped(entered, model.config.C).double().numpy()


def _points(frame: pd.DataFrame) -> np.ndarray:
    return frame.drop(columns=TARGET).to_numpy(float) / 255
