"""Server optimisers of DP-Fed-FinDiff, the fate of the clients' optimiser between rounds, and an alarm for traces."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from feddiff.experiments import findiff_rounds as rounds
from feddiff.experiments import records
from feddiff.experiments.findiff_study import Federation
from feddiff.systems import findiff
from feddiff.systems.findiff import Strategy

# The candidates with the lowest last held-out loss by `tune`: the embedded Bank Marketing table, seed 0, two clients by
# category, eps = 1, B = 128, 25 rounds x 10 local updates; not tuned on any other data. Untrained 1.212, FedAvg 1.008,
# FedProx 1.008, 1.005, 1.007; FedAdam 1.087, 1.027, 1.070, 1.183, 3.90, 168; FedYogi 1.089, 1.025, 1.066, 1.171, 3.69,
# 150; SGD 1.017, 1.006, 1.266, 2.24 (in the order of CANDIDATES and SGD_RATES). A server rate ten times too large
# diverges.
STRATEGIES = {
    "FedAvg": Strategy(),
    "FedProx": Strategy(name="FedProx", proximal=0.1),
    "FedAdam": Strategy(name="FedAdam", server_lr=0.003),
    "FedYogi": Strategy(name="FedYogi", server_lr=0.003),
}
_SERVER_RATES = (0.001, 0.003, 0.005, 0.01, 0.03, 0.1)
CANDIDATES = {
    "FedProx": [Strategy(name="FedProx", proximal=mu) for mu in (0.01, 0.1, 1.0)],
    "FedAdam": [Strategy(name="FedAdam", server_lr=rate) for rate in _SERVER_RATES],
    "FedYogi": [Strategy(name="FedYogi", server_lr=rate) for rate in _SERVER_RATES],
}
# A server rate of 1 moves every weight by about 1 a round: planted, so that the alarm is seen to ring.
PLANTED = {"FedAdam_planted": Strategy(name="FedAdam", server_lr=1.0)}
# What happens to a client's optimiser when a round's weights arrive. SGD has no state: keeping and resetting it agree.
SGD_RATES = (0.1, 0.3, 1.0, 3.0)
POLICIES = {
    "adam_keep": dict(optimiser="adam", optimiser_state="keep"),
    "adam_reset": dict(optimiser="adam", optimiser_state="reset"),
    "sgd": dict(optimiser="sgd", optimiser_state="reset", lr=0.3),
}
DIFFERENCES = ("pair_trends", "roc_auc", "held_out_loss")
DIVERGED = 1.05  # last held-out loss over the best on the way


def tune(
    setting: Federation, config: findiff.FinDiffConfig, candidates: Sequence[Mapping], epsilons: Sequence[float | None]
) -> pd.DataFrame:
    """Return the last held-out loss of `config` with each candidate's changes at each epsilon, and their sum."""
    rows = []
    for changes in candidates:
        histories = [rounds.watched(setting, replace(config, epsilon=e, **changes)).history for e in epsilons]
        losses = [float(history["held_out_loss"].iloc[-1]) for history in histories]
        rows.append([str(changes), *losses, math.fsum(losses)])
    return pd.DataFrame(rows, columns=["candidate", *("inf" if e is None else f"{e:g}" for e in epsilons), "sum"])


def start_loss(setting: Federation, config: findiff.FinDiffConfig) -> float:
    """Return the held-out loss of the untrained network: one step at a learning rate of nothing, without noise."""
    still = replace(config, epsilon=None, R=1, S=1, lr=1e-12, strategy=Strategy())
    return float(rounds.watched(setting, still).history["held_out_loss"].iloc[0])


def late_slope(losses: pd.Series) -> float:
    """Return the change of the loss per round over the last third of the rounds, in per cent of the last loss."""
    tail = losses.iloc[-max(2, len(losses) // 3):].to_numpy()
    return 100 * float(np.polyfit(np.arange(len(tail)), tail, 1)[0]) / float(tail[-1])


def alarm(run: records.Run, history: pd.DataFrame, start: float, **labels) -> bool:
    """Record final_over_best, final_over_start, late_slope and alarm (0 or 1) of a watched run; return the alarm.

    It rings when the last held-out loss lies more than 5 % above the best on the way, or above the untrained network's.
    """
    losses = history["held_out_loss"]
    last, best = float(losses.iloc[-1]), float(losses.min())
    rings = last > DIVERGED * best or last > start
    told = {"final_over_best": last / best, "final_over_start": last / start, "late_slope": late_slope(losses)}
    for name, value in (told | {"alarm": int(rings)}).items():
        run.metric(name, value, **labels)
    return rings


def spread(run: records.Run, found: Mapping[str, Mapping[str, float]], **labels) -> float:
    """Record strategy_range, the largest less the smallest pair trends over the strategies, and return it."""
    values = [scores["pair_trends"] for scores in found.values()]
    run.metric("strategy_range", max(values) - min(values), **labels)
    return max(values) - min(values)


def difference(
    run: records.Run, of: Mapping[str, float], minus: Mapping[str, float], /, **labels
) -> dict[str, float]:
    """Record <metric>_difference of two results on the same split and seed, and return them."""
    told = {name: of[name] - minus[name] for name in DIFFERENCES}
    for name, value in told.items():
        run.metric(f"{name}_difference", value, **labels)
    return told


def cost_of_privacy(
    run: records.Run, private: Mapping[str, float], free: Mapping[str, float], **labels
) -> dict[str, float]:
    """Record <metric>_change, the change in per cent from the non-DP twin (claims F3 and F2), and return them."""
    told = {name: 100 * (private[name] - free[name]) / free[name] for name in ("pair_trends", "roc_auc")}
    for name, value in told.items():
        run.metric(f"{name}_change", value, **labels)
    return told
