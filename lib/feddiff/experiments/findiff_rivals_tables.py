"""Who may see rows with which method, and the tables that say who wins at which budget (notebook 14)."""

import math

import pandas as pd

from feddiff.experiments import style, tables
from feddiff.experiments.figures_findiff import has
from feddiff.experiments.frames import order

FEDERATED, CURATOR, ALONE = "clients keep their rows", "a curator sees all rows", "one client's rows"
# Method -> who sees rows. What a federated method releases protects a record from the server too.
TRUST = {
    "independent": FEDERATED, "given_label": FEDERATED, "copula": FEDERATED,
    "dp_marginals": FEDERATED, "dp_given_label": FEDERATED, "dp_copula": FEDERATED, "ours": FEDERATED,
    "strongest": FEDERATED, "strongest_start": FEDERATED, "strongest_private": FEDERATED, "paper": FEDERATED,
    "centralised": CURATOR, "privbayes": CURATOR, "privbayes_gaussian": CURATOR, "dp_gan": CURATOR,
    "gan_linear": CURATOR, "gan_conv": CURATOR, "tab_ddpm": CURATOR, "local": ALONE,
}
# The diffusion model under three trust models; the other methods are named as everywhere.
NAMES = {
    "ours": "diffusion, federated", "centralised": "diffusion, centralised", "local": "diffusion, one client alone",
}
# Tables on which settings were chosen, scores seen (no entry: nothing was tuned). Where a table of the comparison is
# among them, that method is judged on what it was tuned on.
TUNED_ON = {
    "ours": "adult, credit-default", "centralised": "as ours", "local": "as ours",
    "strongest": "adult, bank-marketing", "strongest_start": "as strongest", "strongest_private": "as strongest",
    "paper": "the authors' parts", "dp_gan": "bank-marketing, adult", "gan_linear": "loan, cardio",
    "gan_conv": "loan, cardio",
}
# What the strongest setting is set against at equal budget, the authors' parts and the untrained start first.
AGAINST = (
    "paper", "strongest_start", "strongest_private", "ours", "dp_given_label", "dp_copula", "privbayes",
    "privbayes_gaussian",
)
# Counts and one correlation matrix: what takes seconds and no network.
SIMPLE = ("independent", "given_label", "copula", "dp_marginals", "dp_given_label", "dp_copula")
SETTINGS = (
    "rows_seen", "spent_epsilon", "noise_multiplier", "noise_std", "training_steps", "parameters", "bytes_sent",
)
METRICS = (("column_shapes", ""), ("pair_trends", ""), ("pair_trends_quantile", ""), ("roc_auc", "boosting"))


def trust(method: str) -> str:
    """Return who sees rows with `method`; "" for what is no rival."""
    return TRUST.get(method, "")


def name_of(method: str) -> str:
    """Return what a reader sees for a method."""
    return NAMES.get(method, style.method_name(method))


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are no single client's."""
    return frame[frame["client"] == ""] if "client" in frame.columns else frame


def compared(frame: pd.DataFrame, metric: str, classifier: str = "") -> pd.DataFrame:
    """Return n, mean and half width by data set, method and epsilon of the methods of TRUST ("inf": without DP)."""
    part = whole(frame)
    part = part[part["method"].isin(TRUST)]
    if not has(part, metric, classifier):
        raise style.NothingToDraw(f"the records hold no {metric} of any rival")
    part = part[part["name"] == metric]
    if "classifier" in part.columns:
        part = part[part["classifier"] == classifier]
    return tables.summarise(part, ["dataset", "method", "epsilon"])


def differences(frame: pd.DataFrame, of: str = "ours") -> pd.DataFrame:
    """Return `of` less every other method at the same budget, data set and seed: n, mean, half_width over seeds.

    Columns dataset, method (the other one), epsilon, metric as `name`.
    """
    part = whole(frame)
    part = part[part["method"].isin(TRUST) & part["value"].notna()]
    rows = []
    for metric, classifier in METRICS:
        own = part[part["name"] == metric]
        if "classifier" in own.columns:
            own = own[own["classifier"] == classifier]
        mine = own[own["method"] == of].set_index(["dataset", "epsilon", "seed"])["value"]
        for row in own[own["method"] != of].itertuples():
            place = (row.dataset, row.epsilon, row.seed)
            if place in mine.index:
                rows.append((row.dataset, row.seed, row.method, row.epsilon, metric, mine[place] - row.value, ""))
    columns = ["dataset", "seed", "method", "epsilon", "name", "value", "reason"]
    if not rows:
        raise style.NothingToDraw(f"no run holds {of!r} and another method at one budget")
    return tables.summarise(pd.DataFrame(rows, columns=columns), ["dataset", "method", "epsilon"])


def winners(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return who is best at each data set, budget and metric, and by how much the federated diffusion model is not.

    Full: mean and interval of `ours` less the best, of all and among SIMPLE. For reading: the same in words.
    """
    gaps = differences(frame).set_index(["dataset", "epsilon", "name", "method"])
    full, short = [], []
    for metric, classifier in METRICS:
        found = compared(frame, metric, classifier)
        for (dataset, epsilon), group in found.groupby(["dataset", "epsilon"], sort=False):
            if "ours" not in set(group["method"]):
                continue
            means = group.set_index("method")["mean"]
            rivals = means.drop("ours")
            row = {"dataset": dataset, "epsilon": epsilon, "name": metric, "best": means.idxmax(), "mean": means.max(),
                   "trust": trust(means.idxmax()), "ours": means["ours"]}
            for side, others in (("best_rival", rivals), ("best_simple", rivals[rivals.index.isin(SIMPLE)])):
                if len(others):
                    gap = gaps.loc[(dataset, epsilon, metric, others.idxmax())]
                    row |= {side: others.idxmax(), f"{side}_gap": gap["mean"], f"{side}_half_width": gap["half_width"],
                            "n": gap["n"]}
            full.append(row)
            short.append(_words(row))
    ranked = pd.DataFrame(full)
    places = tables.sort(ranked.assign(place=range(len(ranked))), ["dataset", "epsilon", "name"])["place"]
    return ranked.iloc[places].reset_index(drop=True), pd.DataFrame(short).iloc[places].reset_index(drop=True)


def strongest(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `strongest` less each of AGAINST at equal budget, paired by seed; for reading a row a data set and budget.

    Which method is best is one question (`winners`); this answers another: what the strongest private diffusion model
    gains on the authors' parts, on its own untrained start, and on simple rivals.
    """
    full = differences(frame, of="strongest")
    full = full[full["method"].isin(AGAINST) & full["name"].isin(("pair_trends", "roc_auc"))].reset_index(drop=True)
    scores = pd.concat([compared(frame, *axis).assign(metric=axis[0]) for axis in METRICS])
    own = scores[scores["method"] == "strongest"].set_index(["dataset", "epsilon", "metric"])["mean"]
    short = []
    for (dataset, epsilon, metric), group in full.groupby(["dataset", "epsilon", "name"], sort=False):
        said = {"dataset": dataset, "epsilon": style.epsilon_name(epsilon), "metric": metric,
                "strongest": tables.number(own[dataset, epsilon, metric])}
        gaps = group.set_index("method")
        for method in AGAINST:
            known = method in gaps.index
            said[f"− {name_of(method)}"] = _gap(*gaps.loc[method, ["mean", "half_width"]]) if known else ""
        short.append(said)
    return full, pd.DataFrame(short)


def _gap(mean: float, half_width: float) -> str:
    error = "" if math.isnan(half_width) else f" ± {tables.number(half_width)}"
    return f"{mean:+.3f}{error}".replace("-", "−")


def _words(row: dict) -> dict:
    said = {"dataset": row["dataset"], "epsilon": style.epsilon_name(row["epsilon"]), "metric": row["name"],
            "best": f"{name_of(row['best'])} {tables.number(row['mean'])}", "who sees rows": row["trust"],
            "ours": tables.number(row["ours"])}
    for side, title in (("best_rival", "ours − best rival"), ("best_simple", "ours − best simple one")):
        said[title] = ""
        if side in row:
            said[title] = f"{_gap(row[f'{side}_gap'], row[f'{side}_half_width'])} ({name_of(row[side])})"
    return said


def settings(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what every method was given and spent, by data set, method and budget; for reading with who sees rows."""
    part = whole(frame)
    part = part[part["method"].isin(TRUST)]
    full = tables.summarise(part[part["name"].isin(SETTINGS)], ["dataset", "method", "epsilon"])
    short = tables.wide(full.assign(half_width=0.0, n=full["n"].clip(upper=1)))
    short.insert(2, "who sees rows", [trust(method) for method in short["method"]])
    short.insert(3, "tuned on", [TUNED_ON.get(method, "") for method in short["method"]])
    return full, short.drop(columns="runs")


def budgets(frame: pd.DataFrame) -> list[str]:
    """Return the budgets at which methods were compared, smallest first, "inf" last."""
    return sorted(set(frame.loc[frame["method"].isin(TRUST), "epsilon"]) - {""}, key=order)

