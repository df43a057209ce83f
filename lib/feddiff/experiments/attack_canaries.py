"""Input-space canaries in a training of DP-Fed-FinDiff: what one whole run proves about its epsilon (one-run audits).

One training a budget, on the same rows, canaries and coins; the codec knows public ranges and labels only, as in
`attack_membership`. Neighbours differ in one canary at one client: who would hold it does not depend on any coin. The
accountant takes the numbers of rows and of each label as public, and the scores read neither.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from feddiff.attacks import audit, input_canaries, membership_tables as white
from feddiff.data import partitions
from feddiff.data.codec import TableCodec
from feddiff.data.tables import Table
from feddiff.evaluation import membership
from feddiff.experiments import findiff_study as study, records
from feddiff.experiments.attack_membership import TIMES, public_codec
from feddiff.experiments.audit_family import Audit
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

# Share of the canaries that is guessed, and noises a score is averaged over: fixed before any score was seen.
GUESSED = 0.5
DRAWS = 8
BOUNDS = {"one_run": audit.one_run_epsilon, "one_run_fdp": audit.one_run_fdp_epsilon}


@dataclass(frozen=True, eq=False)
class Planted:
    """canaries: the records asked about; coins: bool (m,), trained on or not; codec: public; setting: the training."""

    canaries: Table
    coins: np.ndarray
    codec: TableCodec
    setting: study.Federation


@dataclass(frozen=True, eq=False)
class Seen:
    """What one training told: counts of guesses for the one-run bounds, by the real coins and by permuted ones."""

    counts: dict[str, int]
    permuted: dict[str, int]
    epsilon: float

    def audits(self, claimed: float, *, delta: float, **labels) -> list[Audit]:
        """Return the audits of the claim that this training was (claimed, delta)-DP, one for each of BOUNDS."""
        labels = dict(audit="input canaries", **labels)
        return [
            Audit(partial(bound, delta=delta, **self.counts), claimed, dict(bound=name, **labels))
            for name, bound in BOUNDS.items()
        ]


def plant(
    table: Table, *, rows: int, canaries: int, clients: int, seed: int, coins: np.ndarray | None = None
) -> Planted:
    """Draw `rows` ordinary rows, craft canaries from the others, and insert each by its coin (`coins`: given ones).

    ValueError where the table has no rows left to craft from, or the coins are not one a canary.
    """
    if not 0 < rows < len(table):
        raise ValueError(f"rows must leave some of the {len(table)} of {table.name} to craft canaries from, got {rows}")
    order = numpy_generator(seed, "input canaries", "rows").permutation(len(table))
    ordinary, reference = table.select(order[:rows]), table.select(order[rows:])
    made = input_canaries.craft(
        reference.frame, table.kinds, target=table.target, canaries=canaries,
        generator=numpy_generator(seed, "input canaries", "craft"),
    ).frame
    if coins is None:
        coins = numpy_generator(seed, "input canaries", "coins").random(canaries) < 0.5
    coins = np.asarray(coins, dtype=bool)
    if coins.shape != (canaries,):
        raise ValueError(f"coins must be one for each of the {canaries} canaries, got shape {coins.shape}")
    everyone = replace(table, frame=pd.concat([ordinary.frame, made], ignore_index=True))
    there = np.concatenate([np.ones(rows, dtype=bool), coins])
    parts = partitions.iid(len(everyone), clients, numpy_generator(seed, "input canaries", "partition"))
    setting = study.Federation(
        train=everyone.select(there), test=replace(table, frame=made[~coins].reset_index(drop=True)),
        clients=tuple(everyone.select(part[there[part]]) for part in parts), rows=rows, seed=seed,
        identity=f"{table.sha256} input canaries={canaries} rows={rows} seed={seed} clients={clients} "
                 f"coins={hashlib.sha256(coins.tobytes()).hexdigest()[:16]}",
    )
    return Planted(replace(table, frame=made), coins, public_codec(table, reference), setting)


def scores(planted: Planted, model: findiff.FinDiffRun) -> np.ndarray:
    """Return one score a canary, higher = trained on: less denoising loss at TIMES, the same noises for each, (m,)."""
    noises = white.fixed_noises(
        model.head.space.dim, DRAWS, numpy_generator(planted.setting.seed, "input canaries", "noises")
    )
    return white.loss_scores(white.losses(model.loss_per_record, planted.canaries.frame, times=TIMES, noises=noises))


def guess(planted: Planted, found: np.ndarray, epsilon: float) -> Seen:
    """Return the guesses by scores `found` (m,): the share GUESSED of the canaries, half called in, half out."""
    guesses = 2 * max(1, round(GUESSED * len(found) / 2))
    dealt = numpy_generator(planted.setting.seed, "input canaries", "permuted").permutation(planted.coins)
    return Seen(
        audit.guess_counts(found, planted.coins, guesses), audit.guess_counts(found, dealt, guesses), float(epsilon)
    )


def arm(
    run: records.Run, planted: Planted, config: findiff.FinDiffConfig, *, epsilon: str, significance: float
) -> Seen:
    """Train once at a budget, guess every coin, and record power, lower bounds (permuted beside) and epsilon spent."""
    model = study.trained(planted.setting, config, public=planted.codec, progress=False)
    run.privacy(model.privacy, epsilon=epsilon)
    found = scores(planted, model)
    seen = guess(planted, found, model.privacy["epsilon"])
    run.metric("canary_auc", membership.auc(found[planted.coins], found[~planted.coins]), epsilon=epsilon)
    for coins, counts in (("fair", seen.counts), ("permuted", seen.permuted)):
        run.metric("canary_right", counts["correct"] / counts["guesses"], epsilon=epsilon, coins=coins)
        for name, bound in BOUNDS.items():
            value = bound(delta=config.delta, significance=significance, **counts)
            run.metric("canary_epsilon_lower", value, epsilon=epsilon, bound=name, coins=coins)
    if math.isfinite(seen.epsilon):
        run.metric("canary_epsilon", seen.epsilon, epsilon=epsilon)
    return seen
