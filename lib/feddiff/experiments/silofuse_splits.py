"""One setting, its columns dealt to silos in other ways: numbers of silos, orders, beyond one column each, a floor.

Training and held-out rows stay the same, so that what differs between two cases is who holds which column.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from feddiff.data import silos as columns
from feddiff.data.silos import Silo
from feddiff.evaluation import fidelity
from feddiff.evaluation.association import association, association_error
from feddiff.experiments import records
from feddiff.experiments.silofuse_study import Setting
from feddiff.seeds import numpy_generator
from feddiff.systems.silofuse_config import SiloFuseConfig

# The number of silos whose budget the others share; no silo gets less than this share of its autoencoder's steps.
USUAL, LEAST = 4, 4
# Metrics whose slope in the number of silos is recorded.
SLOPES = ("resemblance", "utility", "association_all")
SORTS = ("number", "two levels", "more levels")


def resplit(setting: Setting, silos: int, order: str = "contiguous", draw: int = 0) -> Setting:
    """Return the setting with its columns in `silos` silos, "contiguous", "random" (the draw-th) or "adversarial"."""
    strength = association(setting.train.frame, kinds=setting.train.kinds) if order == "adversarial" else None
    generator = numpy_generator(setting.seed, "silos", draw)
    parts = columns.split_columns(setting.train, silos, order=order, generator=generator, association=strength)
    return replace(setting, silos=tuple(parts), identity=f"{setting.identity} again={silos} {order} {draw}")


def equal_budget(config: SiloFuseConfig, silos: int) -> SiloFuseConfig:
    """Return the configuration for `silos` silos: their autoencoders train for as many steps in all as those of USUAL.

    Not fewer than 1 / LEAST of config.ae_steps each: many silos cost more, and would be undertrained otherwise.
    """
    return replace(config, ae_steps=max(-(-USUAL * config.ae_steps // silos), -(-config.ae_steps // LEAST)))


def in_bits(setting: Setting) -> tuple[Setting, Callable[[pd.DataFrame], pd.DataFrame]]:
    """Return the setting with every bit of a category in a silo of its own, and the way back to the table's columns.

    See `data.silos.bit_columns`; training and held-out rows share their labels' codes.
    """
    table, at = setting.train, len(setting.train)
    frame = pd.concat([table.frame, setting.test.frame], ignore_index=True)
    whole, back = columns.bit_columns(replace(table, frame=frame))
    train, test = (whole.select(rows) for rows in (np.arange(at), np.arange(at, len(frame))))
    parts = columns.split_columns(train, len(train.kinds))
    cut = replace(setting, train=train, test=test, silos=tuple(parts), identity=f"{setting.identity} bits")
    return cut, back


def shuffled(setting: Setting) -> pd.DataFrame:
    """Return the real training rows, those of each silo in an order of their own.

    Perfect inside every silo, nothing between them: the best that silos could do without any exchange.
    """
    parts = [_permuted(setting, silo) for silo in setting.silos]
    return pd.concat(parts, axis=1)[setting.columns]


def _permuted(setting: Setting, silo: Silo) -> pd.DataFrame:
    order = numpy_generator(setting.seed, "shuffled silos", silo.name).permutation(len(silo))
    return silo.frame.iloc[order].reset_index(drop=True)


def all_pairs(run: records.Run, setting: Setting, frame: pd.DataFrame, **labels) -> dict[str, float]:
    """Record and return association_all, the mean error in Cramer's V over ALL pairs of columns.

    However the columns are split, these are the same pairs; those inside and across silos are not.
    """
    error = association_error(setting.train.frame, frame, parts=setting.parts, kinds=setting.train.kinds).overall
    run.metric("association_all", error, **labels)
    return {"association_all": error}


def shapes(run: records.Run, setting: Setting, frame: pd.DataFrame, **labels) -> dict[str, float]:
    """Record and return column_shape, the mean similarity to held-out rows, of each sort of column in SORTS.

    A silo's latents have a place for every column: numbers and two levels fit on a line, a lone category of more levels
    has levels in between others, and what the coordinator blurs falls on the wrong one.
    """
    kinds, levels = setting.train.kinds, setting.train.frame.nunique()
    scores = fidelity.column_scores(setting.test.frame, frame, kinds=kinds).set_index("column")["score"]
    category = {name: "two levels" if levels[name] <= 2 else "more levels" for name in scores.index}
    sort = {name: "number" if kinds[name] in fidelity.CONTINUOUS else category[name] for name in scores.index}
    told = {name: float(mean) for name, mean in scores.groupby(sort).mean().items()}
    for name in SORTS:
        run.metric("column_shape", told.get(name), reason="no such column", sort=name, **labels)
    return told


def neighbours(run: records.Run, setting: Setting, **labels) -> float:
    """Record and return strength_within: mean Cramer's V inside the silos over that of all pairs (1: no favour)."""
    strength = association(setting.train.frame, kinds=setting.train.kinds)
    inside = [strength.loc[a, b] for part in setting.parts for i, a in enumerate(part) for b in part[i + 1:]]
    every = strength.to_numpy()[np.triu_indices(len(strength), 1)]
    ratio = float(np.mean(inside) / every.mean()) if inside and every.mean() > 0 else None
    run.metric("strength_within", ratio, reason="one column a silo: no pair inside", **labels)
    return ratio


def average(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of several results, metric by metric (those that all have)."""
    common = set.intersection(*(set(found) for found in scores))
    return {name: float(np.mean([found[name] for found in scores])) for name in scores[0] if name in common}


def change(
    run: records.Run, of: Mapping[str, float], minus: Mapping[str, float], /, **labels
) -> dict[str, float]:
    """Record association_all of `of` less that of `minus`, beside what `silofuse_judge.difference` records."""
    run.metric("association_all_difference", of["association_all"] - minus["association_all"], **labels)
    return {"association_all": of["association_all"] - minus["association_all"]}


def slopes(run: records.Run, found: Mapping[int, Mapping[str, float]], **labels) -> dict[str, float]:
    """Record <metric>_slope, the change for each doubling of the number of silos: least squares in log2 M."""
    counts, told = np.log2(list(found)), {}
    for metric in SLOPES:
        if all(metric in scores for scores in found.values()):
            told[metric] = float(np.polyfit(counts, [scores[metric] for scores in found.values()], 1)[0])
            run.metric(f"{metric}_slope", told[metric], **labels)
    return told
