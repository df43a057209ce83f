"""Figures of the collaboration ladder (notebook 22), each a function of a long records frame."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import (
    GROUPS, chosen, classes_of, epsilon, few, first_record, half, log_axis, means, runs, sheet_height, tiles,
)
from feddiff.experiments.frames import order

SHORT = {
    "noise": "(a) no server", "class_mean": "(b) class mean", "class_gaussian": "(c) class Gaussian",
    "global": "(d) PFDM", "uploads": "(r) uploads",
}
SHOWN = (("global", "noise"), ("global", "class_mean"), ("global", "class_gaussian"), ("global", "uploads"),
         ("uploads", "noise"))


def _steps(frame: pd.DataFrame) -> list[str]:
    return sorted(set(chosen(frame, "start_std")["t0"]), key=order)


def _title(frame: pd.DataFrame, dataset: str, t0: str) -> str:
    spent = chosen(frame, "epsilon_image", dataset=dataset, t0=t0)["value"].max()
    return f"{dataset}, t0 = {t0}\nimage ε = {epsilon(spent)}"


@style.styled
def ladder(frame: pd.DataFrame) -> Figure:
    """Draw every rung's quality at every t0: rows are data set and metric, columns t0 (P44)."""
    metrics = (("frechet", "Fréchet distance (log scale, lower is better)"),
               ("label_accuracy", "label accuracy (0–1, higher is better)"))
    steps, names = _steps(frame), sorted(set(frame["dataset"]))
    summaries = {metric: means(frame, metric, ["start", "t0", "group"], client="all") for metric, _ in metrics}
    lines = [(dataset, *metric) for dataset in names for metric in metrics]
    height = 1.85 * len(lines) + 0.4
    figure, axes = style.canvas(style.WIDTH, height, len(lines), len(steps), sharey=True, sharex="row")
    for row, (dataset, metric, title) in zip(axes, lines, strict=True):
        for panel, t0 in zip(row, steps, strict=True):
            summary = summaries[metric]
            for point in summary[(summary["dataset"] == dataset) & (summary["t0"] == t0)].itertuples():
                look = dict(marker="o", zorder=3) if point.group == "minority" else dict(marker="|", markersize=8)
                panel.errorbar(point.mean, list(style.STARTS).index(point.start), xerr=half(point),
                               color=style.STARTS[point.start][1], linestyle="none", **look)
            if metric == "frechet":
                log_axis(panel)
                panel.set_title(_title(frame, dataset, t0))
            else:
                panel.set_xlim(-0.03, 1.03)
        row[0].set_yticks(range(len(style.STARTS)), [name for name, _ in style.STARTS.values()])
        row[0].set_ylim(len(style.STARTS) - 0.5, -0.5)
        row[len(steps) // 2].set_xlabel(title)
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=size, color="black", label=GROUPS[group])
        for group, marker, size in (("majority", "|", 8), ("minority", "o", 4.5))
    ]
    handles.append(Line2D([], [], linestyle="none", label=runs(*summaries.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def differences(frame: pd.DataFrame) -> Figure:
    """Draw what separates PFDM's start from its substitutes on the classes with few pictures, paired by seed."""
    steps, names = _steps(frame), sorted(set(frame["dataset"]))
    summary = means(frame, "frechet_difference", ["of", "minus", "t0"], group="minority")
    height = 1.55 * len(names) + 0.85
    figure, axes = style.canvas(style.WIDTH, height, len(names), len(steps), sharey=True, sharex="row")
    for row, dataset in zip(axes, names, strict=True):
        for panel, t0 in zip(row, steps, strict=True):
            own = summary[(summary["dataset"] == dataset) & (summary["t0"] == t0)]
            for place, (of, minus) in enumerate(SHOWN):
                for point in own[(own["of"] == of) & (own["minus"] == minus)].itertuples():
                    panel.errorbar(point.mean, place, xerr=half(point), color=style.STARTS[of][1], marker="o")
            panel.axvline(0, color="black", linewidth=0.7)
            panel.margins(x=0.15)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.set_title(_title(frame, dataset, t0))
        labels = [f"{SHORT[of]} less {SHORT[minus]}" for of, minus in SHOWN]
        row[0].set_yticks(range(len(SHOWN)), labels)
        row[0].set_ylim(len(SHOWN) - 0.5, -0.5)
    texts = [
        "Fréchet distance on the classes with few pictures, difference (below 0: the first is better)", runs(summary),
    ]
    handles = [Line2D([], [], linestyle="none", label=text) for text in texts]
    figure.legend(handles=handles, loc="outside lower center", ncols=1, handlelength=0, handletextpad=0)
    return figure


@style.styled
def samples(frame: pd.DataFrame) -> Figure:
    """Draw each start and what the same local model makes of it, a class a column; the first client's."""
    steps, names = _steps(frame), sorted(set(frame["dataset"]))
    sheets = {
        (dataset, t0): [first_record(frame, f"{kind}_{t0}", dataset) for kind in ("starts", "samples")]
        for dataset in names for t0 in steps
    }
    heights = [sheet_height(pair[0], 0.37 * style.WIDTH) + 0.45 for pair in sheets.values()]
    figure, axes = style.canvas(style.WIDTH, sum(heights) + 0.2, len(sheets), 2, height_ratios=heights)
    for row, ((dataset, t0), pair) in zip(axes, sheets.items(), strict=True):
        classes, rare = classes_of(frame, dataset), few(frame, dataset, "0")
        for panel, sheet, what in zip(row, pair, ("the start", "the result"), strict=True):
            tiles(panel, np.stack(list(sheet.values())))
            panel.set_xticks(panel.get_xticks(), [f"{name}\nfew" if name in rare else name for name in classes])
            panel.tick_params(axis="x", labelsize=6.5)
            panel.set_title(f"{dataset}, t0 = {t0}: {what}", fontsize=7.5)
        row[0].set_yticks(row[0].get_yticks(), [style.STARTS[start][0] for start in pair[0]], fontsize=6.5)
        row[1].set_yticks([])
    return figure
