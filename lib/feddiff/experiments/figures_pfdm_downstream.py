"""Figures of fairness downstream (notebook 24), each a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import GROUPS, budgets, chosen, classes_of, few, half, means, runs

PANELS = (
    ("worst_recall", "recall of the worst class\n(0–1, higher is better)"),
    ("recall_gap", "best less worst class\n(0–1, lower is better)"),
    ("majority_recall", "mean recall of the classes\n(0–1, higher is better)"),
)


def _methods(frame: pd.DataFrame) -> list[str]:
    part = chosen(frame, "worst_recall")
    return [method for method in style.METHODS if (part["method"] == method).any()]


def _label(method: str, spent: dict[str, str]) -> str:
    return style.method_name(method) + (f"  ({spent[method]})" if method in spent else "")


@style.styled
def fairness(frame: pd.DataFrame) -> Figure:
    """Draw the worst class, the gap and both groups of classes for classifiers of every training set (P2)."""
    summaries = {metric: means(frame, metric, ["method"], client="all") for metric, _ in PANELS}
    summaries["minority_recall"] = means(frame, "minority_recall", ["method"], client="all")
    methods, names, spent = _methods(frame), sorted(set(frame["dataset"])), budgets(frame)
    height = len(names) * (0.19 * len(methods) + 0.5) + 0.8
    figure, axes = style.canvas(style.WIDTH, height, len(names), len(PANELS), sharey=True)
    for row, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(row, PANELS, strict=True):
            for name in (metric, "minority_recall") if metric == "majority_recall" else (metric,):
                look = dict(marker="|", markersize=8) if name == "majority_recall" else dict(marker="o", zorder=3)
                own = summaries[name][summaries[name]["dataset"] == dataset]
                for point in own.itertuples():
                    panel.errorbar(
                        point.mean, methods.index(point.method), xerr=half(point), linestyle="none",
                        color=style.METHODS[point.method][1], **look,
                    )
            panel.set_xlim(-0.03, 1.03)
            if dataset == names[-1]:
                panel.set_xlabel(title)
        row[0].set_title(dataset)
        row[0].set_ylim(len(methods) - 0.5, -0.5)
        row[0].set_yticks(range(len(methods)), [_label(method, spent) for method in methods])
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=size, color="black", label=f"right: {GROUPS[group]}")
        for group, marker, size in (("majority", "|", 8), ("minority", "o", 4.5))
    ]
    handles.append(Line2D([], [], linestyle="none", label=f"mean over the clients; {runs(*summaries.values())}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.styled
def recalls(frame: pd.DataFrame) -> Figure:
    """Draw the recall of every class of the first client's classifiers, a row a training set."""
    part = chosen(frame, "class_recall", client="0")
    methods, names = _methods(frame), sorted(set(frame["dataset"]))
    figure, axes = style.canvas(
        style.WIDTH, len(names) * (0.24 * len(methods) + 0.5) + 0.2, len(names), 1, sharex=False
    )
    for panel, dataset in zip(axes[:, 0], names, strict=True):
        classes, rare = classes_of(frame, dataset), few(frame, dataset, "0")
        own = part[part["dataset"] == dataset]
        table = own.groupby(["method", "asked"])["value"].mean().unstack().reindex(index=methods, columns=classes)
        image = panel.imshow(table, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for row, method in enumerate(methods):
            for column, name in enumerate(classes):
                value = table.loc[method, name]
                panel.annotate(f"{value:.2f}", (column, row), ha="center", va="center", fontsize=6.5,
                               color="white" if value > 0.55 else "black")
        panel.grid(False)
        panel.set_yticks(range(len(methods)), [style.method_name(method) for method in methods])
        panel.set_xticks(range(len(classes)), [f"{name}\nfew" if name in rare else name for name in classes])
        panel.set_title(f"{dataset}: recall of each class on real test pictures, first client")
        figure.colorbar(image, ax=panel, pad=0.01, aspect=12)
    return figure
