"""What a table is worth to a classifier: train on it, test on real rows (TSTR; on real rows throughout, TRTR).

The five classifiers of FinDiff (Sattarov et al., 2023: random forest, decision tree, logistic regression, AdaBoost,
naive Bayes) with scikit-learn's defaults, gradient boosting as the strong single judge, and the majority class as the
floor. Accuracy alone says little where one class dominates: read it beside balanced accuracy and ROC AUC.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from feddiff import seeds
from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes
from feddiff.evaluation.membership import auc

FINDIFF_FIVE = ("random forest", "decision tree", "logistic regression", "AdaBoost", "naive Bayes")
CLASSIFIERS = FINDIFF_FIVE + ("boosting", "majority")
MAX_CLASSES = 100
# Of a column with more levels only the most frequent count: scikit-learn's boosting takes no more, and 0/1 columns for
# the thousands of levels of an account number cost minutes a classifier.
MOST_LEVELS = 254
SIDES = ("test", "training")


def utility(
    train_frame: pd.DataFrame,
    test_frame: pd.DataFrame,
    *,
    target: str,
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
    classifiers: str | Sequence[str] = "boosting",
    max_rows: int | None = None,
) -> pd.DataFrame:
    """Train classifiers of `target` on `train_frame` (synthetic, or real for the ceiling) and test on `test_frame`.

    `classifiers`: "boosting" (about 1 s for 24,000 x 24), "all" (the five, boosting and the majority; about 20 s), or
    names from CLASSIFIERS. `max_rows` trains on so many rows, drawn without replacement; None uses all. One thread.
    Returns one row per classifier: classifier, accuracy, balanced_accuracy (mean recall over the classes of the test
    rows), roc_auc (binary, else macro one-versus-rest over those classes), all in [0, 1], 1 best; train_rows; and
    missing_classes, the classes of the test rows without a training row. Those can never be predicted and have an AUC
    of exactly .5; with a single class in training every classifier is that constant, accuracy is its share and the
    AUC .5. Categories without a training row have no weight of their own, missing values are a category or (numbers)
    the training median. Same rows and seed, same result; only the row order of `train_frame` matters a little.
    Raises ValueError/TypeError for other columns, unknown target or classifier, missing labels, one-class test rows.
    """
    check_pair(test_frame, train_frame, SIDES)
    names = _classifier_names(classifiers)
    labels_test, labels_train, class_count = _labels(test_frame, train_frame, target)
    if max_rows is not None:
        if isinstance(max_rows, bool) or not isinstance(max_rows, (int, np.integer)) or max_rows < 1:
            raise ValueError(f"max_rows must be a positive integer or None, got {max_rows!r}")
        if max_rows < len(train_frame):
            rows = seeds.numpy_generator(seed, "utility", "rows").permutation(len(train_frame))[:max_rows]
            train_frame, labels_train = train_frame.iloc[rows], labels_train[rows]
    # In one order whatever that of the tables: trees draw columns by position.
    features = sorted(test_frame.columns.drop(target), key=str)
    if len(features) == 0:
        raise ValueError(f"no feature beside the target {target!r}")
    encoded = _encode(train_frame[features], test_frame[features], kinds_of(test_frame[features], kinds))

    results = []
    present = np.unique(labels_train)
    missing = len(np.setdiff1d(labels_test, present))
    with threadpool_limits(limits=1):
        for name in names:
            if len(present) == 1:
                chances = np.ones((len(labels_test), 1))
            else:
                model, train, test = _model(name, encoded, len(present), seeds.derive(seed, "utility", name) % 2**32)
                chances = model.fit(train, labels_train).predict_proba(test)
            every = np.zeros((len(labels_test), class_count))
            every[:, present] = chances
            scores = _scores(labels_test, present[chances.argmax(axis=1)], every)
            results.append((name, *scores, len(labels_train), missing))
    columns = ["classifier", "accuracy", "balanced_accuracy", "roc_auc", "train_rows", "missing_classes"]
    return pd.DataFrame(results, columns=columns)


def _classifier_names(classifiers: str | Sequence[str]) -> tuple[str, ...]:
    if classifiers == "all":
        return CLASSIFIERS
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    unknown = [name for name in names if name not in CLASSIFIERS]
    if unknown or not names:
        raise ValueError(f'classifiers must be "all" or names from {CLASSIFIERS}, got {classifiers!r}')
    return names


def _labels(test: pd.DataFrame, train: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray, int]:
    if target not in test.columns:
        raise ValueError(f"target {target!r} is not a column; the columns are {list(test.columns)}")
    in_test, in_train, count = shared_codes(test[target], train[target], target, SIDES)
    for codes, side in ((in_test, "test"), (in_train, "training")):
        if (codes < 0).any():
            raise ValueError(f"target {target!r} is missing in {int((codes < 0).sum())} {side} rows; drop those rows")
    if count > MAX_CLASSES:
        raise ValueError(f"target {target!r} has {count} values: not a class label; choose a column of few categories")
    if len(np.unique(in_test)) < 2:
        raise ValueError(f"target {target!r} has one class in the test rows: accuracy and AUC would say nothing")
    return in_test, in_train, count


def _encode(train: pd.DataFrame, test: pd.DataFrame, kinds: dict[str, str]) -> dict[str, Any]:
    """Return both tables as `trees` (numbers and level codes, NaN = missing or unseen) and `dense` (see below).

    dense: numbers standardised by the training rows with missing ones at the training median, then one 0/1 column per
    level that the training rows hold (a missing value is a level), for the MOST_LEVELS most frequent.
    """
    trees, dense, categorical = [], [], []
    for name, kind in kinds.items():
        if kind in CONTINUOUS:
            columns = [numbers(frame[name], f"column {name!r} of the {side} table")
                       for frame, side in ((train, "training"), (test, "test"))]
            filled = [np.where(np.isnan(column), np.nanmedian(columns[0]), column) for column in columns]
            mean, spread = filled[0].mean(), filled[0].std()
            trees.append(columns)
            dense.append([(column - mean) / (spread if spread > 0 else 1.0) for column in filled])
        else:
            in_test, in_train, _ = shared_codes(test[name], train[name], name, SIDES)
            levels = _most_frequent(in_train)
            dense.append([(codes[:, None] == levels).astype(float) for codes in (in_train, in_test)])
            trees.append(_boosting_codes(in_train, in_test))
        categorical.append(kind not in CONTINUOUS)
    stacked = {"categorical": np.array(categorical)}
    for form, blocks in (("trees", trees), ("dense", dense)):
        stacked[form] = tuple(np.column_stack([block[side] for block in blocks]) for side in (0, 1))
    return stacked


def _boosting_codes(train: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """Return codes 0, 1, ... of the most frequent training levels, in level order; NaN for every other value."""
    kept = _most_frequent(train[train >= 0])
    return [np.where(np.isin(codes, kept), np.searchsorted(kept, codes), np.nan) for codes in (train, test)]


def _most_frequent(codes: np.ndarray) -> np.ndarray:
    """Return the MOST_LEVELS most frequent codes, ascending; of equally frequent ones the lower."""
    levels, counts = np.unique(codes, return_counts=True)
    return np.sort(levels[np.argsort(-counts, kind="stable")[:MOST_LEVELS]])


def _model(
    name: str, encoded: dict[str, Any], classes: int, random_state: int
) -> tuple[ClassifierMixin, np.ndarray, np.ndarray]:
    if name == "boosting":
        # With several classes, some of them rare, unregularised leaves run away (a table that a tree reads at .97 came
        # out at .2); with two they do not, and scikit-learn's default stays.
        model = HistGradientBoostingClassifier(
            max_iter=100, early_stopping=False, categorical_features=encoded["categorical"],
            l2_regularization=1.0 if classes > 2 else 0.0, random_state=random_state,
        )
        return model, *encoded["trees"]
    if name == "random forest":
        model = RandomForestClassifier(n_jobs=1, random_state=random_state)
    elif name == "decision tree":
        model = DecisionTreeClassifier(random_state=random_state)
    elif name == "logistic regression":
        model = LogisticRegression(max_iter=1000)
    elif name == "AdaBoost":
        model = AdaBoostClassifier(random_state=random_state)
    elif name == "naive Bayes":
        model = GaussianNB()
    else:
        model = DummyClassifier(strategy="prior")
    return model, *encoded["dense"]


def _scores(labels: np.ndarray, predicted: np.ndarray, chances: np.ndarray) -> tuple[float, float, float]:
    classes = np.unique(labels)
    recalls = [np.mean(predicted[labels == one] == one) for one in classes]
    judged = classes[1:] if len(classes) == 2 and chances.shape[1] == 2 else classes
    areas = [auc(chances[labels == one, one], chances[labels != one, one]) for one in judged]
    return float(np.mean(predicted == labels)), float(np.mean(recalls)), float(np.mean(areas))
