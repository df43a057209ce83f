"""What a synthetic table is worth with every column as target in turn: SiloFuse's utility, and TSTR across silos.

SiloFuse's utility (as recalled, not read): for each column a model of the other columns, trained on synthetic and on
real rows and tested on held-out real ones; macro-F1 (categories) or D2, the share of absolute error that the median
leaves and the model takes away (numbers); synthetic / real x 100, clipped at 100; the 90th percentile over the columns.
Two weaknesses are shown beside it. Macro-F1 of a blind guess is not 0, so columns that nothing predicts score near 100
(`ratio_above_floor` subtracts the guess). And a 90th percentile is nearly the best column: on Loan independent silos
score 99 and independent columns 80, medians 80 and 39 (`utility_score` takes any percentile).

Across silos: each column predicted from the columns of the OTHER silos only. Only a joint model of all silos can score
here; independent silos, however good each, fall to what independent columns score. That is the floor to print: it lies
above the majority's (`floor`), as a guess in proportion to the classes has a better macro-F1 than a constant one.

Boosting of scikit-learn instead of XGBoost, at most MAX_ROWS training rows. For the label alone, with accuracy and AUC,
use `utility.utility` (on `columns_elsewhere` and the label for TSTR across silos).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import d2_absolute_error_score, f1_score
from threadpoolctl import threadpool_limits

from feddiff import seeds
from feddiff.evaluation.association import part_of_column
from feddiff.evaluation.boosting import classifier, features, regressor
from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes

MAX_ROWS = 5_000
# A category with more levels (a surname) is no target: few rows a class, thousands of trees.
MOST_CLASSES = 50
# Below this gain over a blind guess on real rows there is nothing that synthetic rows could keep.
LEAST_GAIN = 0.02
SIDES = ("test", "training")


def predictability(
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    targets: Sequence[str] | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
    max_rows: int | None = MAX_ROWS,
) -> pd.DataFrame:
    """Predict each column of the held-out real rows `test` from others, by models trained on `train`.

    targets: the columns to predict (default all); given: target -> columns to predict it from (default all others).
    At most `max_rows` training rows, drawn by `seed` (None: all). One thread; seconds for 5,000 x 14.
    Returns one row per target: column, metric ("macro-F1": a missing value is a class; "D2": rows without a value are
    left out), score (<= 1, 1 best; D2 below 0 is worse than the median), floor (the score of the training majority or
    median) and train_rows. Score and floor are NaN for a target with one value in the test rows, or a category with
    more than MOST_CLASSES levels.
    Raises ValueError/TypeError for different columns, unknown targets, a target given as its own feature.
    """
    check_pair(test, train, SIDES)
    kinds = kinds_of(test, kinds)
    given = _given(test, targets, given)
    if max_rows is not None:
        if isinstance(max_rows, bool) or not isinstance(max_rows, (int, np.integer)) or max_rows < 1:
            raise ValueError(f"max_rows must be a positive integer or None, got {max_rows!r}")
        if max_rows < len(train):
            train = train.iloc[seeds.numpy_generator(seed, "column utility").permutation(len(train))[:max_rows]]
    # In one order whatever that of the tables: trees draw columns by position.
    names = sorted(test.columns, key=str)
    table_train, table_test, categorical = features(train[names], test[names], kinds, SIDES[::-1])
    place = {name: position for position, name in enumerate(names)}
    rows = []
    with threadpool_limits(limits=1):
        for target, columns in given.items():
            chosen = sorted(place[name] for name in columns)
            tables = table_train[:, chosen], table_test[:, chosen], categorical[chosen]
            state = seeds.derive(seed, "column utility", str(target)) % 2**32
            judge = _numeric if kinds[target] in CONTINUOUS else _categorical
            rows.append((target, *judge(train[target], test[target], tables, state), len(train)))
    return pd.DataFrame(rows, columns=["column", "metric", "score", "floor", "train_rows"])


def column_utility(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    test: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    max_rows: int | None = MAX_ROWS,
    ceiling: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare models trained on synthetic and on real rows, column by column, on held-out real rows `test`.

    ceiling: what `predictability(real, test, ...)` returned with the same settings, to train on the real rows once for
    many synthetic tables. Returns column, metric, real, synthetic (scores), floor, and in 0..100: ratio =
    synthetic / real and ratio_above_floor = the same after the floor is taken off both. A ratio is NaN where real rows
    do not reach LEAST_GAIN above 0 (above the floor), or where the column is no target.
    """
    options = {"kinds": kinds_of(test, kinds), "seed": seed, "max_rows": max_rows}
    if ceiling is None:
        ceiling = predictability(real, test, **options)
    elif list(ceiling["column"]) != list(test.columns):
        raise ValueError(
            f"ceiling must hold one row per column {list(test.columns)}, got {list(ceiling['column'])}; "
            f"make it by predictability(real, test) on the same tables"
        )
    found = predictability(synthetic, test, **options)
    result = ceiling[["column", "metric"]].assign(
        real=ceiling["score"].to_numpy(), synthetic=found["score"].to_numpy(), floor=ceiling["floor"].to_numpy(),
    )
    result["ratio"] = _ratio(result["real"], result["synthetic"])
    result["ratio_above_floor"] = _ratio(result["real"] - result["floor"], result["synthetic"] - result["floor"])
    return result


def utility_score(columns: pd.DataFrame, *, percentile: float = 90.0, ratio: str = "ratio") -> float:
    """Return the percentile over the columns of `column_utility`, in 0..100; columns without a ratio are left out.

    ratio: "ratio" (as recalled) or "ratio_above_floor". Raises ValueError where no column has one.
    """
    if ratio not in ("ratio", "ratio_above_floor"):
        raise ValueError(f'ratio must be "ratio" or "ratio_above_floor", got {ratio!r}')
    values = columns[ratio].dropna().to_numpy()
    if len(values) == 0:
        raise ValueError(f"no column has a {ratio}: real rows predict none of {list(columns['column'])}")
    return float(np.percentile(values, percentile))


def cross_silo_tstr(
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    parts: Sequence[Sequence[str]],
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    targets: Sequence[str] | None = None,
    max_rows: int | None = MAX_ROWS,
) -> pd.DataFrame:
    """Predict each column from the columns of the other parts (silos) only; as `predictability`, and its part.

    `train` is synthetic, or real for the ceiling; `test` held-out real. Read `score` against `floor`.
    """
    owner = part_of_column(test, parts)
    wanted = list(test.columns) if targets is None else list(targets)
    given = {target: columns_elsewhere(test, parts, target) for target in wanted}
    scores = predictability(train, test, kinds=kinds, seed=seed, targets=wanted, given=given, max_rows=max_rows)
    scores.insert(1, "part", [owner[name] for name in scores["column"]])
    return scores


def columns_elsewhere(frame: pd.DataFrame, parts: Sequence[Sequence[str]], column: str) -> list[str]:
    """Return the columns of `frame`, in its order, that lie in another part than `column`."""
    owner = part_of_column(frame, parts)
    if column not in owner:
        raise ValueError(f"{column!r} is not a column; the columns are {list(frame.columns)}")
    elsewhere = [name for name in frame.columns if owner[name] != owner[column]]
    if not elsewhere:
        raise ValueError(f"column {column!r} lies with all others in one part: across silos there is nothing to learn")
    return elsewhere


def _given(
    test: pd.DataFrame, targets: Sequence[str] | None, given: Mapping[str, Sequence[str]] | None
) -> dict[str, list[str]]:
    if isinstance(targets, str):
        raise ValueError(f"targets must be a list of columns, got {targets!r}")
    wanted = list(test.columns) if targets is None else list(targets)
    chosen = {
        target: [name for name in test.columns if name != target] if given is None else list(given.get(target, ()))
        for target in wanted
    }
    unknown = sorted({str(name) for name in (*chosen, *sum(chosen.values(), [])) if name not in test.columns})
    if unknown:
        raise ValueError(f"{unknown} are not columns; the columns are {list(test.columns)}")
    for target, columns in chosen.items():
        if target in columns or not columns:
            raise ValueError(f"target {target!r} needs other columns than itself to be predicted from, got {columns}")
    return chosen


def _categorical(
    train: pd.Series, test: pd.Series, tables: tuple[np.ndarray, np.ndarray, np.ndarray], state: int
) -> tuple[str, float, float]:
    in_test, in_train, _ = shared_codes(test, train, str(test.name), SIDES)
    present = np.unique(in_train)
    if len(np.unique(in_test)) < 2 or max(len(present), len(np.unique(in_test))) > MOST_CLASSES:
        return "macro-F1", np.nan, np.nan
    majority = np.full(len(in_test), np.unique(in_train)[np.argmax(np.unique(in_train, return_counts=True)[1])])
    predicted = majority
    if len(present) > 1:
        predicted = classifier(len(present), tables[2], state).fit(tables[0], in_train).predict(tables[1])
    score, floor = (f1_score(in_test, guess, average="macro", zero_division=0) for guess in (predicted, majority))
    return "macro-F1", float(score), float(floor)


def _numeric(
    train: pd.Series, test: pd.Series, tables: tuple[np.ndarray, np.ndarray, np.ndarray], state: int
) -> tuple[str, float, float]:
    values = [numbers(column, f"column {column.name!r} of the {side} table")
              for column, side in zip((train, test), SIDES[::-1])]
    present = [~np.isnan(column) for column in values]
    in_train, in_test = (column[here] for column, here in zip(values, present))
    if np.ptp(in_test) == 0:
        return "D2", np.nan, np.nan
    model = regressor(tables[2], state).fit(tables[0][present[0]], in_train)
    guesses = model.predict(tables[1][present[1]]), np.full(len(in_test), np.median(in_train))
    score, floor = (d2_absolute_error_score(in_test, guess) for guess in guesses)
    return "D2", float(score), float(floor)


def _ratio(real: pd.Series, synthetic: pd.Series) -> pd.Series:
    return (100 * (synthetic / real)).clip(0, 100).where(real >= LEAST_GAIN)
