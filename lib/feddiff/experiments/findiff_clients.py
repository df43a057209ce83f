"""DP-Fed-FinDiff over 1 to 20 clients that share the same rows: splits, controls, and what a whole client is promised.

Training and held-out rows stay the same; what differs is who holds which row, and what noise each client adds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import binom, ks_2samp

from feddiff.data import partitions
from feddiff.data.tables import Table
from feddiff.experiments import findiff_rounds as rounds
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.experiments.findiff_study import Federation
from feddiff.privacy import accounting
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems import findiff

# The column whose categories make the non-IID split: none is the label, none gives a client nearly all rows.
CATEGORY = {
    "adult": "occupation", "adult-full": "occupation", "bank-marketing": "job", "marketing-full": "job",
    "credit-default": "PAY_0", "philadelphia": "department_title",
}
LEAST = 128  # rows of the smallest client of a split by category; with fewer the split is left out
WIDE_ROWS, WIDE_RELEASE = 4_000, 1_000
HEADLINE = ("column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc")


def is_wide(table: Table) -> bool:
    """Say whether a column has so many levels that a logit for each makes every step and every sample slow."""
    return any(table.kinds[c] == "categorical" and table.frame[c].nunique() > study.WIDE for c in table.features)


def category_of(table: Table, category: str = "") -> str:
    """Return the column to split by: `category` if given, else CATEGORY's; ValueError when neither names one."""
    chosen = category or CATEGORY.get(table.name, "")
    if chosen not in table.features or table.kinds[chosen] not in ("categorical", "boolean"):
        raise ValueError(f"{table.name} has no categorical feature {chosen!r}: name one to split by in `category`")
    return chosen


def splits(
    table: Table,
    counts: Sequence[int],
    by_category: Sequence[int],
    *,
    category: str = "",
    seed: int,
    rows: int,
    max_rows: int | None,
) -> dict[tuple[str, int], Federation]:
    """Return (partition, clients) -> federation of the same rows: "iid" for `counts`, "by_category" for `by_category`.

    Tables with a very wide column keep WIDE_ROWS rows and WIDE_RELEASE synthetic ones. A split by category that would
    leave a client fewer than LEAST rows is left out.
    """
    if is_wide(table):
        rows, max_rows = min(rows, WIDE_RELEASE), min(max_rows or WIDE_ROWS, WIDE_ROWS)
    sizes = dict(seed=seed, rows=rows, max_rows=max_rows)
    found = {("iid", count): study.split(table, clients=count, **sizes) for count in counts}
    column = category_of(table, category)
    train = next(iter(found.values())).train.frame[column]
    for count in by_category:
        enough = train.nunique(dropna=False) >= count
        if enough and min(map(len, partitions.by_category(train, count))) >= LEAST:
            found["by_category", count] = study.split(table, clients=count, partition=column, **sizes)
    return found


def arms(base: findiff.FinDiffConfig, sigma: float) -> dict[str, findiff.FinDiffConfig]:
    """Return the same training at a fixed epsilon of each client, at a fixed noise multiplier, and without DP."""
    return {
        "epsilon": base,
        "sigma": replace(base, epsilon=None, noise_multiplier=sigma),
        "none": replace(base, epsilon=None),
    }


def label(config: findiff.FinDiffConfig, budget: str) -> dict:
    """Return the labels of an arm: its budget, and epsilon where it is a target ("inf" without DP)."""
    told = {"epsilon": config.epsilon, "none": "inf"}.get(budget)
    return {"budget": budget} | ({} if told is None else {"epsilon": told})


def federated(
    run: records.Run, setting: Federation, config: findiff.FinDiffConfig, *, attacks: int = 0, **labels
) -> tuple[findiff.FinDiffRun, pd.DataFrame]:
    """Train over all clients of `setting` and record quality, privacy statement and noise; return run and release.

    client_epsilon: of the worst client. noise_multiplier: the largest. averaged_noise: standard deviation of the noise
    in the average gradient, sqrt(sum_k (n_k / n * sigma_k)^2) C / B, when the clients take one step together. Trained
    as in `findiff_rounds`, so that notebooks 11 and 13 share what they have in common.
    """
    model = rounds.watched(setting, config)
    synthetic = model.sample(setting.rows, seed=setting.seed)
    study.judge(run, setting, synthetic, copies=False, **labels)
    if attacks:
        study.attack(run, setting, synthetic, attacks=attacks, **labels)
    run.privacy(model.privacy, **labels)
    if config.private:
        sigmas = np.array(model.prepared.noise_multipliers, dtype=float)
        share = np.array([len(client) for client in setting.clients], dtype=float)
        run.metric("client_epsilon", model.privacy["epsilon"], **labels)
        run.metric("noise_multiplier", float(sigmas.max()), **labels)
        averaged = float(np.linalg.norm(share / share.sum() * sigmas)) * config.C / config.B
        run.metric("averaged_noise", averaged, **labels)
    return model, synthetic


def local_only(
    run: records.Run, setting: Federation, config: findiff.FinDiffConfig, **labels
) -> dict[str, dict[str, float]]:
    """Train every client alone and record method "local" (mean of the clients' own releases) and "local_pooled".

    Each client's release has as many rows as the others' and is judged by itself, against the same held-out rows, with
    the label `client`. local_pooled: every client releases its share of the rows, put together.
    """
    scores, parts, total = [], [], len(setting.train)
    for k, client in enumerate(setting.clients):
        alone = replace(setting, clients=(client,), identity=f"{setting.identity} alone={k}")
        model = study.trained(alone, config, progress=False)
        release = model.sample(setting.rows, seed=setting.seed)
        scores.append(study.judge(run, setting, release, copies=False, method="local", client=k, **labels))
        run.privacy(model.privacy, method="local", client=k, **labels)
        parts.append(release.iloc[: round(setting.rows * len(client) / total)])
    mean = {name: float(np.mean([own[name] for own in scores])) for name in HEADLINE}
    for name, value in mean.items():
        more = {"classifier": "boosting"} if name == "roc_auc" else {}
        run.metric(name, value, method="local", **more, **labels)
    pooled = pd.concat(parts, ignore_index=True)
    return {
        "local": mean,
        "local_pooled": study.judge(run, setting, pooled, copies=False, method="local_pooled", **labels),
    }


@dataclass(frozen=True)
class Presence:
    """Share of a client's categories in releases with and without it; advantage of telling the two releases apart."""

    client: int
    present: float
    absent: float
    advantage: float


def presence(
    run: records.Run, setting: Federation, config: findiff.FinDiffConfig, release: pd.DataFrame, column: str,
    *, chunk: int = 50, **labels
) -> Presence:
    """Train without one client of a split by category, and tell from the release whether it took part.

    `release`: of the same training with everyone. The client left out is the one whose rows are nearest to an equal
    share. Both trainings use one codec of all rows, so that the vocabulary gives nothing away. advantage: the largest
    TPR less FPR of a threshold on the client's rows among `chunk` released rows; one model a side, so no statement
    about training randomness.
    """
    sizes = np.array([len(client) for client in setting.clients])
    k = int(np.argmin(np.abs(sizes - len(setting.train) / len(sizes))))
    own = set(setting.clients[k].frame[column].unique())
    rest = tuple(client for place, client in enumerate(setting.clients) if place != k)
    codec, _ = study.codecs(setting)
    without = replace(setting, clients=rest, identity=f"{setting.identity} without={k}")
    model = study.trained(without, replace(config, preprocessing="public"), public=codec, progress=False)
    shown = [frame[column].isin(own).to_numpy() for frame in (release, model.sample(len(release), seed=setting.seed))]
    counts = [hits[: len(hits) // chunk * chunk].reshape(-1, chunk).sum(axis=1) for hits in shown]
    found = Presence(k, *(float(hits.mean()) for hits in shown), float(ks_2samp(*counts).statistic))
    run.metric("client_share", found.present, presence="in", **labels)
    run.metric("client_share", found.absent, presence="out", **labels)
    run.metric("presence_advantage", found.advantage, **labels)
    return found


def _most_in_a_batch(rows: int, rate: float, steps: int, delta: float) -> int:
    """Return a batch size that no step passes, but with probability delta / 2 over all steps (union bound)."""
    return min(rows, int(binom.isf(delta / 2 / steps, rows, rate)))


def whole_client_epsilon(*, rows: int, sample_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Return an epsilon at `delta` for adding or removing a client with all its `rows`; an upper bound.

    A step adds N(0, (sigma C)^2) to a sum of at most b clipped gradients, so without the client it moves by at most
    b C; b bounds all batches but with probability delta / 2. T steps are one Gaussian release at sigma / (b sqrt(T))
    with the other half of delta (Dong, Roth and Su 2022, composition of mu-GDP; Balle and Wang 2018, Theorem 8).
    """
    largest = _most_in_a_batch(rows, sample_rate, steps, delta)
    ratio = noise_multiplier / (largest * math.sqrt(steps))
    return accounting.gaussian_epsilon(noise_over_sensitivity=ratio, delta=delta / 2)


def whole_client_noise(*, target_epsilon: float, rows: int, sample_rate: float, steps: int, delta: float) -> float:
    """Return the noise multiplier at which `whole_client_epsilon` is `target_epsilon`."""
    ratio = accounting.gaussian_noise(target_epsilon=target_epsilon, delta=delta / 2)
    return ratio * _most_in_a_batch(rows, sample_rate, steps, delta) * math.sqrt(steps)


def largest_group(*, epsilon: float, delta: float) -> int:
    """Return the most records for which group privacy still says something: its delta stays below 1.

    (eps, delta) for a record gives (k eps, delta (e^(k eps) - 1) / (e^eps - 1)) for k (Dwork and Roth 2014, ch. 2.3).
    """
    return math.floor(math.log1p(math.expm1(epsilon) / delta) / epsilon - 1e-12)


def promise(
    run: records.Run, setting: Federation, config: findiff.FinDiffConfig, model: findiff.FinDiffRun,
    groups: Sequence[int], **labels
) -> Mapping[str, float]:
    """Record what the ledger promises to k records together, and to a whole client (the worst); return the latter.

    group_epsilon: label `records`, exact composition over the person's rows. client_level_epsilon: all rows of one
    client. client_level_noise: how many times the noise a whole client would need for the epsilon of a record.
    """
    ledger: PrivacyLedger = model.federation.ledger
    for count in groups:
        run.metric("group_epsilon", ledger.group(count), records=count, **labels)
    steps, worst, times = config.R * config.S, 0.0, 0.0
    for client, sigma in zip(setting.clients, model.prepared.noise_multipliers, strict=True):
        one = dict(rows=len(client), sample_rate=config.B / len(client), steps=steps, delta=config.delta)
        worst = max(worst, whole_client_epsilon(noise_multiplier=sigma, **one))
        times = max(times, whole_client_noise(target_epsilon=config.epsilon, **one) / sigma)
    told = {
        "client_level_epsilon": worst,
        "client_level_noise": times,
        "largest_group": largest_group(epsilon=config.epsilon, delta=config.delta),
    }
    for name, value in told.items():
        run.metric(name, value, **labels)
    return told
