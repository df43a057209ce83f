"""Regression anchors: the two executed notebooks of the authors, at their own settings, and what they logged.

`federated` repeats the example of DP-FedTabDiff (credit data, three clients), `central` that of DP-FinDiff (Adult).
Differences that are left: the time embedding has a second layer, `central` draws timesteps uniformly where theirs are
"adaptive", and neither repeats a pseudo-random number of theirs.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import process_time

import numpy as np
import pandas as pd

from feddiff.data.tables import Table
from feddiff.evaluation import fidelity
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.privacy import accounting
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

# DP-FedTabDiff, examples/uci_credit_federated_findiff.ipynb (bc5625c): rows a client, batches an epoch, epochs that
# the noise was calibrated for, rounds of one step that were run, target.
CLIENTS, ROWS, BATCHES, EPOCHS, ROUNDS, TARGET, DELTA = 3, 8_000, 63, 3, 200, 10.0, 1e-5
# What it logged: round -> (denoising error on held-out rows, mean epsilon).
LOGGED = {1: (1.1241, 3.674), 100: (0.9104, 8.245), 189: (0.8456, 9.993), 200: (0.8382, 10.180)}
# The columns that its score read as text on one side and as integers on the other.
MISREAD = ("SEX", "EDUCATION", "MARRIAGE")
HELD_OUT, SAMPLED = 1_500, 1_000
# DP-FinDiff, examples/compact.ipynb: batch, epochs; number columns, the rest typed as categories.
CENTRAL_BATCH, CENTRAL_EPOCHS = 128, 150
CENTRAL_NUMBERS = ("fnlwgt", "capital-gain", "capital-loss")
# Steps that are timed.
TIMED = 20


def calibrated() -> float:
    """Return the noise multiplier for TARGET over the calibrated epochs, by the PLD accountant (0.504)."""
    return accounting.noise_multiplier(
        target_epsilon=TARGET, sample_rate=1 / BATCHES, steps=EPOCHS * BATCHES, delta=DELTA
    )


def epsilon_trace(run: records.Run, sigma: float, rounds: Sequence[int] = tuple(LOGGED)) -> dict[int, float]:
    """Record epsilon after each round (a step a round) beside what the authors logged."""
    trace = {}
    for step in rounds:
        trace[step] = accounting.epsilon(sample_rate=1 / BATCHES, noise_multiplier=sigma, steps=step, delta=DELTA)
        run.metric("epsilon_spent", trace[step], round=step, anchor="federated")
        if step in LOGGED:
            run.metric("epsilon_logged", LOGGED[step][1], round=step, anchor="federated")
    return trace


def federated_config(sigma: float, *, rows: int, rounds: int = ROUNDS, **changes) -> findiff.FinDiffConfig:
    """Return the configuration of DP-FedTabDiff's example; B is rows / 63, for its rate is one over its batches."""
    parts = dict(
        T=100, scale_betas=False, hidden=(128, 128), conditioning="concatenated", body="residual", uniform_output=True,
        freeze_condition=True, R=rounds, S=1, B=round(rows / BATCHES), lr=1e-3, noise_multiplier=sigma, C=1.0,
        delta=DELTA,
    )
    return findiff.paper(**parts | changes)


def federated(
    run: records.Run, setting: study.Federation, config: findiff.FinDiffConfig, rounds: Sequence[int] = tuple(LOGGED),
    **labels,
) -> dict[int, float]:
    """Train with the held-out denoising error of every round; record it at `rounds`, and the scores with and without
    the string bug (D4). Returns round -> error.

    Synthetic rows take the labels of held-out rows and are scored against those, the label left out, each continuous
    column binned between its own extremes, as in the authors' report.
    """
    pick = numpy_generator(setting.seed, "anchor").permutation(len(setting.test))
    # A held-out row with a category that no training row has cannot be encoded (trap D6 is what theirs would do).
    known = pick[~unseen(setting).to_numpy()[pick]]
    watched = setting.test.select(known[:HELD_OUT])
    model = findiff.train(setting.clients, replace(config, seed=setting.seed), progress=False, monitor=watched)
    errors = {row.round + 1: row.held_out_loss for row in model.history.itertuples()}
    for step, error in errors.items():
        if step in rounds or step % max(1, len(errors) // 20) == 0:
            run.metric("denoising_error", float(error), round=step, anchor="federated", **labels)
    for step, (error, _) in LOGGED.items():
        run.metric("denoising_error_logged", error, round=step, anchor="federated")
    real = setting.test.frame.iloc[pick[:SAMPLED]].reset_index(drop=True)
    synthetic = model.sample(len(real), seed=setting.seed, labels=list(real[setting.target]))
    report(run, setting.train, real, synthetic, anchor="federated", read="right", **labels)
    wrong = [name for name in MISREAD if name in real.columns] or [
        name for name in setting.train.features if setting.train.kinds[name] == "categorical"][:len(MISREAD)]
    report(run, setting.train, *misread(real, synthetic, wrong), anchor="federated", read="as_text", **labels)
    return errors


def unseen(setting: study.Federation) -> pd.Series:
    """Return which held-out rows hold a category that no training row has, shape (rows,), bool."""
    lost = pd.Series(False, index=setting.test.frame.index)
    for name in setting.train.features:
        if setting.train.kinds[name] == "categorical":
            lost |= ~setting.test.frame[name].isin(setting.train.frame[name])
    return lost


def misread(real: pd.DataFrame, synthetic: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with `columns` as a reader sees them who takes text for another value than its number (D4)."""
    real, synthetic = real.copy(), synthetic.copy()
    for name in columns:
        real[name] = "number " + real[name].astype(str)
        synthetic[name] = "text " + synthetic[name].astype(str)
    return real, synthetic


def report(
    run: records.Run, table: Table, real: pd.DataFrame, synthetic: pd.DataFrame, **labels
) -> tuple[float, float]:
    """Record column shapes, pair trends and their mean as SDV's report computes them, the label left out."""
    kinds = {name: table.kinds[name] for name in table.features}
    real, synthetic = real[table.features], synthetic[table.features]
    shapes = fidelity.column_shapes(real, synthetic, kinds=kinds)
    pairs = fidelity.pair_trends(real, synthetic, kinds=kinds, edges="own")
    for name, value in (("sdv_shapes", shapes), ("sdv_pairs", pairs), ("sdv_overall", (shapes + pairs) / 2)):
        run.metric(name, value, **labels)
    return shapes, pairs


def central_table(table: Table) -> Table:
    """Return the table typed as in DP-FinDiff's example: its three money columns are numbers, all others categories."""
    absent = [name for name in CENTRAL_NUMBERS if name not in table.frame.columns]
    if absent:
        raise ValueError(f"{table.name} has no column {absent[0]!r}: this anchor is an Adult table")
    kinds = {name: kind if name in CENTRAL_NUMBERS else "categorical" for name, kind in table.kinds.items()}
    return replace(table, kinds=kinds)


def central_config(rows: int, *, epsilon: float | None, epochs: int, **changes) -> findiff.FinDiffConfig:
    """Return the configuration of DP-FinDiff's example: one party, summed errors, moving law of t, cosine decay."""
    steps = epochs * int(np.ceil(rows / CENTRAL_BATCH))
    parts = dict(
        T=500, scale_betas=False, timesteps="adaptive", numerics="standard", reduction="sum", hidden=(512, 512),
        conditioning="concatenated", body="residual", uniform_output=True, freeze_condition=epsilon is not None,
        R=epochs, S=steps // epochs, B=CENTRAL_BATCH, lr=1e-4, lr_schedule="cosine", delta=1e-5,
    )
    return findiff.paper(epsilon=epsilon, **parts | changes)


def central(
    run: records.Run, table: Table, *, epochs: int, seed: int, sampled: int = SAMPLED, **changes
) -> dict[str, tuple[float, float]]:
    """Train one party without and with DP, score against its own training rows, and record the ratio of CPU times."""
    scores, spent = {}, {}
    for privacy, epsilon in (("none", None), ("dp", 10.0)):
        config = replace(central_config(len(table), epsilon=epsilon, epochs=epochs, **changes), seed=seed)
        model = findiff.train([table], config, progress=False)
        client, start = model.federation.clients[0], process_time()
        # The steps alone: preparing the rows and calibrating the noise cost the same once, however long the run.
        client.update(model.federation.weights(), TIMED)
        spent[privacy] = process_time() - start
        rows = table.frame.iloc[numpy_generator(seed, "anchor").permutation(len(table))[:sampled]]
        synthetic = model.sample(len(rows), seed=seed, labels=list(rows[table.target]))
        scores[privacy] = report(run, table, table.frame, synthetic, anchor="central", privacy=privacy)
        run.privacy(model.privacy, anchor="central", privacy=privacy)
    run.metric("dp_time_ratio", spent["dp"] / spent["none"], anchor="central")
    run.metric("epochs", epochs, anchor="central")
    return scores
