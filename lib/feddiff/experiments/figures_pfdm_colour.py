"""Figures of PFDM on coloured digits and CIFAR-10 (notebook 25), each a function of a long records frame."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from feddiff.data.image_known import CIFAR_CLASSES
from feddiff.experiments import pfdm_reported, style
from feddiff.experiments.figures_pfdm import (
    GROUPS, chosen, classes_of, epsilon, few, first_record, half, log_axis, means, runs, sheet_height, tiles,
)
from feddiff.experiments.frames import order

# Classes whose number says nothing to a reader.
NAMES = {"cifar-10": CIFAR_CLASSES}
REPORTED = ("pfdm_cvpr", "pfdm_v1", "fedavg", "centralised")
# What is compared: (of, minus) -> what the difference is credited to.
CREDIT = {
    ("pfdm_v1", "local"): "PFDM v1 less training alone: as the papers compare",
    ("pfdm_v1", "local_balanced"): "PFDM v1 less training alone, balanced batches",
    ("pfdm_cvpr", "local"): "PFDM cvpr less training alone: as the papers compare",
    ("pfdm_cvpr", "local_range_clip"): "PFDM cvpr less its own local model from noise: the server",
    ("pfdm_cvpr", "local_balanced"): "PFDM cvpr less training alone, balanced batches",
}
ALONE = {"local": (4, 2), "local_balanced": (1, 1.2)}
LOOKS = {"majority": dict(marker="|", markersize=8), "minority": dict(marker="o", zorder=3)}


def class_names(frame: pd.DataFrame, dataset: str) -> list[str]:
    """Return what a reader calls the classes of a data set, in order."""
    numbers = classes_of(frame, dataset)
    return [NAMES[dataset][int(number)] for number in numbers] if dataset in NAMES else numbers


@style.styled
def reported(frame: pd.DataFrame) -> Figure:
    """Draw each method's distance as a share of training alone: as others report it, and as measured here."""
    found = pfdm_reported.beside(frame)
    found = found[found["method"].isin(REPORTED) & (found["group"] != "mean")]
    if not (found["runs"] > 0).any():
        raise style.NothingToDraw("the records hold no frechet of a set that the sources report on")
    places = list(dict.fromkeys(zip(found["dataset"], found["group"], strict=True)))
    places.sort(key=lambda place: (list(dict.fromkeys(found["dataset"])).index(place[0]), place[1] != "majority"))
    figure, axes = style.canvas(style.WIDTH, 0.36 * len(places) + 1.25, 1, 2, sharey=True, sharex=True)
    for place, (dataset, group) in enumerate(places):
        own = found[(found["dataset"] == dataset) & (found["group"] == group)]
        for index, method in enumerate(REPORTED):
            _, colour, marker = style.METHODS[method]
            height = place + 0.16 * (index - 1.5)
            for row in own[own["method"] == method].itertuples():
                look = dict(color=colour, marker=marker, linestyle="none")
                if not math.isnan(row.reported_share):
                    axes[0, 0].plot(100 * row.reported_share, height, **look)
                if not math.isnan(row.share):
                    axes[0, 1].plot(100 * row.share, height, **look)
                if not math.isnan(row.share_low):
                    axes[0, 1].plot([100 * row.share_low, 100 * row.share_high], [height] * 2, color=colour)
        if not (own["runs"] > 0).any():
            axes[0, 1].annotate("not measured", (100, place), (-6, 0), textcoords="offset points", ha="right",
                                va="center", fontsize=7, color=style.GREY)
    for panel, title in zip(axes[0], ("as notes and a summary\nreport it", "measured here: other features,\n"
                                      "smaller pictures and networks"), strict=True):
        panel.axvline(100, color="#D55E00", linewidth=1.0)
        log_axis(panel)
        panel.set_title(title)
        panel.set_xlabel("Fréchet distance, % of training alone\n(log scale, left of the line is better)")
    axes[0, 0].set_yticks(range(len(places)), [f"{name}, {'many' if group == 'majority' else 'few'}"
                                               for name, group in places])
    axes[0, 0].set_ylim(len(places) - 0.5, -0.5)
    handles = [Line2D([], [], color=style.METHODS[m][1], marker=style.METHODS[m][2], linestyle="none",
                      label=style.method_name(m)) for m in REPORTED]
    handles.append(Line2D([], [], color="#D55E00", label="training alone"))
    handles.append(Line2D([], [], linestyle="none", label=f"reported: first client, one run; ours: {_runs(found)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _runs(found: pd.DataFrame) -> str:
    return runs(found.rename(columns={"runs": "n"}))


@style.styled
def credit(frame: pd.DataFrame) -> Figure:
    """Draw what PFDM gains over training alone beside what is left of it over fairer comparisons, paired by seed."""
    summary = means(frame, "frechet_difference", ["method", "minus", "group"])
    pairs = [pair for pair in CREDIT if ((summary["method"] == pair[0]) & (summary["minus"] == pair[1])).any()]
    names = sorted(set(summary["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 0.27 * len(pairs) * len(names) + 0.65 * len(names) + 0.5, len(names), 1)
    for panel, dataset in zip(axes[:, 0], names, strict=True):
        for place, (of, minus) in enumerate(pairs):
            own = summary[(summary["dataset"] == dataset) & (summary["method"] == of) & (summary["minus"] == minus)]
            for row in own.itertuples():
                panel.errorbar(row.mean, place, xerr=half(row), color=style.METHODS[of][1], linestyle="none",
                               **LOOKS[row.group])
        panel.axvline(0, color="black", linewidth=0.7)
        panel.margins(x=0.1)
        panel.xaxis.set_major_locator(MaxNLocator(7))
        panel.set_yticks(range(len(pairs)), [CREDIT[pair] for pair in pairs])
        panel.set_ylim(len(pairs) - 0.5, -0.5)
        panel.set_title(dataset)
    axes[-1, 0].set_xlabel("difference of the Fréchet distances (below 0: PFDM is better)")
    handles = [Line2D([], [], color="black", linestyle="none", label=GROUPS[group], **look)
               for group, look in LOOKS.items()]
    handles.append(Line2D([], [], linestyle="none", label=f"mean over the clients; {runs(summary)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def inks(frame: pd.DataFrame) -> Figure:
    """Draw how much of a sample is of one ink, and how far the inks are from those that the client holds."""
    metrics = ("ink_purity", "ink_distance")
    summaries = {metric: means(frame, metric, ["method", "group"], client="all") for metric in metrics}
    names = sorted(set(summaries["ink_purity"]["dataset"]))
    methods = [method for method in style.METHODS if (summaries["ink_purity"]["method"] == method).any()]
    height = len(names) * (0.2 * len(methods) + 0.5) + 0.7
    figure, axes = style.canvas(style.WIDTH, height, len(names), 2, sharey=True)
    for row, dataset in zip(axes, names, strict=True):
        for panel, metric in zip(row, metrics, strict=True):
            own = summaries[metric][summaries[metric]["dataset"] == dataset]
            for point in own.itertuples():
                panel.errorbar(point.mean, methods.index(point.method), xerr=half(point), linestyle="none",
                               color=style.METHODS[point.method][1], **LOOKS[point.group])
            panel.set_xlabel(style.metric_name(metric).replace(" (", "\n("))
            panel.margins(x=0.08)
        row[0].axvline(1 / 3, color=style.GREY, linewidth=0.9, dashes=(4, 2))
        row[0].set_title(f"{dataset} (dashed: no ink)")
        row[1].set_xlim(left=0)
        row[0].set_ylim(len(methods) - 0.5, -0.5)
        row[0].set_yticks(range(len(methods)), [style.method_name(method) for method in methods])
    handles = [Line2D([], [], color="black", linestyle="none", label=GROUPS[group], **look)
               for group, look in LOOKS.items()]
    handles.append(Line2D([], [], linestyle="none", label=f"mean over the clients; {runs(*summaries.values())}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def steps(frame: pd.DataFrame) -> Figure:
    """Draw v1's quality against t0, with epsilon by the value, the pixel and the picture below (P32)."""
    quality = (("frechet", "Fréchet distance\n(log scale, lower is better)"),
               ("label_accuracy", "label accuracy\n(0–1, higher is better)"))
    summaries = {metric: means(frame, metric, ["t0", "group"], method="pfdm_at_t0", client="0")
                 for metric, _ in quality}
    curves = {dataset: sorted(set(own["t0"]), key=order) for dataset, own in summaries["frechet"].groupby("dataset")}
    names = sorted(dataset for dataset, places in curves.items() if len(places) > 1)
    if not names:
        raise style.NothingToDraw("the records hold one t0; a curve needs two")
    figure, axes = style.canvas(style.WIDTH, 2.75 * len(names) + 0.4, len(names), 2, sharex="row")
    for row, dataset in zip(axes, names, strict=True):
        places = curves[dataset]
        for panel, (metric, title) in zip(row, quality, strict=True):
            summary = summaries[metric][summaries[metric]["dataset"] == dataset]
            for group, dashes in (("minority", (1, 0)), ("majority", (4, 2))):
                own = summary[summary["group"] == group]
                panel.errorbar(
                    [places.index(t0) for t0 in own["t0"]], own["mean"], yerr=[half(r) for r in own.itertuples()],
                    color="#0072B2", marker="o", dashes=dashes,
                    markerfacecolor="#0072B2" if group == "minority" else "white",
                )
            where = dict(client="0", group="minority", dataset=dataset)
            alone = means(frame[frame["method"].isin(ALONE)], metric, ["method"], **where)
            for line in alone.itertuples():
                panel.axhline(line.mean, color=style.METHODS[line.method][1], dashes=ALONE[line.method],
                              linewidth=1.1)
            if metric == "frechet":
                log_axis(panel, "y")
            panel.set_xticks(range(len(places)), [_spent(frame, dataset, t0) for t0 in places])
            panel.set_xlim(-0.4, len(places) - 0.6)
            panel.set_xlabel("$t_0$; below it ε of a value, of a pixel, of a picture")
            panel.set_ylabel(title)
        row[0].set_title(f"{dataset}, first client")
    handles = [Line2D([], [], color="#0072B2", marker="o", dashes=d, label=f"PFDM v1, {GROUPS[g]}",
                      markerfacecolor="#0072B2" if g == "minority" else "white")
               for g, d in (("minority", (1, 0)), ("majority", (4, 2)))]
    handles += [Line2D([], [], color=style.METHODS[m][1], dashes=d, label=f"{style.method_name(m)}: few pictures")
                for m, d in ALONE.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*summaries.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _spent(frame: pd.DataFrame, dataset: str, t0: str) -> str:
    """Return t0 and the exact epsilon of one value, of a pixel and of a picture, a line each, as numbers."""
    told = {unit: epsilon(chosen(frame, f"epsilon_{unit}", dataset=dataset, t0=t0)["value"].max())
            for unit in ("value", "pixel", "image")}
    return f"{t0}\n{told['value']}\n{told['pixel']}\n{told['image']}"


@style.styled
def samples(frame: pd.DataFrame) -> Figure:
    """Draw samples of every method, a row each, as the first client draws them: columns are classes, by name."""
    names = sorted(set(frame["dataset"]))
    sheets = {dataset: first_record(frame, "samples", dataset) for dataset in names}
    heights = [sheet_height(sheet) + 0.6 for sheet in sheets.values()]
    figure, axes = style.canvas(style.WIDTH, sum(heights) + 0.15, len(names), 1, height_ratios=heights)
    for panel, (dataset, sheet) in zip(axes[:, 0], sheets.items(), strict=True):
        numbers, rare = classes_of(frame, dataset), few(frame, dataset, "0")
        tiles(panel, np.stack(list(sheet.values())))
        places = panel.get_xticks().reshape(len(numbers), -1).mean(axis=1)
        texts = [f"{name}\nfew" if number in rare else name
                 for number, name in zip(numbers, class_names(frame, dataset), strict=True)]
        panel.set_xticks(places, texts, fontsize=6.5)
        panel.xaxis.tick_top()
        panel.set_yticks(panel.get_yticks(), [style.method_name(method) for method in sheet])
        seed = frame[frame["dataset"] == dataset]["seed"].min()
        panel.set_xlabel(f"{dataset}, seed {seed}, first client; the first samples of each class, none was selected")
    return figure
