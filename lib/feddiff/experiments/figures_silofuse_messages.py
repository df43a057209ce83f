"""Figures of SiloFuse's bytes (notebook 31), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.figures_silofuse_parts import ACROSS
from feddiff.experiments.frames import order

LOOKS = {"silofuse": ("SiloFuse", "#0072B2", "o"), "e2e_distributed": ("joint training, distributed", "#D55E00", "s")}
QUALITY = (("resemblance", "resemblance (0–100)"), (ACROSS, "association error across silos,\nequal rows"))
# Along these, bytes are counted: label -> axis.
ALONG = (("steps", "training steps of every party"), ("rows", "rows"))
SLOW = {0: ("-", "no slow silo"), 1: ((0, (4, 2)), ""), 2: ((0, (1, 1.5)), "")}


def _along(table: pd.DataFrame, label: str) -> pd.DataFrame:
    return table.assign(place=table[label].astype(float)).sort_values("place")


def _ticks(panel, texts: pd.Series) -> None:
    places = sorted({float(text) for text in texts})
    panel.set_xticks(places, [f"{place:,.0f}" for place in places])
    panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


@style.styled
def counted(frame: pd.DataFrame) -> Figure:
    """Draw bytes as counted (marks) and by the closed form (lines) against training steps and rows (S5, S48)."""
    own = frame[frame["varied"] != ""]
    if own.empty:
        raise style.NothingToDraw("no bytes were counted along steps or rows")
    labels = ["method", "steps", "rows", "varied"]
    sent, closed = (means(own, name, labels) for name in ("bytes_sent", "bytes_expected"))
    names = sorted(set(sent["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.4 * len(names) + 0.5, len(names), 2)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (label, title) in zip(line, ALONG, strict=True):
            for method, (_, colour, marker) in LOOKS.items():
                own, form = (_along(table[(table["dataset"] == dataset) & (table["method"] == method)
                                          & (table["varied"] == label)], label) for table in (sent, closed))
                panel.plot(form["place"], form["mean"] / 1e6, color=colour, linewidth=0.9)
                panel.plot(own["place"], own["mean"] / 1e6, color=colour, marker=marker, linestyle="none")
            panel.set(xscale="log", yscale="log", xlabel=title)
            _ticks(panel, sent[(sent["varied"] == label) & (sent["dataset"] == dataset)][label])
            panel.set_title(dataset)
        line[0].set_ylabel("sent until the model is there\n(MB, log scale)")
    handles = [Line2D([], [], color=c, marker=m, linewidth=0.9, label=name) for name, c, m in LOOKS.values()]
    handles.append(Line2D([], [], linestyle="none", label="marks: counted; lines: closed form, no framing"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def quality(frame: pd.DataFrame) -> Figure:
    """Draw quality against bytes: SiloFuse at its one price, joint training at several (S18)."""
    judged = frame[frame["times"] != ""]
    if judged.empty:
        raise style.NothingToDraw("no run was judged at a number of bytes")
    price = means(judged, "bytes_sent", ["method", "times"]).set_index(["dataset", "method", "times"])["mean"]
    tables = {metric: means(judged, metric, ["method", "times"]) for metric, _ in QUALITY}
    names = sorted(set(judged["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.5 * len(names) + 0.5, len(names), 2)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(line, QUALITY, strict=True):
            for method, (_, colour, marker) in LOOKS.items():
                own = tables[metric]
                own = own[(own["dataset"] == dataset) & (own["method"] == method)]
                own = own.assign(place=[price[dataset, method, times] / 1e6 for times in own["times"]])
                own = own.sort_values("place")
                panel.errorbar(own["place"], own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                               marker=marker)
                if method == "silofuse":
                    for row in own.itertuples():
                        panel.axvline(row.place, color=style.PALE, linewidth=0.8, zorder=0)
            floor = frame[(frame["name"] == metric) & (frame["method"] == "real") & (frame["dataset"] == dataset)]
            if len(floor):
                panel.axhline(floor["value"].mean(), color="black", linewidth=0.8, dashes=(2, 2))
            panel.set(xscale="log", xlabel="sent until the model is there (MB, log scale)", ylabel=title)
            panel.set_title(dataset)
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, c, m in LOOKS.values()]
    handles.append(Line2D([], [], color="black", linewidth=0.8, dashes=(2, 2), label="real rows"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def waiting(frame: pd.DataFrame) -> Figure:
    """Draw the time to a model on a simulated network against bandwidth, with and without a slow silo (S30)."""
    table = means(frame, "hours_to_model", ["method", "bandwidth", "slow"])
    if table.empty:
        raise style.NothingToDraw("no network was simulated")
    names, slows = sorted(set(table["dataset"])), sorted(set(table["slow"]), key=order)
    figure, axes = style.canvas(style.WIDTH, 2.6, 1, len(names), sharey=True)
    for panel, dataset in zip(axes[0], names, strict=True):
        for method, (_, colour, marker) in LOOKS.items():
            for index, slow in enumerate(slows):
                own = table[(table["dataset"] == dataset) & (table["method"] == method) & (table["slow"] == slow)]
                own = _along(own, "bandwidth")
                panel.plot(own["place"], own["mean"] * 60, color=colour, marker=marker, linestyle=SLOW[index][0])
        panel.set(xscale="log", yscale="log", xlabel="bandwidth of a silo's line (Mbit/s)")
        _ticks(panel, table["bandwidth"])
        panel.set_title(dataset)
    axes[0, 0].set_ylabel("minutes to a model\n(simulated, log scale)")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, c, m in LOOKS.values()]
    handles += [Line2D([], [], color=style.GREY, linestyle=SLOW[index][0],
                       label=SLOW[index][1] or f"one silo {slow} times slower") for index, slow in enumerate(slows)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
