"""Figures of the rivals of DP-Fed-FinDiff (notebook 14), each a function of a records frame."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import figures_findiff, style
from feddiff.experiments import findiff_rivals_tables as rivals
from feddiff.experiments.findiff_rivals_tables import CURATOR, TRUST
from feddiff.experiments.style import NothingToDraw

_REFERENCES = ("real", "given_label", "independent")
# Axis titles of the panels of differences.
_SHORT = {"pair_trends": "pair trends", "roc_auc": "ROC AUC"}


def _half(row) -> float:
    return 0.0 if math.isnan(row.half_width) else row.half_width


def _runs(*summaries: pd.DataFrame) -> str:
    counts = sorted({int(n) for table in summaries for n in table["n"] if n})
    if counts in ([], [1]):
        return "one run, no interval"
    return f"bars: 95 % interval over {'–'.join(str(n) for n in sorted({counts[0], counts[-1]}))} seeds"


def budgets(frame: pd.DataFrame) -> Figure:
    """Draw every private method against its budget; rows are metrics, columns data sets (F15)."""
    part = rivals.whole(frame)
    known = part["method"].isin(_REFERENCES) | (part["method"].isin(TRUST) & ~part["epsilon"].isin(["", "inf"]))
    if not (part["method"].isin(TRUST) & ~part["epsilon"].isin(["", "inf"])).any():
        raise NothingToDraw("the records hold no method with a finite budget")
    return figures_findiff.methods(part[known], rivals.name_of)


@style.styled
def ladder(frame: pd.DataFrame, epsilon: str = "1") -> Figure:
    """Draw all methods at one budget ("inf": without DP) beside real rows; rows are data sets, columns metrics.

    Hollow markers: a curator sees the pooled rows; filled: clients keep them.
    """
    wanted = [axis for axis in rivals.METRICS if figures_findiff.has(frame, *axis)]
    if not wanted:
        raise NothingToDraw("the records hold none of " + ", ".join(metric for metric, _ in rivals.METRICS))
    tables = [rivals.compared(frame, *axis) for axis in wanted]
    tables = [table[table["epsilon"] == epsilon] for table in tables]
    ceilings = [figures_findiff.points(rivals.whole(frame), *axis) for axis in wanted]
    present = [m for m in style.METHODS if any((table["method"] == m).any() for table in tables)]
    if not present:
        raise NothingToDraw(f"the records hold no rival at epsilon {epsilon}")
    names = sorted(set(pd.concat(tables)["dataset"]))
    height = 0.9 + len(names) * (0.35 + 0.19 * len(present))
    figure, axes = style.canvas(style.WIDTH, height, len(names), len(wanted), sharey="row", sharex="col")
    for row, name in zip(axes, names, strict=True):
        for panel, (metric, _), table, ceiling in zip(row, wanted, tables, ceilings, strict=True):
            own = table[table["dataset"] == name].set_index("method")
            for point in ceiling[(ceiling["dataset"] == name) & (ceiling["method"] == "real")].itertuples():
                panel.axvline(point.mean, color="black", linewidth=0.9, dashes=(1, 1.4))
            for place, method in enumerate(present):
                if method not in own.index:
                    continue
                point, (_, colour, marker) = own.loc[method], style.METHODS[method]
                panel.errorbar(
                    point["mean"], place, xerr=_half(point), color=colour, marker=marker, linestyle="none",
                    markerfacecolor="white" if TRUST[method] == CURATOR else colour,
                )
            panel.set_ylim(len(present) - 0.4, -0.6)
            shown = pd.concat([table["mean"], ceiling.loc[ceiling["method"] == "real", "mean"]])
            style.focus(panel, shown, spread=0.15, low=0, high=1)
            if name == names[-1]:
                panel.set_xlabel(style.metric_name(metric, direction=False).replace(", ", ",\n"))
        row[0].set_yticks(range(len(present)), [rivals.name_of(method) for method in present])
        row[0].set_title(name)
    budget = "without DP" if epsilon == "inf" else f"ε = {epsilon}"
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=style.GREY, label=f"{budget}: rows stay with the clients"),
        Line2D([], [], linestyle="none", marker="o", color=style.GREY, markerfacecolor="white",
               label="a curator sees all rows"),
        Line2D([], [], color="black", linewidth=0.9, dashes=(1, 1.4), label="real training rows"),
        Line2D([], [], linestyle="none", label=f"higher is better; {_runs(*tables)}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def without(frame: pd.DataFrame) -> Figure:
    """Draw all methods without DP (F33)."""
    return ladder(frame, "inf")


@style.styled
def differences(frame: pd.DataFrame) -> Figure:
    """Draw the federated diffusion model less each rival at equal budget and seed; columns are budgets (F15, F33)."""
    table = rivals.differences(frame)
    table = table[table["method"] != "local"]
    texts = [text for text in rivals.budgets(frame) if (table["epsilon"] == text).any()]
    present = [m for m in style.METHODS if (table["method"] == m).any()]
    looks = style.colours(table["dataset"])
    height = 0.7 + len(_SHORT) * (0.45 + 0.21 * len(present))
    figure, axes = style.canvas(style.WIDTH, height, len(_SHORT), len(texts), sharey=True, sharex="row")
    for line, (row, (metric, title)) in enumerate(zip(axes, _SHORT.items(), strict=True)):
        for panel, text in zip(row, texts, strict=True):
            panel.axvline(0, color="black", linewidth=0.7)
            own = table[(table["name"] == metric) & (table["epsilon"] == text)]
            for index, (dataset, (colour, marker)) in enumerate(looks.items()):
                shift = 0.6 * ((index + 0.5) / len(looks) - 0.5)
                for point in own[own["dataset"] == dataset].itertuples():
                    panel.errorbar(
                        point.mean, present.index(point.method) + shift, xerr=_half(point), color=colour, marker=marker,
                        markersize=3.2, elinewidth=0.9, linestyle="none",
                    )
            panel.set_ylim(len(present) - 0.5, -0.5)
            panel.set_yticks(range(len(present)), [rivals.name_of(method) for method in present])
            panel.set_xlabel(f"Δ {title}")
            # Rivals differ by hundredths, the authors' parts by half of the range: linear up to .05, then logarithmic.
            panel.set_xscale("symlog", linthresh=0.05, linscale=2)
            style.focus(panel, table.loc[table["name"] == metric, "mean"], spread=0.15, low=-1, high=1)
            panel.set_xticks([-0.3, -0.03, 0, 0.03, 0.3], ["−.3", "−.03", "0", ".03", ".3"], minor=False)
            panel.set_xticks([], minor=True)
            if line == 0:
                panel.set_title("without DP" if text == "inf" else f"ε = {text}")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    told = f"right of 0: federated diffusion is better;\nlogarithmic beyond ±.05; {_runs(table)}"
    handles.append(Line2D([], [], linestyle="none", label=told))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def alone(frame: pd.DataFrame) -> Figure:
    """Draw one client's own model, the federated and the centralised one, by data set and budget (F17)."""
    wanted = ("local", "ours", "centralised")
    metrics = [axis for axis in (("pair_trends", ""), ("pair_trends_quantile", ""), ("roc_auc", "boosting"))
               if figures_findiff.has(frame, *axis)]
    tables = [rivals.compared(frame, *axis) for axis in metrics]
    tables = [table[table["method"].isin(wanted)] for table in tables]
    if not tables or "local" not in set(tables[0]["method"]):
        raise NothingToDraw("the records hold no client on its own")
    local = tables[0][tables[0]["method"] == "local"]
    places = [(name, text) for name in sorted(set(local["dataset"])) for text in rivals.budgets(local)
              if ((local["dataset"] == name) & (local["epsilon"] == text)).any()]
    figure, axes = style.canvas(style.WIDTH, 0.9 + 0.3 * len(places) + 0.4, 1, len(metrics), sharey=True)
    for panel, (metric, _), table in zip(axes[0], metrics, tables, strict=True):
        for place, (name, text) in enumerate(places):
            own = table[(table["dataset"] == name) & (table["epsilon"] == text)].set_index("method")
            for shift, method in zip((0.22, 0.0, -0.22), wanted, strict=True):
                if method in own.index:
                    _, colour, marker = style.METHODS[method]
                    panel.errorbar(own.loc[method, "mean"], place + shift, xerr=_half(own.loc[method]), color=colour,
                                   marker=marker, linestyle="none")
        panel.set_ylim(len(places) - 0.5, -0.5)
        panel.set_yticks(
            range(len(places)), [f"{name}, {'no DP' if text == 'inf' else f'ε = {text}'}" for name, text in places]
        )
        panel.set_xlabel(style.metric_name(metric, direction=False).replace(", ", ",\n"))
        style.focus(panel, table["mean"], low=0, high=1)
    words = {"local": "one client on its own (mean)", "ours": "federated", "centralised": "all rows pooled"}
    handles = [Line2D([], [], linestyle="none", color=style.METHODS[m][1], marker=style.METHODS[m][2], label=words[m])
               for m in wanted]
    handles.append(Line2D([], [], linestyle="none", label=_runs(*tables)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
