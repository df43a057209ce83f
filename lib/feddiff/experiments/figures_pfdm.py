"""Figures of PFDM under heterogeneous clients (notebook 20), each a function of a long records frame.

Sample grids read the pictures that lie beside the records. `means` and `tiles` serve the other PFDM figures too.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from feddiff.experiments import pictures, style
from feddiff.experiments.frames import order
from feddiff.experiments.tables import summarise

GROUPS = {"majority": "classes with many pictures", "minority": "classes with few pictures"}
# (metric, title, logarithmic)
QUALITY = (
    ("frechet", "Fréchet distance\n(log scale, lower is better)", True),
    ("label_accuracy", "label accuracy\n(0–1, higher is better)", False),
    ("closer_to_train", "nearer to own training\npictures (0.5 is ideal)", False),
)


def chosen(frame: pd.DataFrame, metric: str, **where) -> pd.DataFrame:
    """Return the rows of one metric whose labels are as given; NothingToDraw when there is none."""
    part = frame[frame["name"] == metric]
    for label, text in where.items():
        part = part[part[label] == text] if label in part.columns else part.iloc[:0]
    if part.empty:
        wanted = "".join(f" of {label} {text}" for label, text in where.items())
        raise style.NothingToDraw(f"the records hold no {metric}{wanted}")
    return part


def means(frame: pd.DataFrame, metric: str, by: list[str], **where) -> pd.DataFrame:
    """Return n, mean and half width over seeds of one metric by data set and the labels `by`, other labels fixed."""
    return summarise(chosen(frame, metric, **where), ["dataset", *by])


def half(row) -> float:
    """Return the half width of a row's interval, 0 where there is none."""
    return 0.0 if math.isnan(row.half_width) else row.half_width


def ends(*rows, low: float = 0.0, high: float = 1.0) -> list[list[float]]:
    """Return how far the intervals of rows reach down and up, cut at the metric's range `low` to `high`."""
    return [[min(half(row), max(row.mean - low, 0.0)) for row in rows],
            [min(half(row), max(high - row.mean, 0.0)) for row in rows]]


def runs(*summaries: pd.DataFrame) -> str:
    """Return what the bars are."""
    counts = sorted({int(n) for table in summaries for n in table["n"] if n})
    if not counts or counts == [1]:
        return "one run, no interval"
    return f"bars: 95 % interval over {'–'.join(str(n) for n in sorted({counts[0], counts[-1]}))} seeds"


def first_record(frame: pd.DataFrame, name: str, dataset: str) -> dict[str, np.ndarray]:
    """Return the pictures `name` of the first seed of a data set; NothingToDraw when no run left any."""
    own = frame[frame["dataset"] == dataset].sort_values("seed", kind="stable").iloc[0]
    try:
        return pictures.load(own["notebook"], own["scale"], own["key"], name)
    except FileNotFoundError as missing:
        raise style.NothingToDraw(f"no pictures {name!r} lie beside the record {own['key']}") from missing


def tiles(axes, rows: np.ndarray, gap: int = 1) -> None:
    """Draw rows of pictures, uint8 (rows, n, h, w, c), on one axes, `gap` white pixels between them."""
    count, n, height, width, channels = rows.shape
    sheet = np.full((count * (height + gap) - gap, n * (width + gap) - gap, channels), 255, dtype=np.uint8)
    for place, row in enumerate(rows):
        for column, tile in enumerate(row):
            top, left = place * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    axes.imshow(sheet[..., 0] if channels == 1 else sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks([place * (height + gap) + height / 2 - 0.5 for place in range(count)])
    axes.set_xticks([column * (width + gap) + width / 2 - 0.5 for column in range(n)])
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    # The layout reserves room for labels left of the box; pictures narrower than the box must not move away from it.
    axes.set_anchor("W")


def sheet_height(sheet: dict[str, np.ndarray], width: float = 0.73 * style.WIDTH) -> float:
    """Return the height in inches at which rows of pictures are `width` inches wide."""
    n, tall, wide, _ = next(iter(sheet.values())).shape
    return width * len(sheet) * (tall + 1) / (n * (wide + 1))


def log_axis(axes, which: str = "x") -> None:
    """Make the x or y axis of `axes` logarithmic, its ticks plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    # Beyond a factor of 200 labels of three ticks a decade run into each other.
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def epsilon(value: float) -> str:
    """Return an epsilon with three digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def few(frame: pd.DataFrame, dataset: str, client: str) -> set[str]:
    """Return the classes of which a client holds fewer pictures than of others."""
    held = chosen(frame, "pictures_held", dataset=dataset, client=client).groupby("asked")["value"].max()
    return set(held.index[held < held.max()])


def classes_of(frame: pd.DataFrame, dataset: str) -> list[str]:
    """Return the classes of a data set, in order."""
    return sorted(set(chosen(frame, "pictures_held", dataset=dataset)["asked"]), key=order)


def budgets(frame: pd.DataFrame) -> dict[str, str]:
    """Return method -> its epsilon in words for a label, "" for methods that claim none (largest over the runs)."""
    found = {}
    for unit in ("image", "client"):
        part = frame[frame["name"] == f"epsilon_{unit}"]
        for method, own in part.groupby("method") if len(part) else ():
            found[method] = f"{unit} ε {epsilon(own['value'].max())}"
    return found


def _present(frame: pd.DataFrame) -> list[str]:
    return [method for method in style.METHODS if (frame["method"] == method).any()]


def _highest_share(frame: pd.DataFrame) -> str:
    return max(set(chosen(frame, "frechet")["share"]), key=order)


@style.styled
def groups(frame: pd.DataFrame) -> Figure:
    """Draw every method's quality on the classes with many and with few pictures, mean over the clients."""
    share = _highest_share(frame)
    where = dict(client="all", share=share)
    summaries = {metric: means(frame, metric, ["method", "group"], **where) for metric, _, _ in QUALITY}
    methods, names = _present(frame[frame["client"] == "all"]), sorted(set(frame["dataset"]))
    height = len(names) * (0.19 * len(methods) + 0.5) + 0.75
    figure, axes = style.canvas(style.WIDTH, height, len(names), 3, sharey=True)
    spent = budgets(frame)
    for row, dataset in zip(axes, names, strict=True):
        for panel, (metric, title, log) in zip(row, QUALITY, strict=True):
            own = summaries[metric][summaries[metric]["dataset"] == dataset]
            for point in own.itertuples():
                colour = style.METHODS[point.method][1]
                look = dict(marker="o", zorder=3) if point.group == "minority" else dict(marker="|", markersize=8)
                panel.errorbar(
                    point.mean, methods.index(point.method), xerr=half(point), color=colour, linestyle="none", **look
                )
            if log:
                log_axis(panel)
            if metric == "closer_to_train":
                panel.axvline(0.5, color=style.GREY, linewidth=0.9, dashes=(4, 2))
            if dataset == names[-1]:
                panel.set_xlabel(title)
        row[0].set_title(f"{dataset}, {share} % on one side")
        row[0].set_ylim(len(methods) - 0.5, -0.5)
        labels = [style.method_name(m) + (f"  ({spent[m]})" if m in spent else "") for m in methods]
        row[0].set_yticks(range(len(methods)), labels)
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=size, color="black", label=GROUPS[group])
        for group, marker, size in (("majority", "|", 8), ("minority", "o", 4.5))
    ]
    handles.append(Line2D([], [], linestyle="none", label=f"mean over the clients; {runs(*summaries.values())}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def samples(frame: pd.DataFrame) -> Figure:
    """Draw samples of every method, a row each, as the first client draws them: a column each class."""
    names = sorted(set(frame["dataset"]))
    sheets = {dataset: first_record(frame, "samples", dataset) for dataset in names}
    heights = [sheet_height(sheet) + 0.55 for sheet in sheets.values()]
    figure, axes = style.canvas(style.WIDTH, sum(heights) + 0.15, len(names), 1, height_ratios=heights)
    for panel, (dataset, sheet) in zip(axes[:, 0], sheets.items(), strict=True):
        classes, rare = classes_of(frame, dataset), few(frame, dataset, "0")
        tiles(panel, np.stack(list(sheet.values())))
        places = panel.get_xticks().reshape(len(classes), -1).mean(axis=1)
        panel.set_xticks(places, [f"{name}\nfew" if name in rare else name for name in classes])
        panel.xaxis.tick_top()
        panel.set_yticks(panel.get_yticks(), [style.method_name(method) for method in sheet])
        seed = frame[frame["dataset"] == dataset]["seed"].min()
        panel.set_xlabel(f"{dataset}, seed {seed}, first client; the first samples of each class, none was selected")
    return figure


@style.styled
def heterogeneity(frame: pd.DataFrame, of: str = "pfdm_v1", minus: str = "local") -> Figure:
    """Draw the gain of PFDM over local training against the share of a class that one side holds (P1)."""
    panels = (("frechet_difference", "Fréchet distance: PFDM v1 less local\n(below 0: PFDM is better)"),
              ("label_accuracy_difference", "label accuracy: PFDM v1 less local\n(above 0: PFDM is better)"))
    where = dict(method=of, minus=minus)
    summaries = [means(frame, metric, ["share", "group"], **where) for metric, _ in panels]
    shares = sorted(set(summaries[0]["share"]), key=order)
    figure, axes = style.canvas(style.WIDTH, 2.7, 1, 2)
    looks = style.colours(frame["dataset"])
    for panel, summary, (_, title) in zip(axes[0], summaries, panels, strict=True):
        panel.axhline(0, color="black", linewidth=0.7)
        for dataset, (colour, marker) in looks.items():
            for group, dashes in (("majority", (4, 2)), ("minority", (1, 0))):
                own = summary[(summary["dataset"] == dataset) & (summary["group"] == group)]
                panel.errorbar(
                    [shares.index(share) for share in own["share"]], own["mean"],
                    yerr=[half(row) for row in own.itertuples()], color=colour, marker=marker, dashes=dashes,
                    markerfacecolor=colour if group == "minority" else "white",
                )
        panel.set_xticks(range(len(shares)), [f"{share} %" for share in shares])
        panel.set_xlim(-0.4, len(shares) - 0.6)
        panel.set_xlabel("share of a class held by the client that has many")
        panel.set_ylabel(title)
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    for group, dashes in (("majority", (4, 2)), ("minority", (1, 0))):
        handles.append(Line2D([], [], color=style.GREY, dashes=dashes, label=GROUPS[group]))
    handles.append(Line2D([], [], linestyle="none", label=runs(*summaries)))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) if len(looks) == 1 else 3)
    return figure


@style.styled
def confusion(frame: pd.DataFrame) -> Figure:
    """Draw what the judge reads on the last client's samples of each class, a matrix a method (P4)."""
    part = chosen(frame, "confusion")
    names = sorted(set(part["dataset"]))
    methods = [method for method in style.METHODS if (part["method"] == method).any()]
    size = 2.35 * len(names) + 0.35
    figure, axes = style.canvas(style.WIDTH, size, len(names), len(methods), sharex=True, sharey=True)
    image = None
    for row, dataset in zip(axes, names, strict=True):
        classes = classes_of(frame, dataset)
        for panel, method in zip(row, methods, strict=True):
            own = part[(part["dataset"] == dataset) & (part["method"] == method)]
            table = own.groupby(["asked", "read"])["value"].mean().unstack()
            table = table.reindex(index=classes, columns=classes, fill_value=0.0)
            image = panel.imshow(table, cmap="Greys", vmin=0, vmax=1)
            panel.grid(False)
            panel.set_title(style.method_name(method), fontsize=7.5)
            panel.set_xticks(range(len(classes)), classes, fontsize=6.5)
            if {"4", "7"} <= set(classes):
                place = classes.index("7"), classes.index("4")
                panel.plot(*place, marker="s", markersize=9, markerfacecolor="none", color="#D55E00", linestyle="none")
                panel.annotate(f"{table.loc['4', '7']:.2f}", place, (0, 7), textcoords="offset points", ha="center",
                               fontsize=6.5, color="#D55E00")
            if dataset == names[-1]:
                panel.set_xlabel("class read by the judge")
        rare = few(frame, dataset, own["client"].iloc[0])
        row[0].set_yticks(range(len(classes)), [f"few  {c}" if c in rare else c for c in classes], fontsize=6.5)
        row[0].set_ylabel(f"{dataset}: class asked for")
    bar = figure.colorbar(image, ax=list(axes.flat), shrink=0.8, pad=0.01)
    bar.set_label("share of samples", fontsize=7)
    return figure


@style.styled
def states(frame: pd.DataFrame) -> Figure:
    """Draw how well classifiers name client and class from noised pictures, against the step t (P12)."""
    curves = {
        "class_accuracy": ("its class", "#0072B2", "o"),
        "client_accuracy": ("the client that holds it", "#D55E00", "s"),
    }
    names = sorted(set(frame["dataset"]))
    figure, axes = style.canvas(0.62 * style.WIDTH * len(names), 2.9, 1, len(names), sharey=True)
    summaries = []
    for panel, dataset in zip(axes[0], names, strict=True):
        for metric, (_, colour, marker) in curves.items():
            summary = means(frame, metric, ["t"], dataset=dataset)
            summaries.append(summary)
            panel.errorbar(
                [float(t) for t in summary["t"]], summary["mean"], yerr=[half(row) for row in summary.itertuples()],
                color=colour, marker=marker,
            )
        held = chosen(frame, "pictures_held", dataset=dataset)
        for label, colour in (("asked", "#0072B2"), ("client", "#D55E00")):
            panel.axhline(1 / held[label].nunique(), color=colour, linewidth=0.9, dashes=(1, 1.4))
        panel.set_title(dataset)
        panel.set_ylim(0, 1.03)
        panel.set_xlabel("step t to which the picture is noised (T = 1000)")
    axes[0, 0].set_ylabel("balanced accuracy of a classifier\n(0–1; dotted: chance)")
    handles = [Line2D([], [], color=c, marker=m, label=f"names {label}") for label, c, m in curves.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*summaries)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
