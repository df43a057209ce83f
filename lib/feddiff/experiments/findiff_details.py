"""Details of the authors' code and of how results were scored: each one changed alone, on the same split.

All arms take the authors' parts (recipe `paper`: noise regressed on all coordinates, nearest random token) at one size
and horizon, since these are claims about that code.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from feddiff.data import partitions
from feddiff.data.tables import Table
from feddiff.evaluation import closeness, fidelity
from feddiff.evaluation.utility import utility
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.federation.client import load_flat_weights
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

SCALERS = ("standard", "quantile", "quantile-ties")
PARTITIONS = ("iid", "label", "attribute", "dirichlet")
DIRICHLET = 0.5
# Rows that every client of a drawn partition keeps: training needs at least one expected batch.
LEAST_ROWS = 400
# DP-FinDiff's two changes (F19): arm -> (reduction of a record's loss, law of the timesteps), and the gain of utility
# in per cent that is reported of it second-hand.
ABLATION = {
    "mean_uniform": ("mean", "uniform"), "sum_uniform": ("sum", "uniform"), "mean_adaptive": ("mean", "adaptive"),
    "sum_adaptive": ("sum", "adaptive"),
}
REPORTED_GAIN = {"sum_uniform": 0.13, "mean_adaptive": 1.22, "sum_adaptive": 2.20}
# Below this cost of DP a share of it is noise over noise.
LEAST_COST = 0.01
# Seed of the base arm's twin, which shows what nothing but another training seed does.
AGAIN = 1_000


def recipe(*, epsilon: float | None = None, **changes) -> findiff.FinDiffConfig:
    """Return the authors' parts with the network of their rebuilt code (residual blocks, condition concatenated)."""
    parts = dict(T=100, conditioning="concatenated", body="residual", uniform_output=True)
    return findiff.paper(epsilon=epsilon, **parts | changes)


def scored(
    run: records.Run, setting: study.Federation, config: findiff.FinDiffConfig, *, rows: int | None = None, **labels
) -> tuple[findiff.FinDiffRun, pd.DataFrame, dict[str, float]]:
    """Train, sample and judge one arm; return the run, its synthetic rows and the headline numbers."""
    model = study.trained(setting, config, progress=False)
    synthetic = model.sample(rows or setting.rows, seed=setting.seed)
    scores = study.judge(run, setting, synthetic, copies=False, **labels)
    run.privacy(model.privacy, **labels)
    return model, synthetic, scores


def freezing(run: records.Run, setting: study.Federation, *, epsilon: float, **recipe_) -> dict[str, float]:
    """Train with the condition trained and frozen, without DP and at `epsilon`; record the share that freezing takes.

    freezing_share, a label `quality`: what freezing costs without DP over what DP with frozen parts costs against
    training all parts without (F38), the comparison that the authors' code makes. Missing where the latter is below
    LEAST_COST.
    """
    found = {}
    for target in (None, epsilon):
        for condition in ("trained", "frozen"):
            config = recipe(epsilon=target, freeze_condition=condition == "frozen", **recipe_)
            _, _, found[condition, target] = scored(run, setting, config, condition=condition, epsilon=target or "inf")
    shares = {}
    for name in ("pair_trends", "roc_auc"):
        whole = found["trained", None][name] - found["frozen", epsilon][name]
        small = whole < LEAST_COST
        shares[name] = float("nan") if small else (found["trained", None][name] - found["frozen", None][name]) / whole
        reason = f"DP costs less than {LEAST_COST}" if small else None
        run.metric("freezing_share", None if small else shares[name], reason=reason, quality=name)
    return shares


def retyped(table: Table, column: str) -> Table:
    """Return the table with a number column typed as categorical (F46: AGE in the authors' two repositories)."""
    if table.kinds.get(column) not in ("integer", "numeric"):
        raise ValueError(f"{column!r} is no number column of {table.name}; number columns are "
                         f"{[name for name, kind in table.kinds.items() if kind in ('integer', 'numeric')]}")
    return replace(table, kinds=table.kinds | {column: "categorical"})


def age_of(table: Table) -> str:
    """Return the name of the column that holds an age; ValueError where there is none."""
    for name in table.features:
        if name.lower() == "age":
            return name
    raise ValueError(f"{table.name} has no column named age; its columns are {table.features}")


def spread(setting: study.Federation, kind: str, attribute: str, clients: int) -> study.Federation:
    """Return the same training rows over `clients` clients: "iid", one "label" a client, "attribute" or "dirichlet".

    With fewer classes than clients "label" has as many clients as there are classes.
    """
    labels = setting.train.frame[setting.target]
    generator = numpy_generator(setting.seed, "partition", kind)
    if kind == "iid":
        parts = partitions.iid(len(labels), clients, generator)
    elif kind == "label":
        parts = partitions.by_category(labels, min(clients, labels.nunique()))
    elif kind == "attribute":
        parts = partitions.by_category(setting.train.frame[attribute], clients)
    elif kind == "dirichlet":
        parts = _dirichlet(labels, clients, generator)
    else:
        raise ValueError(f"kind must be one of {PARTITIONS}, got {kind!r}")
    members = tuple(setting.train.select(part) for part in parts)
    return replace(setting, clients=members, identity=f"{setting.identity} spread={kind} {attribute} {clients}")


def _dirichlet(labels: pd.Series, clients: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Return the first draw whose clients all hold LEAST_ROWS rows; ValueError after a hundred."""
    for _ in range(100):
        parts = partitions.dirichlet(labels, clients, DIRICHLET, generator, redraws=100)
        if min(map(len, parts)) >= LEAST_ROWS:
            return parts
    raise ValueError(f"no Dirichlet({DIRICHLET}) draw left {LEAST_ROWS} rows to each of {clients} clients")


def attribute_of(setting: study.Federation, clients: int) -> str:
    """Return the categorical column, not the label, that splits the training rows over clients most evenly."""
    smallest = {}
    for name in setting.train.features:
        column = setting.train.frame[name]
        if setting.train.kinds[name] == "categorical" and column.nunique(dropna=False) >= clients:
            smallest[name] = min(map(len, partitions.by_category(column, clients)))
    if not smallest:
        raise ValueError(f"{setting.train.name} has no categorical column with {clients} values or more")
    return max(smallest, key=smallest.get)


def revealed(setting: study.Federation) -> float:
    """Return the share of rows whose client one names right from the label alone, guessing each label's main client.

    1 where a label belongs to one client; the largest client's share where labels say nothing. In [1/clients, 1].
    """
    table = pd.concat([client.frame[setting.target].value_counts() for client in setting.clients], axis=1).fillna(0)
    return float(table.max(axis=1).sum() / table.to_numpy().sum())


def label_drift(model: findiff.FinDiffRun) -> float:
    """Return how far training moved the label embedding: mean row move over mean row norm at the start."""
    start = findiff._model(model.config, model.prepared)[1].label.weight.detach().clone()
    load_flat_weights(model.network, model.federation.weights())
    moved = model.network.label.weight.detach() - start
    return float(moved.norm(dim=1).mean() / start.norm(dim=1).mean())


def by_label(run: records.Run, setting: study.Federation, synthetic: pd.DataFrame, **labels) -> float:
    """Record the pair trends of the label with the fewest rows and of the one with most; return the smaller score."""
    kinds = {name: kind for name, kind in setting.train.kinds.items() if name != setting.target}
    counts, found = setting.test.frame[setting.target].value_counts(), []
    for place, label in (("rarest", counts.index[-1]), ("commonest", counts.index[0])):
        real, made = (frame[frame[setting.target] == label].drop(columns=setting.target)
                      for frame in (setting.test.frame, synthetic))
        found.append(fidelity.pair_trends_quantile(real, made, kinds=kinds))
        run.metric("pair_trends_of_label", found[-1], label=place, **labels)
    return min(found)


def pooled(setting: study.Federation) -> study.Federation:
    """Return the federation with all training rows at one party, as DP-FinDiff has them."""
    return replace(setting, clients=(setting.train,), identity=f"{setting.identity} pooled")


def ablation(
    run: records.Run, setting: study.Federation, config: findiff.FinDiffConfig, **labels
) -> dict[str, dict[str, float]]:
    """Train and judge the arms of ABLATION and a twin of the base arm with another seed; record what each gains.

    <metric>_gain: change in per cent from "mean_uniform" with the same rows, batches and DP noise ("again": of another
    seed alone). clipped_share: records whose gradient was clipped, over the training. Returns arm -> recorded numbers.
    """
    found, twin = {}, replace(setting, seed=setting.seed + AGAIN)
    for arm, (reduction, law) in {**ABLATION, "again": ABLATION["mean_uniform"]}.items():
        own = twin if arm == "again" else setting
        model, _, scores = scored(
            run, own, replace(config, reduction=reduction, timesteps=law), ablation=arm, **labels)
        found[arm] = {name: scores[name] for name in ("roc_auc", "pair_trends")}
        found[arm]["clipped_share"] = float(model.history["clipped"].mean())
        run.metric("clipped_share", found[arm]["clipped_share"], ablation=arm, **labels)
    base = found["mean_uniform"]
    for arm, scores in found.items():
        if arm != "mean_uniform":
            gains = {f"{name}_gain": 100 * (scores[name] / base[name] - 1) for name in ("roc_auc", "pair_trends")}
            scores |= gains
            for name, value in gains.items():
                run.metric(name, value, ablation=arm, **labels)
    return found


def judged_on(run: records.Run, setting: study.Federation, frames: Mapping[str, pd.DataFrame]) -> dict[tuple, float]:
    """Record fidelity and utility of tables against as many training rows and against held-out rows (F41)."""
    pick = numpy_generator(setting.seed, "training rows to score on").permutation(len(setting.train))
    seen = setting.train.frame.iloc[pick[: len(setting.test)]]
    kinds, found = setting.train.kinds, {}
    for method, frame in frames.items():
        for where, real in (("training", seen), ("held_out", setting.test.frame)):
            labels = dict(method=method, judged_on=where)
            told = utility(frame, real, target=setting.target, kinds=kinds, seed=setting.seed)
            scores = {
                "column_shapes": fidelity.column_shapes(real, frame, kinds=kinds),
                "pair_trends_quantile": fidelity.pair_trends_quantile(real, frame, kinds=kinds),
                "roc_auc": float(told["roc_auc"].iloc[0]),
            }
            for name, value in scores.items():
                run.metric(name, value, **labels)
                found[method, where, name] = value
    return found


def above_the_floor(
    run: records.Run, setting: study.Federation, whole: Table, frames: Mapping[str, pd.DataFrame]
) -> float:
    """Record accuracy, its gain above the majority class, balanced accuracy, AUC; return the floor (F42).

    The floor is the share of the majority class in the held-out rows; majority_share that in the `whole` table, of
    which the setting may hold a sample.
    """
    floor, share = (float(table.frame[setting.target].value_counts(normalize=True).iloc[0])
                    for table in (setting.test, whole))
    run.metric("majority_share", share)
    for method, frame in frames.items():
        told = utility(frame, setting.test.frame, target=setting.target, kinds=setting.train.kinds, seed=setting.seed)
        row = told.set_index("classifier").iloc[0]
        run.metric("accuracy_above_floor", float(row["accuracy"]) - floor, method=method, scored="floor")
        for name in ("accuracy", "balanced_accuracy", "roc_auc"):
            run.metric(name, float(row[name]), method=method, scored="floor")
    return floor


def distances(
    run: records.Run, setting: study.Federation, synthetic: pd.DataFrame, shares: tuple[float, ...], rows: int
) -> dict[str, float]:
    """Record the mean distance to the closest training record as more synthetic rows are copies of one (F43).

    copied: the share of rows that repeat a training row to the letter, so that more copied is certainly less private;
    "held_out" rows, which are fresh, are the scale.
    """
    kinds, train = setting.train.kinds, setting.train.frame
    generator = numpy_generator(setting.seed, "copies of training rows")
    copies = train.iloc[generator.permutation(len(train))[:rows]].reset_index(drop=True)
    made, means = synthetic.iloc[:rows].reset_index(drop=True), {}
    for share in shares:
        cut = round(share * rows)
        mixed = pd.concat([copies.iloc[:cut], made.iloc[cut:]], ignore_index=True)
        away = closeness.distance_to_closest_record(mixed, train, kinds=kinds)
        means[share] = float(np.mean(away))
        run.metric("distance_mean", means[share], copied=share)
        run.metric("rows_copied", float(np.mean(away == 0)), copied=share)
    fresh = float(np.mean(closeness.distance_to_closest_record(setting.test.frame.iloc[:rows], train, kinds=kinds)))
    run.metric("distance_mean", fresh, copied="held_out")
    return {f"{share:g}": value for share, value in means.items()} | {"held_out": fresh}
