"""Tables of the SiloFuse notebooks beside their headlines: reconstruction column by column, and SiloFuse's rivals."""

import math

import numpy as np
import pandas as pd

from feddiff.experiments import tables
from feddiff.experiments.figures_silofuse import LOOKS

# Metric -> 1 where more of it is better, -1 where less is.
BETTER = {"resemblance": 1, "utility": 1, "association_across": -1}


def reconstruction(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how well autoencoders give every column back (accuracy, R^2; 1 is perfect); for reading the worst first.

    The alarm: what is lost here no later step brings back, whichever mean hides it. A column that random orders put
    into another silo with every seed has silo "varies".
    """
    part = frame[frame["name"] == "reconstruction"]
    rest = [name for name in tables.labels_of(part) if name != "silo"]
    moved = part.groupby(rest)["silo"].transform("nunique") > 1
    full = tables.summarise(part.assign(silo=part["silo"].mask(moved, "varies")))
    short = full.sort_values("mean", kind="stable")
    short = short.assign(score=[tables.cell(row) for row in short.to_dict("records")], runs=short["n"])
    return full, short[[*tables.places_of(full), "score", "runs"]].reset_index(drop=True)


def rivals(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return SiloFuse less each rival of the same seed, by data set, with the mean over sets and SiloFuse's best set.

    The interval of a set is one over its seeds, that of the mean one over sets. For reading: "clear in" counts the sets
    whose interval excludes 0 in SiloFuse's favour, "best" is the set that favours it most.
    """
    part = frame[(frame["of"] == "silofuse") & frame["name"].isin([f"{metric}_difference" for metric in BETTER])]
    full = tables.summarise(part, ["minus", "dataset"])
    full["name"] = full["name"].str.removesuffix("_difference")
    rows, means = [], []
    for (metric, rival), own in full.groupby(["name", "minus"], sort=False):
        sign, means_of = BETTER[metric], own["mean"].to_numpy()
        overall = _over_sets(means_of)
        means.append({"minus": rival, "dataset": "mean of sets", "name": metric, **overall})
        best = own.iloc[int(np.nanargmax(sign * means_of))]
        nearest = sign * own["mean"] - own["half_width"]
        rows.append({
            "metric": metric, "rival": rival,
            **{row["dataset"]: tables.cell(row) for row in own.to_dict("records")},
            "mean of sets": tables.cell(overall), "best": f"{best['dataset']} {tables.number(best['mean'])}",
            "clear in": f"{int((nearest > 0).sum())} of {len(own)}", "runs": _range(own["n"]),
        })
    order, last = [*BETTER, *LOOKS], ["mean of sets", "best", "clear in", "runs"]
    short = pd.DataFrame(rows).sort_values(["metric", "rival"], key=lambda names: names.map(order.index), kind="stable")
    short = short[[name for name in short.columns if name not in last] + last].fillna("").reset_index(drop=True)
    return pd.concat([full, pd.DataFrame(means)], ignore_index=True), short


def _over_sets(means: np.ndarray) -> dict[str, float]:
    n, mean = len(means), float(np.mean(means))
    half = tables.quantile(n - 1) * float(np.std(means, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return {"n": n, "mean": mean, "half_width": half, "low": mean - half, "high": mean + half, "reason": ""}


def _range(counts: pd.Series) -> str:
    return "–".join(str(n) for n in sorted({int(counts.min()), int(counts.max())}))
