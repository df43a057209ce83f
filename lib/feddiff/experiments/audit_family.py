"""Many audits in one notebook: a p-value for each claim "eps <= what is stated", and Holm's decision over all of them.

Each lower bound alone is wrong in 5 % of its audits; of fifty right claims a few would look refuted by chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from feddiff.attacks import audit
from feddiff.experiments import records
from feddiff.experiments.tables import number

LABELS = ("audit", "variant", "sigma", "epsilon", "bound")


@dataclass(frozen=True, eq=False)
class Audit:
    """One claim under test: bound(significance=...) -> lower bound on epsilon, the claimed one, labels (of LABELS)."""

    bound: Callable[..., float]
    claimed: float
    labels: dict


def decide(run: records.Run, audits: Sequence[Audit], *, significance: float) -> pd.DataFrame:
    """Record and return each audit's p_value and refuted (0 or 1, Holm 1979 over all of them); a row an audit.

    No right claim is refuted with probability 1 - `significance`, however the audits depend on each other.
    """
    values = {str(k): audit.p_value(lambda s, own=one: own.bound(significance=s), one.claimed)
              for k, one in enumerate(audits)}
    refuted = audit.holm(values, significance)
    rows = []
    for place, one in enumerate(audits):
        told = dict(p_value=values[str(place)], refuted=int(refuted[str(place)]))
        for name, value in told.items():
            run.metric(name, value, **one.labels)
        rows.append({**one.labels, "claimed": one.claimed, **told})
    return pd.DataFrame(rows)


def decisions(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the decisions of all runs, a row an audit and seed, and for reading: a row a variant and bound.

    For reading: how many audits (seeds and settings), how many are refuted after Holm, least and largest p-value.
    """
    present = [label for label in LABELS if label in frame.columns]
    place = ["seed", *present]
    own = frame[frame["name"].isin(["p_value", "refuted"])]
    full = own.pivot_table(index=place, columns="name", values="value").reset_index().rename_axis(columns=None)
    full = full.reindex(columns=[*place, "p_value", "refuted"])
    groups = full.groupby([name for name in ("audit", "variant", "bound") if name in present], sort=True)
    short = groups.agg(
        audits=("p_value", "size"), refuted=("refuted", "sum"), least_p=("p_value", "min"), largest_p=("p_value", "max")
    ).reset_index()
    short["refuted"] = short["refuted"].astype(int)
    return full, short.assign(**{name: short[name].map(number) for name in ("least_p", "largest_p")})
