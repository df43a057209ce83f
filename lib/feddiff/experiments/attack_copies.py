"""Releases that copy their training rows more or less openly, and what metrics of closeness and attacks say of them."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from feddiff.attacks.copies import closest_record_scores, moved_back, recovered
from feddiff.data import tables
from feddiff.evaluation import membership
from feddiff.evaluation.closeness import copy_detector
from feddiff.experiments import records
from feddiff.seeds import numpy_generator

# Release -> (shift in standard deviations, standard deviation of noise); None: fresh rows, no copies.
RELEASES = {
    "copy": (0.0, 0.0), "copy_noised": (0.0, 0.3), "copy_moved_half": (0.5, 0.0), "copy_moved_one": (1.0, 0.0),
    "fresh": None,
}
FACTORS, OWN = 4, 0.3
# A row counts as recovered if every column is known to within so many standard deviations.
WITHIN = 0.25
# A release passes if it is no nearer to the training rows than to held-out ones by more than this share, and its 5 %
# distance is not below that of fresh rows.
SLACK = 0.05


@dataclass(frozen=True, eq=False)
class Quarters:
    """Four disjoint draws of one population in equal numbers, columns in standard deviations of the training rows.

    train: members; holdout: non-members; fresh: a release that copies nobody; public: what the adversary knows.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    fresh: pd.DataFrame
    public: pd.DataFrame


def toy(rows: int, columns: int, seed: int) -> pd.DataFrame:
    """Return 4 `rows` draws of `columns` correlated normal numbers: FACTORS common factors and noise of OWN."""
    generator = numpy_generator(seed, "toy")
    loadings = generator.standard_normal((FACTORS, columns))
    x = generator.standard_normal((4 * rows, FACTORS)) @ loadings / np.sqrt(FACTORS)
    x += OWN * generator.standard_normal(x.shape)
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(columns)])


def numbers_of(dataset: str) -> tables.Table:
    """Return the table with its number columns alone, rows with blanks and constant columns left out."""
    table = tables.load(dataset)
    kept = [name for name, kind in table.kinds.items() if kind in ("numeric", "integer") and name != table.target]
    frame = table.frame[kept].dropna().astype(float)
    frame = frame.loc[:, frame.std() > 0].reset_index(drop=True)
    if frame.shape[1] < 2:
        raise ValueError(f"{dataset} has {frame.shape[1]} columns of numbers; two at least are needed")
    kinds = dict.fromkeys(frame.columns, "numeric")
    return replace(table, frame=frame, target=None, kinds=kinds)


def quarters(frame: pd.DataFrame, rows: int | None, seed: int) -> Quarters:
    """Return four disjoint random parts of at most `rows` rows each, in standard deviations of the first."""
    order = numpy_generator(seed, "quarters").permutation(len(frame))
    count = len(frame) // 4 if rows is None else min(rows, len(frame) // 4)
    parts = [frame.iloc[order[place * count : (place + 1) * count]] for place in range(4)]
    centre, spread = parts[0].mean(), parts[0].std().where(parts[0].std() > 0, 1.0)
    return Quarters(*(((part - centre) / spread).reset_index(drop=True) for part in parts))


def release(parts: Quarters, name: str, seed: int) -> pd.DataFrame:
    """Return one of RELEASES."""
    if RELEASES[name] is None:
        return parts.fresh
    shift, noise = RELEASES[name]
    generator = numpy_generator(seed, "release", name)
    return parts.train + shift + noise * generator.standard_normal(parts.train.shape)


def judge(run: records.Run, parts: Quarters, name: str, seed: int, **labels) -> dict[str, float]:
    """Record and return what the copy detector, the distance attack and the moved-back attack say of a release.

    closer_to_train (.5 ideal), dcr_5_ratio (5 % distance to the training rows over that of held-out rows; at least 1
    passes), passes (0 or 1), distance_auc and moved_back_auc (membership; .5 is chance), recovered (share of training
    rows known to within WITHIN in every column).
    """
    published = release(parts, name, seed)
    seen = asdict(copy_detector(published, parts.train, parts.holdout, generator=numpy_generator(seed, "detector")))
    train, holdout, public = (part.to_numpy() for part in (parts.train, parts.holdout, parts.public))
    plain = published.to_numpy()
    back = moved_back(plain, public)
    found = {name: float(seen[name]) for name in ("exact_copies", "closer_to_train")}
    found["dcr_5_ratio"] = seen["dcr_5"] / seen["holdout_dcr_5"] if seen["holdout_dcr_5"] else np.nan
    found["passes"] = float(found["dcr_5_ratio"] >= 1 - SLACK and found["closer_to_train"] <= 0.5 + SLACK)
    for attack, rows in (("distance_auc", plain), ("moved_back_auc", back)):
        found[attack] = membership.auc(*(closest_record_scores(side, rows) for side in (train, holdout)))
    found["recovered"] = recovered(train, back, WITHIN)
    found["recovered_holdout"] = recovered(holdout, back, WITHIN)
    for metric, value in found.items():
        missing = not np.isfinite(value)
        run.metric(metric, None if missing else value, reason="held-out rows are copies too", release=name, **labels)
    return found
