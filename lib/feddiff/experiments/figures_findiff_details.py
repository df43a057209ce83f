"""Figures of the authors' details, anchors and scoring (notebook 19), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.findiff_details import REPORTED_GAIN
from feddiff.experiments.tables import summarise, wide

# Studies of one change: label -> (title, {value: what a reader sees}).
STUDIES = {
    "scaler": ("scaler of the numbers", {"standard": "standard", "quantile": "quantile",
                                         "quantile-ties": "quantile, ties"}),
    "typing": ("typing of age", {"number": "number", "category": "category"}),
    "spread": ("rows over two clients", {"iid": "IID", "attribute": "by an attribute", "dirichlet": "Dirichlet labels",
                                         "label": "one label a client"}),
}
ARMS = {"sum_uniform": "sum over columns", "mean_adaptive": "moving law of t", "sum_adaptive": "both",
        "again": "another seed"}
SCORES = (
    ("column_shapes", "", "column shapes"), ("pair_trends", "", "pair trends"), ("roc_auc", "boosting", "ROC AUC"),
)


def _label(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    found = frame[frame[label] != ""] if label in frame.columns else frame.iloc[:0]
    if found.empty:
        raise style.NothingToDraw(f"the records hold nothing by {label}")
    return found


def _scores(frame: pd.DataFrame, by: list[str]) -> list[pd.DataFrame]:
    return [means(frame[frame["classifier"] == c] if c else frame, metric, by) for metric, c, _ in SCORES]


def _points(panel, table: pd.DataFrame, column: str, names: list[str], looks: dict, shift: float = 0.0, **look) -> None:
    """Draw a dot and its interval a data set, the values of `column` one under the other."""
    for index, (dataset, (colour, marker)) in enumerate(looks.items()):
        away = shift + 0.16 * (index - (len(looks) - 1) / 2)
        for row in table[table["dataset"] == dataset].itertuples():
            place = names.index(getattr(row, column)) + away
            panel.errorbar(row.mean, place, xerr=half(row), color=colour, marker=marker, linestyle="none", **look)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _handles(looks: dict, note: str) -> list[Line2D]:
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    return [*handles, Line2D([], [], linestyle="none", label=note)]


@style.styled
def choices(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility by scaler, typing of age and split of the rows (F16, F46, F40)."""
    looks = style.colours(frame["dataset"])
    heights = [len(names) for _, names in STUDIES.values()]
    figure, axes = style.canvas(style.WIDTH, 0.32 * sum(heights) + 1.6, len(STUDIES), len(SCORES), sharex="col",
                                sharey="row", height_ratios=heights)
    drawn = []
    for line, (label, (title, names)) in zip(axes, STUDIES.items(), strict=True):
        tables = _scores(_label(frame, label), [label])
        drawn += tables
        for panel, table in zip(line, tables, strict=True):
            _points(panel, table, label, list(names), looks)
        line[0].set_yticks(range(len(names)), list(names.values()))
        line[0].set_title(title)
    for panel, (_, _, title) in zip(axes[-1], SCORES, strict=True):
        panel.set_xlabel(title)
        panel.locator_params(axis="x", nbins=4)
    figure.legend(handles=_handles(looks, runs(*drawn)), loc="outside lower center", ncols=4)
    return figure


@style.styled
def frozen(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility with and without DP, condition trained or frozen (F38)."""
    part = _label(frame, "condition")
    looks, tables = style.colours(frame["dataset"]), _scores(part, ["condition", "epsilon"])
    names = [("trained", "inf"), ("frozen", "inf"), ("trained", "1"), ("frozen", "1")]
    figure, axes = style.canvas(style.WIDTH, 2.5, 1, len(SCORES), sharey=True)
    for panel, table, (_, _, title) in zip(axes[0], tables, SCORES, strict=True):
        keyed = table.assign(arm=[f"{row.condition} {row.epsilon}" for row in table.itertuples()])
        _points(panel, keyed, "arm", [" ".join(name) for name in names], looks)
        panel.set_xlabel(title)
        panel.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(range(len(names)), [f"{'no DP' if e == 'inf' else f'ε = {e}'}, {c}" for c, e in names])
    figure.legend(handles=_handles(looks, runs(*tables)), loc="outside lower center", ncols=4)
    return figure


@style.styled
def anchor(frame: pd.DataFrame) -> Figure:
    """Draw the federated anchor: denoising error and epsilon by round beside the authors' log, and scores (F21)."""
    part = _label(frame, "round")
    own = part[part.get("state", "") != "reset"] if "state" in part.columns else part
    error, spent = (means(own, name, ["round"]) for name in ("denoising_error", "epsilon_spent"))
    logged = {name: means(own, f"{name}_logged", ["round"]) for name in ("denoising_error", "epsilon")}
    if error.empty:
        raise style.NothingToDraw("the federated anchor was not run")
    # The trace of epsilon is the same on every table; who has no error trace did not run the anchor.
    looks = style.colours(error["dataset"])
    spent = spent[spent["dataset"].isin(looks)]
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, 3, width_ratios=(1, 1, 0.9))
    for panel, table, name, title in zip(
        axes[0], (error, spent), logged, ("held-out denoising error", "ε spent by a client"), strict=False
    ):
        for dataset, (colour, _) in looks.items():
            mine = table[table["dataset"] == dataset]
            mine = mine.assign(place=mine["round"].astype(int)).sort_values("place")
            panel.errorbar(mine["place"], mine["mean"], yerr=[half(row) for row in mine.itertuples()], color=colour)
        theirs = logged[name].drop_duplicates("round")
        panel.plot(theirs["round"].astype(int), theirs["mean"], "k*", markersize=6, linestyle="none")
        panel.set(xlabel="round", title=title)
    axes[0, 1].axhline(10, color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
    _scores_of_report(axes[0, 2], frame, looks)
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles += [Line2D([], [], color="black", marker="*", linestyle="none", label="logged by the authors (credit)"),
                Line2D([], [], color=style.GREY, linestyle=(0, (4, 2)), label="target ε"),
                Line2D([], [], linestyle="none", label=runs(error, spent))]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _scores_of_report(panel, frame: pd.DataFrame, looks: dict) -> None:
    """Draw the report's scores, read right and with text taken for other values, beside the authors' own."""
    names = [(metric, read) for metric in ("sdv_shapes", "sdv_pairs") for read in ("as_text", "right")]
    part = frame[(frame["anchor"] == "federated") & (frame["read"] != "")]
    if "state" in part.columns:
        part = part[part["state"] != "reset"]
    for metric in ("sdv_shapes", "sdv_pairs"):
        table = means(part, metric, ["read"])
        table = table.assign(arm=[f"{metric} {read}" for read in table["read"]])
        _points(panel, table, "arm", [" ".join(name) for name in names], looks)
    for place, value in ((0, 0.7404), (2, 0.5714)):
        panel.plot(value, place, "k*", markersize=6)
    panel.set_yticks(range(4), ["shapes, D4 bug", "shapes", "pairs, D4 bug", "pairs"])
    panel.set(title="scores of their report", xlim=(0, 1))


@style.styled
def scoring(frame: pd.DataFrame) -> Figure:
    """Draw what scoring does: on training or held-out rows (F41), accuracy's floor (F42), distance as privacy (F43)."""
    looks = style.colours(frame["dataset"])
    figure, axes = style.canvas(style.WIDTH, 3.1, 1, 3, width_ratios=(1.0, 1.15, 0.9))
    judged = _label(frame, "judged_on")
    table = means(judged, "pair_trends_quantile", ["method", "judged_on"])
    names = [f"{m} {w}" for m in ("copies", "ours", "paper") for w in ("training", "held_out")]
    table = table.assign(arm=[f"{row.method} {row.judged_on}" for row in table.itertuples()])
    _points(axes[0, 0], table[table["arm"].isin(names)], "arm", names, looks)
    short = {"copies": "training rows", "ours": "recipe “ours”", "paper": "recipe “paper”"}
    axes[0, 0].set_yticks(range(len(names)), [f"{short[m]}, on {'training' if w == 'training' else 'held-out'}"
                                              for m in short for w in ("training", "held_out")])
    axes[0, 0].set(xlabel="pair trends, quantile bins", title="scored on")
    scores = ("accuracy_above_floor", "balanced_accuracy", "roc_auc")
    part = frame[frame["scored"] == "floor"]
    methods = [m for m in ("real", "ours", "paper", "majority") if (part["method"] == m).any()]
    tables = [means(part, name, ["method"]) for name in scores]
    for place, found in enumerate(tables):
        for index, (dataset, (colour, marker)) in enumerate(looks.items()):
            for row in found[found["dataset"] == dataset].itertuples():
                x = place + 0.2 * (methods.index(row.method) - (len(methods) - 1) / 2) + 0.05 * index
                filled = colour if row.method in ("ours", "paper") else "white"
                axes[0, 1].errorbar(x, row.mean, yerr=half(row), color=colour, linestyle="none", markerfacecolor=filled,
                                    marker={"real": "*", "ours": "o", "paper": "s", "majority": "_"}[row.method])
    axes[0, 1].set_xticks(range(3), ["accuracy\n− floor", "balanced\naccuracy", "AUC"])
    axes[0, 1].axhline(0, color=style.GREY, linewidth=0.8)
    axes[0, 1].set_title("readings of utility")
    away = means(_label(frame, "copied"), "distance_mean", ["copied"])
    order = ["0", "0.5", "1", "held_out"]
    _points(axes[0, 2], away[away["copied"].isin(order)], "copied", order, looks)
    axes[0, 2].set_yticks(range(4), ["synthetic", "half copies", "all copies", "fresh real rows"])
    axes[0, 2].set(xlabel="mean distance to\nnearest training\nrow", title="copies, distance")
    marks = {"real": "*", "ours": "o", "paper": "s", "majority": "_"}
    handles = [Line2D([], [], color=c, marker="o", linestyle="none", label=name) for name, (c, _) in looks.items()]
    handles += [Line2D([], [], color=style.GREY, marker=marks[m], linestyle="none",
                       label=f"utility: {style.method_name(m)}") for m in methods]
    handles.append(Line2D([], [], linestyle="none", label=runs(table, *tables, away)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def gains(frame: pd.DataFrame) -> Figure:
    """Draw what DP-FinDiff's two changes gain at equal epsilon beside what is reported and what a seed does (F19)."""
    part = _label(frame, "ablation")
    looks = style.colours(part["dataset"])
    columns = [("roc_auc_gain", "gain in ROC AUC (%)"), ("pair_trends_gain", "gain in pair trends (%)"),
               ("clipped_share", "share of records clipped")]
    found = [means(part, name, ["ablation"]) for name, _ in columns]
    figure, axes = style.canvas(style.WIDTH, 2.4, 1, len(columns), sharey=True)
    for panel, table, (_, title) in zip(axes[0], found, columns, strict=True):
        _points(panel, table[table["ablation"].isin(ARMS)], "ablation", list(ARMS), looks)
        panel.set_xlabel(title)
        panel.locator_params(axis="x", nbins=4)
    for panel in axes[0, :2]:
        panel.axvline(0, color=style.GREY, linewidth=0.8)
    axes[0, 2].set_xlim(-0.04, 1.04)
    axes[0, 0].plot(list(REPORTED_GAIN.values()), [list(ARMS).index(arm) for arm in REPORTED_GAIN], "k*", markersize=6,
                    linestyle="none", zorder=3)
    axes[0, 0].set_yticks(range(len(ARMS)), list(ARMS.values()))
    handles = _handles(looks, runs(*found))
    handles.insert(-1, Line2D([], [], color="black", marker="*", linestyle="none", label="reported, second-hand"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def gains_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the arms of F19: scores, gains in per cent with intervals, share clipped, and the reported gain."""
    part = frame[frame["ablation"] != ""] if "ablation" in frame.columns else frame.iloc[:0]
    part = part[part["name"].isin(["pair_trends", "roc_auc", "roc_auc_gain", "pair_trends_gain", "clipped_share"])]
    full = summarise(part[part["classifier"].isin(["", "boosting"])], ["dataset", "ablation"])
    short = wide(full)
    short["reported gain (%)"] = [f"{REPORTED_GAIN[arm]:.2f}" if arm in REPORTED_GAIN else "" for arm in
                                  short["ablation"]]
    return full, short
