"""What the parameters of DP-SGD do to a table: noise, clipping norm, budget, batch and draws a record, one at a time.

Every arm is one training on the same split. An arm's labels are its `sweep` (which parameter is moved) and the values
of all parameters that any sweep moves, so that a figure or a rule names an arm completely.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from feddiff.experiments import findiff_study as study
from feddiff.experiments import records, tables
from feddiff.systems.findiff import FinDiffConfig, FinDiffRun

QUALITY = "pair_trends"
# The authors' value of each swept parameter, or ours where theirs is swept beside the budget (their batch is 16).
DEFAULTS = {"clip": 1.0, "batch": 256, "draws": 1}
# Differences in QUALITY up to this do not count: the margin that the notebook stated before its runs.
LEVEL = 0.02


@dataclass(frozen=True)
class Arm:
    """One training: what `sweep` moves and how it is configured."""

    sweep: str
    config: FinDiffConfig

    @property
    def labels(self) -> dict:
        """Labels of the arm's metrics; the noise multiplier is one only where it is what is set."""
        fixed = self.config.noise_multiplier
        given = {"epsilon": self.config.epsilon} if fixed is None else {"sigma": fixed}
        return {"sweep": self.sweep, "clip": self.config.C, "batch": self.config.B, "draws": self.config.K, **given}


def at_noise(config: FinDiffConfig, sigmas: Sequence[float]) -> list[Arm]:
    """Return one arm a noise multiplier, all else (network, learning rate, steps) as in `config`; 0 only clips."""
    return [Arm("noise", replace(config, epsilon=None, noise_multiplier=sigma)) for sigma in sigmas]


def at_budgets(config: FinDiffConfig, clips: Sequence[float], budgets: Sequence[float]) -> list[Arm]:
    """Return one arm a clipping norm and budget; the noise is calibrated on the whole horizon of `config`."""
    return [Arm("clip", replace(config, C=clip, epsilon=epsilon)) for epsilon in budgets for clip in clips]


def at_batches(config: FinDiffConfig, batches: Sequence[int]) -> list[Arm]:
    """Return one arm an expected batch, at the budget and number of steps of `config`."""
    return [Arm("batch", replace(config, B=batch)) for batch in batches]


def at_draws(config: FinDiffConfig, draws: Sequence[int]) -> list[Arm]:
    """Return one arm a number of noise draws a record (noise multiplicity, Dockhorn et al. 2023)."""
    return [Arm("draws", replace(config, K=k)) for k in draws]


def measure(
    run: records.Run, setting: study.Federation, arm: Arm, *, attacks: int = 0, progress: bool = False
) -> dict[str, float]:
    """Train, judge and (with `attacks`) attack one arm; record its noise, share clipped and what it spent."""
    model = study.trained(setting, arm.config, progress=progress)
    synthetic = model.sample(setting.rows, seed=setting.seed)
    scores = study.judge(run, setting, synthetic, copies=False, **arm.labels)
    run.privacy(model.privacy, **arm.labels)
    scores["spent"] = model.privacy["epsilon"]
    no_noise = {} if math.isfinite(scores["spent"]) else {"reason": "without noise no epsilon is finite"}
    run.metric("spent_epsilon", None if no_noise else scores["spent"], **no_noise, **arm.labels)
    run.metric("clipped_share", float(model.history["clipped"].mean()), **arm.labels)
    run.metric("noise_multiplier", _noise(model), **arm.labels)
    run.metric("update_noise", _noise(model) * arm.config.C / arm.config.B, **arm.labels)
    if attacks:
        games = study.attack(run, setting, synthetic, attacks=attacks, **arm.labels)
        scores["attack_risk"] = float(games.set_index("game").loc["mean", "risk"])
    return scores


def _noise(model: FinDiffRun) -> float:
    """Return the largest noise multiplier over clients (equal where the clients hold equally many rows)."""
    return max(model.prepared.noise_multipliers)


def optima(run: records.Run, found: dict[Arm, dict[str, float]]) -> dict[tuple, float]:
    """Record where each sweep at a given budget is best in pair trends, and what the default loses against that.

    `loss_of_default` is at least 0 in every seed, being a difference to the best of several noisy runs: it bounds what
    tuning can buy from above. Returns (sweep, epsilon) -> best value.
    """
    best = {}
    groups: dict[tuple, dict[float, float]] = {}
    for arm, scores in found.items():
        if arm.sweep in DEFAULTS:
            groups.setdefault((arm.sweep, arm.config.epsilon), {})[arm.labels[arm.sweep]] = scores[QUALITY]
    for (sweep, epsilon), own in groups.items():
        best[sweep, epsilon] = max(own, key=own.get)
        labels = dict(sweep=sweep, epsilon=epsilon)
        run.metric("best_value", best[sweep, epsilon], **labels)
        run.metric("quality_range", max(own.values()) - min(own.values()), **labels)
        run.metric("loss_of_default", max(own.values()) - own[DEFAULTS[sweep]], **labels)
    return best


def optima_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every swept value's pair trends less the default's on the same seeds; for reading the best of each sweep.

    best: by the mean over seeds, of the values that every seed has; level: all whose mean is within LEVEL of it.
    """
    parts = []
    swept = frame[frame["name"] == QUALITY]
    for sweep, default in DEFAULTS.items():
        own = swept[swept["sweep"] == sweep]
        base = own[own[sweep] == f"{default:g}"].set_index(["dataset", "epsilon", "seed"])["value"]
        places = pd.MultiIndex.from_frame(own[["dataset", "epsilon", "seed"]])
        parts.append(own.assign(tried=own[sweep], value=own["value"].to_numpy() - base.reindex(places).to_numpy()))
    by = ["dataset", "sweep", "epsilon", "tried"]
    full = tables.summarise(pd.concat(parts).assign(name="gain_over_default"), by)
    rows = []
    for place, own in full.groupby(by[:-1], sort=False):
        own = own[own["n"] == own["n"].max()]
        best = own.loc[own["mean"].idxmax()]
        level = own.loc[own["mean"] >= best["mean"] - LEVEL, "tried"]
        rows.append([*place, ", ".join(own["tried"]), best["tried"], tables.cell(best), ", ".join(level), best["n"]])
    columns = [*by[:-1], "tried", "best", "gain_over_default", "level", "runs"]
    return full, pd.DataFrame(rows, columns=columns)
