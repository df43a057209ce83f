"""The scores that every SiloFuse notebook records of a synthetic table, of what real rows score, and of autoencoders.

Resemblance and fidelity compare with the held-out rows, utility tests models on them, associations are compared with
those of the training rows (fewer rows blur them).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from feddiff.data.silos import Silo
from feddiff.evaluation import column_utility, fidelity
from feddiff.evaluation.association import association_error
from feddiff.evaluation.resemblance import resemblance, resemblance_score
from feddiff.evaluation.utility import MAX_CLASSES, utility
from feddiff.experiments import records
from feddiff.experiments.silofuse_study import Setting

# Training rows of a model of the judge at most: the cost grows with them and with the square of the columns.
JUDGE_ROWS = 2_000
# One method is set against another in these: the first five in points of 100, then in units of Cramer's V.
COMPARED = (
    "resemblance", "utility", "utility_median", "utility_above_floor", "cross_tstr",
    "association_across", "association_within",
)


def judge(
    run: records.Run,
    setting: Setting,
    synthetic: pd.DataFrame,
    *,
    readings: str = "default",
    useful: bool = True,
    max_rows: int = JUDGE_ROWS,
    **labels,
) -> dict[str, float]:
    """Record what a synthetic table is worth, and return the headline numbers.

    resemblance (0..100, the mean of five parts, each recorded as `part`; readings="all": every reading of them);
    column_shapes, pair_trends; association_within and association_across (mean error in Cramer's V inside silos and
    between them), the same with "_equal_rows", which alone compare with the ceiling (see `_associations`). With
    `useful`, which takes most of the time: utility (SiloFuse's, the 90th percentile over columns), utility_median,
    utility_above_floor (median, a blind guess taken off), cross_tstr (each column predicted from other silos' columns,
    mean, in points), and roc_auc and accuracy of the target, from all columns (seen_from "all") and from other silos'
    columns ("elsewhere").
    """
    return _scores(run, setting, synthetic, _associations(setting, synthetic), readings, useful, max_rows, labels)


def ceiling(
    run: records.Run, setting: Setting, *, readings: str = "default", useful: bool = True, max_rows: int = JUDGE_ROWS,
    **labels,
) -> dict[str, float]:
    """Record the same of real rows, as method "real": training rows in the place of synthetic ones.

    Associations are those of the held-out rows: the noise level. They are few, and few rows are noisy: set them beside
    the "_equal_rows" of synthetic tables.
    """
    errors, labels = _associations(setting, setting.test.frame), {"method": "real", **labels}
    return _scores(run, setting, setting.train.frame, errors, readings, useful, max_rows, labels)


def _associations(setting: Setting, frame: pd.DataFrame) -> dict[str, float]:
    """Return errors of associations against the training rows: of all rows, and of as many rows as are held out.

    The error of a finite table holds its own sampling noise: 100 fresh real rows can be further off than 400 synthetic
    rows whose columns are independent. So a table is also cut into parts as long as the held-out rows, and the mean of
    their errors is named "_equal_rows".
    """
    rows, whole = len(setting.test), setting.train.frame
    pieces = [frame.iloc[first : first + rows] for first in range(0, len(frame) - rows + 1, rows)]
    errors = [association_error(whole, piece, parts=setting.parts, kinds=setting.train.kinds)
              for piece in (frame, *pieces)]
    found = {}
    for place in ("within", "across"):
        each = [getattr(error, place) for error in errors]
        found[f"association_{place}"] = each[0]
        found[f"association_{place}_equal_rows"] = float(np.mean(each[1:])) if pieces else np.nan
    return found


def identical(run: records.Run, setting: Setting) -> pd.DataFrame:
    """Record and return what every reading of resemblance gives two equal tables, as method "identical"."""
    test = setting.test.frame
    parts = resemblance(test, test, kinds=setting.train.kinds, seed=setting.seed, readings="all")
    _parts(run, parts, method="identical")
    return parts


def _parts(run: records.Run, parts: pd.DataFrame, **labels) -> None:
    """Record the readings; of several, how far the mean moves when each part is read at its lowest and highest.

    Readings known to be wrong are left out of that.
    """
    for row in parts.itertuples():
        name = "resemblance_part" if row.default else "resemblance_reading"
        reading = {} if row.default else {"reading": row.reading}
        _metric(run, name, row.score, "undefined for this table", part=row.part, **reading, **labels)
    sane = parts[~parts["reading"].str.contains(r"\((?:faulty|reversed)\)")]
    if len(sane) > sane["part"].nunique():
        each = sane.groupby("part")["score"]
        low, high = float(each.min().mean()), float(each.max().mean())
        for name, value in (("reading_lowest", low), ("reading_highest", high), ("reading_range", high - low)):
            run.metric(name, value, **labels)


def _scores(
    run: records.Run, setting: Setting, frame: pd.DataFrame, associations: Mapping[str, float], readings: str,
    useful: bool, max_rows: int, labels: Mapping[str, Any],
) -> dict[str, float]:
    kinds, test, seed = setting.train.kinds, setting.test.frame, setting.seed
    parts = resemblance(test, frame, kinds=kinds, seed=seed, readings=readings)
    found = {
        "resemblance": resemblance_score(parts),
        "column_shapes": fidelity.column_shapes(test, frame, kinds=kinds),
        "pair_trends": fidelity.pair_trends(test, frame, kinds=kinds),
        **associations,
    }
    _parts(run, parts, **labels)
    if useful:
        found |= _usefulness(run, setting, frame, max_rows, labels)
    for name, value in found.items():
        _metric(run, name, value, "no pair of columns there, or fewer rows than are held out", **labels)
    return found


def _usefulness(
    run: records.Run, setting: Setting, frame: pd.DataFrame, max_rows: int, labels: Mapping[str, Any]
) -> dict[str, float]:
    kinds, test, seed = setting.train.kinds, setting.test.frame, setting.seed
    common = dict(kinds=kinds, seed=seed, max_rows=max_rows)
    columns = column_utility.column_utility(
        setting.train.frame, frame, test, ceiling=_real_predictability(setting, max_rows), **common
    )
    found = {
        "utility": column_utility.utility_score(columns),
        "utility_median": column_utility.utility_score(columns, percentile=50),
        "utility_above_floor": column_utility.utility_score(columns, percentile=50, ratio="ratio_above_floor"),
    }
    target = setting.train.target
    seen = {"all": setting.columns}
    if len(setting.silos) > 1:
        across = column_utility.cross_silo_tstr(frame, test, parts=setting.parts, **common)
        found["cross_tstr"] = 100 * float(across["score"].mean())
        if target is not None:
            seen["elsewhere"] = [*column_utility.columns_elsewhere(test, setting.parts, target), target]
    if target is None or kinds[target] in ("numeric", "integer") or test[target].nunique() > MAX_CLASSES:
        return found
    for seen_from, names in seen.items():
        names = [name for name in setting.columns if name in names]
        told = utility(frame[names], test[names], target=target, kinds={name: kinds[name] for name in names},
                       seed=seed, max_rows=max_rows).iloc[0]
        for metric in ("roc_auc", "accuracy"):
            run.metric(metric, float(told[metric]), seen_from=seen_from, **labels)
        found[f"roc_auc_{seen_from}"] = float(told["roc_auc"])
    return found


@lru_cache(maxsize=4)
def _real_predictability(setting: Setting, max_rows: int) -> pd.DataFrame:
    return column_utility.predictability(
        setting.train.frame, setting.test.frame, kinds=setting.train.kinds, seed=setting.seed, max_rows=max_rows
    )


def reconstruction(
    run: records.Run, model: Any, silos: list[Silo] | None = None, **labels
) -> dict[str, float]:
    """Record how well autoencoders give each column back (accuracy, R^2), their mean and the worst: the alarm.

    silos: other rows than the training rows, such as setting.held_out. No later step mends what is lost here.
    """
    scores = model.reconstruction() if silos is None else model.reconstruction(silos)
    for row in scores.itertuples():
        run.metric("reconstruction", float(row.score), column=row.column, silo=row.silo, kind=row.kind, **labels)
    found = {"reconstruction_mean": float(scores["score"].mean()), "reconstruction_worst": float(scores["score"].min())}
    for name, value in found.items():
        run.metric(name, value, **labels)
    return found


def difference(
    run: records.Run, of: Mapping[str, float], minus: Mapping[str, float], /, **labels
) -> dict[str, float]:
    """Record `of` less `minus`, two results of one seed, in each of COMPARED as <metric>_difference; return them."""
    found = {}
    for metric in COMPARED:
        if metric in of and metric in minus and np.isfinite([of[metric], minus[metric]]).all():
            found[metric] = of[metric] - minus[metric]
            run.metric(f"{metric}_difference", found[metric], **labels)
    return found


def costs(run: records.Run, model: Any, **labels) -> None:
    """Record a trained method's seconds (all parties' together) and trained parameters."""
    own = getattr(model, "settings", None)
    if own is not None:
        seconds, parameters = own["seconds"], own["parameters"]
    else:
        seconds, parameters = sum(model.seconds.values()), sum(model.parameters.values())
    run.metric("training_seconds", float(seconds), **labels)
    run.metric("parameters", int(parameters), **labels)


def _metric(run: records.Run, name: str, value: float, reason: str, **labels) -> None:
    missing = value is None or not np.isfinite(value)
    run.metric(name, None if missing else float(value), reason=reason, **labels)
