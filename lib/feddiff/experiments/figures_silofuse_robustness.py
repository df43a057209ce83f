"""Figures of SiloFuse under other splits of the columns (notebook 32), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import chosen, half, means, runs

ORDERS = {"contiguous": "contiguous", "random": "random", "adversarial": "adversarial"}
SILOS = {"1": "1", "2": "2", "4": "4", "8": "8", "columns": "one column",
         "columns_wide": "one, 2 wide", "bits": "one bit"}
HELD = "silos, or what each holds"
COUNTS = {"4": ("4 silos", "#0072B2", "o"), "8": ("8 silos", "#D55E00", "s")}
SCORES = {
    "resemblance": "resemblance\n(0–100, higher is better)",
    "association_all": "association error, all\npairs (lower is better)",
    "reconstruction_mean": "reconstruction, mean\nof columns (1 is perfect)",
}
SORTS = {
    "number": ("numbers", "#0072B2", "o"), "two levels": ("categories of two levels", "#009E73", "s"),
    "more levels": ("categories of more levels", "#D55E00", "^"),
}
# The axis of a reconstruction that is perfect everywhere must not magnify rounding.
CLOSEST = 0.98
# Of associations there is no reading at equal rows over all pairs: the legend says how long the held-out table is.
REAL = "real rows (association: held out,\na quarter as many)"
FLOOR = "real silos, shuffled: no exchange"


def _by_draw(frame: pd.DataFrame, metric: str, method: str) -> pd.DataFrame:
    """Return the metric by data set, seed, silos and order, the mean over random orders."""
    part = chosen(frame, metric, method=method)
    part = part[part["partition"] != ""]
    keys = ["notebook", "scale", "dataset", "key", "settings", "seed", "name", "partition", "order"]
    return part.groupby(keys, as_index=False)["value"].mean().assign(timing=False, reason="")


def _means(frame: pd.DataFrame, metric: str, method: str = "silofuse") -> pd.DataFrame:
    return means(_by_draw(frame, metric, method), metric, ["partition", "order"])


@style.styled
def orders(frame: pd.DataFrame) -> Figure:
    """Draw quality for contiguous, random and adversarial orders of the columns (S6, S42)."""
    tables = {metric: _means(frame, metric) for metric in SCORES}
    floor = _means(frame, "association_all", "shuffled_silos")
    names = sorted(set(tables["resemblance"]["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.2 * len(names) + 0.6, len(names), len(SCORES))
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(line, SCORES.items(), strict=True):
            for index, (count, (_, colour, marker)) in enumerate(COUNTS.items()):
                _points(panel, tables[metric], dataset, "order", ORDERS, 0.12 * (2 * index - 1), colour, marker,
                        joined=False, partition=count)
                if metric == "association_all":
                    _points(panel, floor, dataset, "order", ORDERS, 0.12 * (2 * index - 1), colour, "_", joined=False,
                            partition=count)
            _real(panel, frame, metric, dataset)
            _from_afar(panel, metric)
            _places(panel, ORDERS)
            panel.set_ylabel(title)
        line[0].set_title(dataset)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=text) for text, c, m in COUNTS.values()]
    handles.append(Line2D([], [], color=style.GREY, marker="_", linestyle="none", label=FLOOR))
    _legend(figure, handles, *tables.values())
    return figure


@style.styled
def silos(frame: pd.DataFrame) -> Figure:
    """Draw quality against the number of silos, up to one column and one bit each (S7, S27, S33)."""
    tables = {metric: _means(frame, metric) for metric in SCORES}
    floor = _means(frame, "association_all", "shuffled_silos")
    names = sorted(set(tables["resemblance"]["dataset"]))
    present = {name: text for name, text in SILOS.items() if (tables["resemblance"]["partition"] == name).any()}
    figure, axes = style.canvas(style.WIDTH, 2.2 * len(names) + 0.6, len(names), len(SCORES))
    where = dict(order="contiguous")
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(line, SCORES.items(), strict=True):
            _points(panel, tables[metric], dataset, "partition", present, 0.0, style.PALETTE[0], "o", **where)
            if metric == "association_all":
                _points(panel, floor, dataset, "partition", present, 0.0, style.GREY, "_", joined=False, **where)
            _real(panel, frame, metric, dataset)
            _from_afar(panel, metric)
            _places(panel, present)
            panel.set_ylabel(title)
        line[0].set_title(dataset)
    for panel in axes[-1]:
        panel.set_xlabel(HELD)
    handles = [Line2D([], [], color=style.PALETTE[0], marker="o", label="SiloFuse, contiguous"),
               Line2D([], [], color=style.GREY, marker="_", linestyle="none", label=FLOOR)]
    _legend(figure, handles, *tables.values())
    return figure


@style.styled
def shapes(frame: pd.DataFrame) -> Figure:
    """Draw how well single columns are met, by what they hold, against the number of silos (S7, S33)."""
    where = dict(method="silofuse", order="contiguous")
    tables = {sort: means(frame, "column_shape", ["partition", "order"], sort=sort, **where) for sort in SORTS}
    tables = {sort: table[table["n"] > 0] for sort, table in tables.items()}
    every = pd.concat(tables.values())
    names = sorted(set(every["dataset"]))
    present = {name: text for name, text in SILOS.items() if (every["partition"] == name).any()}
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, len(names), sharey=True)
    for panel, dataset in zip(axes[0], names, strict=True):
        for index, (sort, (_, colour, marker)) in enumerate(SORTS.items()):
            _points(panel, tables[sort], dataset, "partition", present, 0.1 * (index - 1), colour, marker)
        _places(panel, present)
        panel.set_xlabel(HELD)
        panel.set_title(dataset)
    axes[0, 0].set_ylim(top=min(axes[0, 0].get_ylim()[1], 1.01))
    axes[0, 0].set_ylabel("column shapes, held-out rows\n(0–1, higher is better)")
    handles = [Line2D([], [], color=c, marker=m, label=text) for text, c, m in SORTS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(every)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _places(panel, names: dict[str, str]) -> None:
    panel.set_xticks(range(len(names)), list(names.values()), rotation=35, ha="right", rotation_mode="anchor")
    panel.set_xlim(-0.5, len(names) - 0.5)


def _from_afar(panel, metric: str) -> None:
    if metric.startswith("reconstruction"):
        panel.set_ylim(min(panel.get_ylim()[0], CLOSEST), max(panel.get_ylim()[1], 1 + (1 - CLOSEST) / 20))


def _points(
    panel, table: pd.DataFrame, dataset: str, label: str, places: dict[str, str], shift: float, colour: str,
    marker: str, *, joined: bool = True, **where,
) -> None:
    own = table[(table["dataset"] == dataset) & table[label].isin(list(places))]
    for name, text in where.items():
        own = own[own[name] == text]
    own = own.assign(place=[list(places).index(text) for text in own[label]]).sort_values("place")
    panel.errorbar(own["place"] + shift, own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                   marker=marker, markersize=9 if marker == "_" else 4.5, linestyle="none", elinewidth=1.4)
    # A line joins numbers of silos alone: what comes after them has no order.
    counted = own[own[label].str.isdigit()] if joined else own.iloc[:0]
    panel.plot(counted["place"] + shift, counted["mean"], color=colour, linewidth=0.8)


def _real(panel, frame: pd.DataFrame, metric: str, dataset: str) -> None:
    if metric.startswith("reconstruction"):
        return
    own = means(frame, metric, ["method"], method="real")
    for row in own[own["dataset"] == dataset].itertuples():
        panel.axhline(row.mean, color=style.GREY, dashes=(2, 2), linewidth=0.9)


def _legend(figure: Figure, handles: list[Line2D], *tables: pd.DataFrame) -> None:
    handles = [*handles, Line2D([], [], color=style.GREY, dashes=(2, 2), linewidth=0.9, label=REAL),
               Line2D([], [], linestyle="none", label=runs(*tables))]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
