"""Figures of large tables (notebook 18), each a function of a records frame."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import findiff_growth as growth
from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.tables import summarise, wide

MILLION = 1e6
AXES = {
    "rows": "rows of all clients", "clients": "clients",
    "width": "width of the hidden layer\n(parameters, in thousands)",
}
SHOWN = (
    ("prepare_cpu_ms", "before training (CPU s)", 1e-3), ("step_cpu_ms", "a local step (CPU ms)", 1),
    ("round_cpu_ms", "a round, 5 updates each (CPU s)", 1e-3), ("peak_megabytes", "peak memory (MB)", 1),
)


def _points(frame: pd.DataFrame, cost: str, axis: str) -> pd.DataFrame:
    own = frame[(frame["axis"] == axis) & (frame["recipe"] == "ours")] if "axis" in frame.columns else frame.iloc[:0]
    table = means(own, cost, ["rows", "clients", "width"])
    return table.assign(place=table[axis].astype(float)).sort_values("place")


@style.styled
def cost(frame: pd.DataFrame) -> Figure:
    """Draw time and memory against rows, clients and width; dashed: the straight line of the points up to 1M rows."""
    if "axis" not in frame.columns or not (frame["axis"] == "rows").any():
        raise style.NothingToDraw("no cost was measured along rows")
    looks = style.colours(frame["dataset"])
    figure, axes = style.canvas(style.WIDTH, 6.6, len(SHOWN), len(AXES), sharex="col")
    tables, extrapolated = [], False
    for line, (name, title, unit) in zip(axes, SHOWN, strict=True):
        for panel, axis in zip(line, AXES, strict=True):
            table = _points(frame, name, axis)
            tables.append(table)
            for dataset, (colour, marker) in looks.items():
                own = table[table["dataset"] == dataset]
                bars = [unit * half(row) for row in own.itertuples()]
                panel.errorbar(own["place"], unit * own["mean"], yerr=bars, color=colour, marker=marker)
                if axis == "rows" and 1 < len(own) and own["place"].max() < MILLION:
                    x = np.geomspace(own["place"].max(), MILLION, 20)
                    y = [unit * growth.line(own["place"], own["mean"], at) for at in x]
                    panel.plot(x, y, color=colour, linestyle=(0, (4, 2)), linewidth=0.9)
                    extrapolated = True
            panel.set_xscale("log")
            panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
            if axis != "rows":
                places = sorted(set(table["place"]))
                told = _parameters(frame) if axis == "width" else {}
                panel.set_xticks(places, [f"{place:.0f}{told.get(place, '')}" for place in places])
                panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        line[0].set_ylabel(title.replace(" (", "\n("))
    for panel, label in zip(axes[-1], AXES.values(), strict=True):
        panel.set_xlabel(label)
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    if extrapolated:
        handles.append(Line2D([], [], color=style.GREY, linestyle=(0, (4, 2)), linewidth=0.9,
                              label="extrapolated: straight line in rows (the axis is logarithmic)"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _parameters(frame: pd.DataFrame) -> dict[float, str]:
    """Return width -> the trainable parameters of a network so wide, as the second line of a tick's label."""
    table = _points(frame, "parameters", "width")
    return {row.place: f"\n({row.mean / 1000:,.0f})" for row in table.itertuples()}


@style.styled
def quality(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility of the large table and of a cut of it, with and without DP, beside floors (F31)."""
    wanted = (("column_shapes", ""), ("pair_trends", ""), ("pair_trends_quantile", ""), ("roc_auc", "boosting"))
    judged = frame[frame["kept"] != ""] if "kept" in frame.columns else frame.iloc[:0]
    tables = [means(judged[judged["classifier"] == c], metric, ["method", "epsilon", "kept"]) for metric, c in wanted]
    if any(table.empty for table in tables):
        raise style.NothingToDraw("no arm of the large table was judged")
    names = sorted(set(judged["dataset"]))
    keys = tables[0][["method", "epsilon", "kept"]].drop_duplicates()
    house = list(style.METHODS)
    lines = sorted(keys.itertuples(index=False), key=lambda key: (house.index(key.method), key.epsilon, key.kept))
    figure, axes = style.canvas(style.WIDTH, 0.7 + len(names) * (0.5 + 0.21 * len(lines)), len(names), 4, sharey="row")
    for row, dataset in zip(axes, names, strict=True):
        for panel, table, (metric, _) in zip(row, tables, wanted, strict=True):
            for place, key in enumerate(lines):
                found = table[(table["dataset"] == dataset) & (table["method"] == key.method)
                              & (table["epsilon"] == key.epsilon) & (table["kept"] == key.kept)]
                for point in found.itertuples():
                    _, colour, marker = style.METHODS[key.method]
                    panel.errorbar(point.mean, place, xerr=half(point), color=colour, marker=marker, linestyle="none",
                                   markerfacecolor="white" if key.epsilon == "inf" else colour)
            panel.set_ylim(len(lines) - 0.4, -0.6)
            panel.set_xlabel(style.metric_name(metric, direction=False).replace(", ", ",\n"))
        row[0].set_yticks(range(len(lines)), [_name(key) for key in lines])
        row[0].set_title(dataset)
    figure.supxlabel(f"all between 0 and 1, higher is better; {runs(*tables)}", fontsize=7.5)
    return figure


def _name(key) -> str:
    budget = "no DP" if key.epsilon == "inf" else f"ε = {key.epsilon}"
    return f"{style.method_name(key.method)}, {budget}" + ("" if key.kept == "all" else f", {int(key.kept):,} rows")


def cost_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every measured point's costs over seeds, in full and for reading."""
    wanted = [*growth.COSTS, "megabytes_a_round", "parameters", "outputs"]
    part = frame[frame["name"].isin(wanted)] if "axis" in frame.columns else frame.iloc[:0]
    full = summarise(part, ["dataset", "recipe", "axis", "rows", "clients", "width"])
    return full, wide(full)
