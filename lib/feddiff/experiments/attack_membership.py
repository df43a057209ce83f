"""DP-Fed-FinDiff under membership attacks: one pool of records, each in or out of training by a fair coin of its own.

The same records, timesteps, noises and rounds for every budget. The codec knows public ranges only: its quantiles come
from the reference, its labels from the table's codebook, so that pre-processing never sees a non-member, nor a member.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from feddiff.attacks import audit, membership_blackbox as black, membership_tables as white, shadow_game
from feddiff.data import partitions
from feddiff.data.codec import TableCodec
from feddiff.data.columns import CategoryColumn
from feddiff.data.tables import Table
from feddiff.evaluation import closeness, membership
from feddiff.experiments import findiff_study as study, records
from feddiff.federation.client import load_flat_weights
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import derive, numpy_generator, torch_generator
from feddiff.systems import findiff

# Fixed before any score was seen: small steps of T = 100, where the noise is 7 to 60 % of the signal's size.
TIMES = (2, 5, 10, 20)
RATES = (0.1, 0.01, 0.001)
# Records guessed in a one-run audit: so large a share of the highest scores as in, of the lowest as out.
GUESSED = 0.1
OUTLIERS = 0.1
BATCH = 64


@dataclass(frozen=True, eq=False)
class Game:
    """Records and which of them were trained on, a reference the adversary holds, and what is public.

    pool: the records asked about, `inside` bool (n,); outlying: the share OUTLIERS of them farthest from their
    neighbours. setting: the members split over clients; its held-out rows are the non-members. reference: disjoint.
    """

    pool: Table
    inside: np.ndarray
    outlying: np.ndarray
    reference: Table
    codec: TableCodec
    setting: study.Federation


def game(table: Table, *, size: int, clients: int, seed: int) -> Game:
    """Draw a pool of `size` records and as many reference rows from a table (fewer where it has fewer)."""
    size = min(size, len(table) // 2)
    order = numpy_generator(seed, "membership").permutation(len(table))
    pool, reference = table.select(order[:size]), table.select(order[size : 2 * size])
    inside = numpy_generator(seed, "coins").random(size) < 0.5
    outlying = np.zeros(size, dtype=bool)
    outlying[shadow_game.outliers(pool.frame, round(OUTLIERS * size), kinds=pool.kinds)] = True
    setting = _federation(pool.select(inside), pool.select(~inside), clients, seed, "target")
    return Game(pool, inside, outlying, reference, public_codec(table, reference), setting)


def recipe(epsilon: str, *, scale: str, rounds: int, delta: float = 1e-5) -> findiff.FinDiffConfig:
    """Return our recipe at a budget ("inf": no DP), with equal rounds, updates and batches for all budgets."""
    finite = None if epsilon == "inf" else float(epsilon)
    return findiff.ours(epsilon=finite, scale=scale, R=rounds, S=10, B=BATCH, delta=delta, preprocessing="public")


def shadows(played: Game, config: findiff.FinDiffConfig, count: int) -> list[white.Shadow]:
    """Return models of the adversary, trained as the target on so many reference rows; the rest are their others.

    Their seeds are their own: under the target's they would share its DP noise, which no adversary knows.
    """
    found, members = [], int(played.inside.sum())
    for place in range(count):
        order = numpy_generator(played.setting.seed, "shadow", place).permutation(len(played.reference))
        own, others = played.reference.select(order[:members]), played.reference.select(order[members:])
        clients = len(played.setting.clients)
        setting = _federation(own, others, clients, derive(played.setting.seed, "shadow", place), f"shadow-{place}")
        run = study.trained(setting, config, public=played.codec, progress=False)
        found.append(white.Shadow(run.loss_per_record, own.frame, others.frame))
    return found


def gradient_norms(model: findiff.FinDiffRun, seed: int) -> Callable:
    """Return the callable (records, t, noise) -> (n,), the norm of each record's gradient over all weights."""
    def norms(frame: pd.DataFrame, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
        rows = model.prepared.encode(frame, numpy_generator(seed, "ties", "scoring"))
        x0 = model.head.space.embed(rows.codes, rows.numbers)
        t, noise = torch.from_numpy(t), torch.from_numpy(noise)
        load_flat_weights(model.network, model.federation.weights())
        options = dict(clip_norm=math.inf, noise_multiplier=0.0, expected_batch=1.0, microbatch=200)
        with PrivateStep(model.network, noise=GaussianNoise(torch_generator(seed, "none")), **options) as step:
            return step.gradient(
                lambda i: model.head.loss(model.network, x0[i], rows.codes[i], rows.labels[i], t[i], noise[i]), len(t)
            ).norms.numpy()

    return norms


def white_box(
    played: Game, model: findiff.FinDiffRun, known: Sequence[white.Shadow], *, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Return name -> scores of the pool by what the model's weights tell; calibrated and learned on the shadows."""
    noises = white.fixed_noises(model.head.space.dim, draws, numpy_generator(seed, "noises"))
    asked = dict(times=TIMES, noises=noises)
    frame = played.pool.frame
    found = white.losses(model.loss_per_record, frame, **asked)
    scores = {"loss": white.loss_scores(found)}
    if known:
        reference = np.mean([white.losses(shadow.per_record, frame, **asked) for shadow in known], axis=0)
        scores["calibrated"] = white.loss_scores(found, reference)
        scores["shadow"] = white.shadow_trained(
            model.loss_per_record, frame, known, classifier="logistic", seed=seed, **asked
        )
    few = dict(times=TIMES[1:2], noises=noises[:4])
    scores["gradient"] = white.loss_scores(white.losses(gradient_norms(model, seed), frame, **few))
    return scores


def black_box(played: Game, synthetic: pd.DataFrame, *, seed: int) -> dict[str, np.ndarray]:
    """Return name -> scores of the pool by a release alone."""
    kinds = played.pool.kinds
    return black.all_scores(black.compare(played.pool.frame, synthetic, played.reference.frame, kinds=kinds), seed=seed)


def record(run: records.Run, played: Game, found: dict[str, np.ndarray], *, seed: int, **labels) -> dict[str, float]:
    """Record AUC (all records and outliers), TPR at RATES and advantage of every attack; return the AUCs.

    Of AUC and TPR with the ends of the 95 % interval over records, `_low` and `_high` (TPR: Clopper and Pearson's over
    the members, the threshold taken as given). A rate that the non-members cannot resolve has no value, and says why.
    Attack "permuted": the first attack's scores with membership dealt out anew; what chance looks like here.
    """
    first = next(iter(found.values()))
    control = numpy_generator(seed, "permuted", *map(str, labels.values())).permutation(first)
    areas = {}
    for name, scores in (found | {"permuted": control}).items():
        for group, mask in (("all", np.ones_like(played.inside)), ("outliers", played.outlying)):
            sides = scores[mask & played.inside], scores[mask & ~played.inside]
            where = dict(attack=name, group=group, **labels)
            if group == "outliers":
                run.metric("membership_auc", membership.auc(*sides), **where)
                continue
            judged = membership.report(*sides, false_positive_rates=RATES).set_index("measure")
            areas[name] = judged.loc["auc", "value"]
            run.metric("advantage", judged.loc["advantage", "value"], **where)
            wanted = {"auc": "membership_auc"} | {f"tpr_at_{rate:g}": power_at(rate) for rate in RATES}
            for measure, metric in wanted.items():
                for end, value in judged.loc[measure, ["value", "low", "high"]].items():
                    missing = None if math.isfinite(value) else f"not resolved by {len(sides[1])} non-members"
                    run.metric(metric if end == "value" else f"{metric}_{end}", None if missing else value,
                               reason=missing, **where)
    return areas


def power_at(rate: float) -> str:
    """Return the name of the metric that holds the true positive rate at a false positive rate: 0.001 is 0.1 %."""
    return f"tpr_at_{100 * rate:g}_percent".replace(".", "_")


def lower_bound(played: Game, found: dict[str, np.ndarray], *, delta: float) -> float:
    """Return a lower bound on epsilon that holds at 95 %, the largest over attacks (Bonferroni), from one training.

    Steinke et al. (2023): every record's coin is fair and its own; the share GUESSED of highest scores is guessed in,
    of lowest out, a number fixed beforehand.
    """
    guessed, bounds = round(GUESSED * len(played.pool)), []
    for scores in found.values():
        order = np.argsort(scores, kind="stable")
        correct = int(played.inside[order[-guessed:]].sum() + (~played.inside[order[:guessed]]).sum())
        bounds.append(audit.one_run_epsilon(
            canaries=len(played.pool), guesses=2 * guessed, correct=correct, delta=delta, significance=0.05 / len(found)
        ))
    return max(bounds)


def copies(run: records.Run, played: Game, synthetic: pd.DataFrame, *, seed: int, **labels) -> float:
    """Record the shares of members and of non-members with an exact copy, and closer_to_train; return the latter."""
    kinds = played.pool.kinds
    near = closeness.distance_to_closest_record(played.pool.frame, synthetic, kinds=kinds) == 0
    inside, outside = near[played.inside].mean(), near[~played.inside].mean()
    for name, value in (("copied", inside), ("copied_control", outside), ("copied_excess", inside - outside)):
        run.metric(name, float(value), **labels)
    seen = closeness.copy_detector(
        synthetic, played.setting.train.frame, played.setting.test.frame, kinds=kinds,
        generator=numpy_generator(seed, "copies"),
    )
    run.metric("closer_to_train", seen.closer_to_train, **labels)
    return seen.closer_to_train


def agreement(run: records.Run, scores: pd.DataFrame, **labels) -> float:
    """Record how alike metrics (columns) rank releases (rows): Kendall's tau-b for each pair, in [-1, 1]; their mean.

    A metric that is the same for every release ranks nothing: its pairs count as 0, no agreement.
    """
    found = []
    for one, other in combinations(scores.columns, 2):
        tau = float(kendalltau(scores[one], scores[other]).statistic)
        found.append(0.0 if math.isnan(tau) else tau)
        run.metric("rank_agreement", found[-1], metric=one, other=other, **labels)
    run.metric("rank_agreement_mean", float(np.mean(found)), **labels)
    return float(np.mean(found))


def arm(
    run: records.Run, played: Game, config: findiff.FinDiffConfig, known: Sequence[white.Shadow], *, epsilon: str,
    draws: int, games: int, delta: float, seed: int,
) -> dict[str, float]:
    """Train and record one target: attacks on weights and release, bounds, copies, games; return what metrics say."""
    model = study.trained(played.setting, config, public=played.codec, progress=False)
    release = model.sample(len(played.setting.train), seed=seed)
    scores = {
        "white": white_box(played, model, known, draws=draws, seed=seed), "black": black_box(played, release, seed=seed)
    }
    place = dict(release="ours", epsilon=epsilon)
    run.privacy(model.privacy, epsilon=epsilon)
    areas = {view: record(run, played, found, seed=seed, view=view, **place) for view, found in scores.items()}
    for view, found in scores.items():
        _bound(run, lower_bound(played, found, delta=delta), model.privacy["epsilon"], bound=view, epsilon=epsilon)
    return {
        "white_auc": areas["white"]["loss"], "domias_auc": areas["black"]["domias"],
        "distance_auc": areas["black"]["closest"],
        "closer_to_train": copies(run, played, release, seed=seed, **place),
        "attack_risk": float(study.attack(run, played.setting, release, attacks=games, **place)
                             .set_index("game")["risk"]["mean"]),
    }


def control(run: records.Run, played: Game, name: str, *, seed: int) -> dict[str, float]:
    """Record the black-box attacks on a release that is a "copy" of the members, or "fresh" rows; return the AUCs.

    Fresh rows are every other reference row; the adversary then holds the rest.
    """
    fresh, rest = (played.reference.select(np.arange(start, len(played.reference), 2)) for start in (0, 1))
    release, place = (played.setting.train if name == "copy" else fresh).frame, dict(release=name, epsilon="none")
    copies(run, played, release, seed=seed, **place)
    found = black_box(replace(played, reference=rest), release, seed=seed)
    return record(run, played, found, seed=seed, view="black", **place)


def outlier(
    run: records.Run, played: Game, epsilon: str, *, rows: int, trials: int, delta: float, seed: int
) -> shadow_game.Outcome:
    """Play and record the record-level game on the most outlying of `rows` reference rows: a small model a trial."""
    table = played.reference.select(np.arange(rows))
    place = shadow_game.outliers(table.frame, 1, kinds=table.kinds)
    fixed, spent = table.select(np.setdiff1d(np.arange(rows), place)), []
    config = replace(recipe(epsilon, scale="quick", rounds=6), S=5, B=32, T=40, hidden=(64,), ema=0.0, delta=delta)

    def train_and_release(frame: pd.DataFrame, own: int) -> pd.DataFrame:
        clients = [replace(table, frame=frame)]
        model = findiff.train(clients, replace(config, seed=own), public=played.codec, progress=False)
        spent.append(model.privacy["epsilon"])
        return model.sample(rows, seed=own)

    outcome = shadow_game.play(
        train_and_release, fixed.frame, table.select(place).frame, trials=trials, seed=seed, kinds=table.kinds
    )
    counts = audit.threshold_counts(outcome.scores, outcome.present, fit=outcome.fit)
    run.metric("outlier_auc", membership.auc(*outcome.tested), epsilon=epsilon)
    _bound(run, audit.clopper_pearson_epsilon(**counts, delta=delta), max(spent), bound="outlier", epsilon=epsilon)
    return outcome


def _bound(run: records.Run, proved: float, spent: float, **labels) -> None:
    run.metric("epsilon_lower", proved, **labels)
    if math.isfinite(spent):
        run.metric("epsilon_spent", spent, **labels)
        run.metric("epsilon_excess", proved - spent, **labels)


def _federation(train: Table, test: Table, clients: int, seed: int, name: str) -> study.Federation:
    parts = partitions.iid(len(train), clients, numpy_generator(seed, "partition", name))
    members = tuple(train.select(part) for part in parts)
    identity = f"{train.sha256} membership {name} rows={len(train)},{len(test)} seed={seed} clients={clients}"
    return study.Federation(train=train, test=test, clients=members, rows=len(train), seed=seed, identity=identity)


def public_codec(table: Table, reference: Table) -> TableCodec:
    """Return a codec of public knowledge: quantiles of the reference rows, labels of the table's codebook."""
    fitted = TableCodec.fit(
        reference.frame, table.kinds, columns=table.features, numerics="quantile-ties", provenance="public"
    )
    # The labels of the whole table stand in for its published codebook, and so does where numbers may be missing.
    columns = [
        CategoryColumn.fit(table.frame[column.name]) if isinstance(column, CategoryColumn)
        else replace(column, missing=bool(table.frame[column.name].isna().any()))
        for column in fitted.columns
    ]
    return TableCodec(tuple(columns), "public")
