"""DP-Fed-FinDiff round by round: runs watched on held-out rows, local updates against rounds, bytes to a loss.

Every run keeps its trace (held-out loss, move and weight norm, bytes), so that notebooks judge convergence and not
only the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from feddiff.data.tables import Table
from feddiff.experiments import cache, records
from feddiff.experiments import findiff_study as study
from feddiff.experiments.findiff_study import Federation
from feddiff.systems import findiff

WATCHED = 500  # held-out rows whose denoising loss is taken after every round
TRACED = 12  # points of a trace that are recorded
# Metrics whose slope in the number of local updates is recorded.
SLOPES = ("pair_trends", "roc_auc", "held_out_loss")


def held_out(setting: Federation, rows: int = WATCHED) -> Table:
    """Return the first held-out rows whose categories all occur in training (others have no code to score)."""
    known = pd.Series(True, index=setting.test.frame.index)
    for name in setting.test.features:
        if setting.train.kinds[name] == "categorical":
            known &= setting.test.frame[name].isin(setting.train.frame[name].unique())
    return setting.test.select(np.flatnonzero(known)[:rows])


def watched(setting: Federation, config: findiff.FinDiffConfig, *, rows: int = WATCHED) -> findiff.FinDiffRun:
    """Return the run of `config` with its held-out loss after every round in the history, from the cache if known."""
    config = replace(config, seed=setting.seed)
    entry = cache.cached(
        "findiff",
        config,
        f"{setting.identity} held_out={rows}",
        lambda: findiff.train(
            setting.clients, config, progress=False, monitor=held_out(setting, rows)
        ).to_state(),
        code=[*study.CODE, *study.SPLIT_CODE],
    )
    return findiff.from_state(entry.state, setting.clients, config)


def trace(run: records.Run, history: pd.DataFrame, *, local_steps: int, **labels) -> None:
    """Record <name>_trace of held-out loss, move and weight norm at about TRACED rounds, with the label `steps`."""
    places = np.unique(np.linspace(0, len(history) - 1, min(TRACED, len(history))).round().astype(int))
    for place in places:
        row = history.iloc[place]
        for name in ("held_out_loss", "move_norm", "weight_norm"):
            run.metric(f"{name}_trace", float(row[name]), steps=local_steps * (int(place) + 1), **labels)


def measure(
    run: records.Run, setting: Federation, config: findiff.FinDiffConfig, *, attacks: int = 0, released: bool = True,
    **labels,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Train, trace and judge a configuration; record scores, held-out losses and bytes; return them and the history.

    attacks: how many of each anonymity game are played against the release (0: none). released=False draws and judges
    no rows: a model that has diverged may have none.
    """
    model = watched(setting, config)
    history = model.history
    trace(run, history, local_steps=config.S, **labels)
    scores = {}
    if released:
        release = model.sample(setting.rows, seed=setting.seed)
        scores = study.judge(run, setting, release, copies=False, **labels)
        if attacks:
            study.attack(run, setting, release, attacks=attacks, **labels)
    told = {
        "held_out_loss": float(history["held_out_loss"].iloc[-1]),
        "best_held_out_loss": float(history["held_out_loss"].min()),
        "bytes_sent": float(model.nbytes),
        "rounds": float(len(history)),
    }
    for name, value in told.items():
        run.metric(name, value, **labels)
    run.privacy(model.privacy, **labels)
    return scores | told, history


def grid(
    base: findiff.FinDiffConfig, *, total: int, updates: Sequence[int], rounds: int, more: Sequence[int]
) -> dict[tuple[str, int], findiff.FinDiffConfig]:
    """Return (regime, S) -> configuration: "steps" keeps R * S = total for S in `updates`, "rounds" keeps R for `more`.

    ValueError for an S that does not divide `total`: its run would be shorter than the others.
    """
    uneven = [count for count in updates if total % count]
    if uneven:
        raise ValueError(f"{uneven[0]} local updates do not divide {total} steps; choose divisors")
    found = {("steps", count): replace(base, S=count, R=total // count) for count in updates}
    return found | {("rounds", count): replace(base, S=count, R=rounds) for count in more}


def reach(history: pd.DataFrame, target: float, local_steps: int) -> dict[str, float] | None:
    """Return bytes, rounds and local steps until the held-out loss is first at most `target`; None: never."""
    hits = np.flatnonzero(history["held_out_loss"].to_numpy() <= target)
    if not len(hits):
        return None
    rounds = int(hits[0]) + 1
    return {
        "bytes_to_target": float(history["bytes"].iloc[:rounds].sum()),
        "rounds_to_target": float(rounds),
        "steps_to_target": float(rounds * local_steps),
    }


def to_target(
    run: records.Run, histories: Mapping[int, pd.DataFrame], **labels
) -> dict[int, dict[str, float]]:
    """Record what each S (the keys) needs to reach the loss that all of them reach, and return it.

    The target is the largest of the runs' best held-out losses, so every one gets there.
    """
    target = max(float(history["held_out_loss"].min()) for history in histories.values())
    run.metric("target_loss", target, **labels)
    found = {count: reach(history, target, count) for count, history in histories.items()}
    for count, needed in found.items():
        for name, value in needed.items():
            run.metric(name, value, local_updates=count, **labels)
    return found


def slope(values: Mapping[int, float]) -> float:
    """Return the change of a metric for ten times as many local updates: least squares in log10 S."""
    counts = np.log10(list(values))
    return float(np.polyfit(counts, list(values.values()), 1)[0])


def interaction(
    run: records.Run, found: Mapping[tuple[str, str, int], Mapping[str, float]], **labels
) -> dict[tuple[str, str], float]:
    """Record <metric>_slope of each (partition, regime, S) curve, and <metric>_interaction; return the interactions.

    The interaction is the slope when rows are dealt at random less that by category, on the same seed: above 0, more
    local updates serve IID clients better (for a loss: below 0).
    """
    told = {}
    for regime in dict.fromkeys(key[1] for key in found):
        for metric in SLOPES:
            own = {}
            for partition in ("iid", "by_category"):
                curve = {key[2]: scores[metric] for key, scores in found.items() if key[:2] == (partition, regime)}
                if len(curve) > 1:
                    own[partition] = slope(curve)
                    run.metric(f"{metric}_slope", own[partition], partition=partition, regime=regime, **labels)
            if len(own) == 2:
                told[regime, metric] = own["iid"] - own["by_category"]
                run.metric(f"{metric}_interaction", told[regime, metric], regime=regime, **labels)
    return told
