"""Figures of PFDM with many clients (notebook 23) and of what breaks it (26), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import GROUPS, half, means, runs
from feddiff.experiments.frames import order

# What PFDM is compared with (label `minus`) -> what a reader sees, colour, marker.
MINUS = {"local": ("training alone", "#D55E00", "o"),
         "no_server": ("its own local model from noise: the server's part", "#0072B2", "D")}
# Methods of notebook 26 (label `method`), with the start of PFDM's local model in the label `start`.
DRAWN = {("pfdm", "global"): ("PFDM", "#0072B2", "o"),
         ("pfdm", "noise"): ("its local model from noise: no server", "#CC79A7", "v"),
         ("local", ""): ("training alone", "#D55E00", "s"),
         ("local_balanced", ""): ("training alone, balanced batches", "#E69F00", "D")}
CURVES = (("frechet", "Fréchet distance (lower is better)"), ("label_accuracy", "label accuracy (0–1)"))
OTHERS = {"same": "like ours", "inverted": "inverted", "relabelled": "other class names"}
WAYS = {"every_step": "every step (the papers')", "strided": "strided", "strided_ddim": "strided, DDIM",
        "short_every_step": "T − t0 stages, every step", "short_strided": "T − t0 stages, strided"}

# Label `case` of notebook 26: where one class has pictures.
CASES = {"absent_here": "none here,\nmany there", "rare_everywhere": "none here,\nfew there"}


def _numbers(texts) -> list[str]:
    return sorted(set(texts), key=order)


@style.styled
def advantage(frame: pd.DataFrame) -> Figure:
    """Draw PFDM's advantage in Fréchet distance against the number of clients at fixed total data (P10)."""
    found = means(frame, "frechet_difference", ["clients", "minus", "group"])
    counts, names = _numbers(found["clients"]), sorted(set(found["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.5 * len(names) + 0.6, len(names), 2, sharex=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (group, title) in zip(line, GROUPS.items(), strict=True):
            panel.axhline(0, color="black", linewidth=0.7)
            for index, (minus, (_, colour, marker)) in enumerate(MINUS.items()):
                own = found[(found["dataset"] == dataset) & (found["group"] == group) & (found["minus"] == minus)]
                panel.errorbar(
                    [counts.index(count) + 0.06 * (2 * index - 1) for count in own["clients"]], -own["mean"],
                    yerr=[half(row) for row in own.itertuples()], color=colour, marker=marker,
                )
            panel.set_xticks(range(len(counts)), counts)
            panel.set_xlim(-0.4, len(counts) - 0.6)
            panel.set_title(f"{dataset}, {title}")
            panel.set_xlabel("clients that share the same pictures")
        line[0].set_ylabel("less Fréchet distance\n(above 0: PFDM is better)")
    handles = [Line2D([], [], color=c, marker=m, label=f"than {name}") for name, c, m in MINUS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def traffic(frame: pd.DataFrame) -> Figure:
    """Draw the bytes of PFDM's one round and the rounds of federated averaging that cost as much (P27)."""
    sizes, rounds = means(frame, "upload_bytes", ["pictures", "side"]), means(frame, "break_even_rounds",
                                                                              ["published", "clients"])
    figure, axes = style.canvas(style.WIDTH, 2.8, 1, 2)
    left, right = axes[0]
    looks = style.colours(sizes["pictures"])
    for count in _numbers(looks):
        colour, marker = looks[count]
        own = sizes[sizes["pictures"] == count].drop_duplicates("side").assign(x=lambda part: part["side"].astype(int))
        own = own.sort_values("x")
        left.plot(own["x"], own["mean"] / 1e6, color=colour, marker=marker, label=f"{int(count):,} pictures")
    left.set(xscale="log", yscale="log", xlabel="side of a grey picture in pixels", ylabel="upload (MB, log scale)")
    left.set_xticks([int(side) for side in _numbers(sizes["side"])], _numbers(sizes["side"]))
    left.minorticks_off()
    left.legend(title="at all clients", alignment="left")
    names = style.colours(rounds["published"])
    for name, (colour, marker) in names.items():
        own = rounds[rounds["published"] == name].drop_duplicates("clients")
        own = own.assign(x=own["clients"].astype(int)).sort_values("x")
        right.plot(own["x"], own["mean"], color=colour, marker=marker, label=name)
    right.axhline(0.5, color=style.GREY, linewidth=0.8, dashes=(2, 2))
    right.set(xscale="log", yscale="log", xlabel="clients", ylabel="rounds of FedAvg with as many bytes")
    right.set_xticks([int(count) for count in _numbers(rounds["clients"])], _numbers(rounds["clients"]))
    right.minorticks_off()
    right.legend(title="35.7M parameters", alignment="left")
    return figure


@style.styled
def cost(frame: pd.DataFrame) -> Figure:
    """Draw network calls and quality of ways to sample one trained federation (P52)."""
    calls = means(frame, "network_calls", ["sampling"], stage="total")
    sampled = frame[frame["sampling"] != ""]
    scored = {metric: means(sampled, metric, ["sampling", "group"], client="all")
              for metric in ("frechet", "label_accuracy")}
    present = [way for way in WAYS if (calls["sampling"] == way).any()]
    figure, axes = style.canvas(style.WIDTH, 0.33 * len(present) + 1.3, 1, 3, sharey=True)
    for row in calls.itertuples():
        place = present.index(row.sampling)
        axes[0, 0].barh(place, row.mean, color=style.PALE, height=0.55)
        axes[0, 0].annotate(f"{row.mean:,.0f}", (row.mean, place), (3, 0), textcoords="offset points", va="center",
                            fontsize=7)
    for panel, (metric, table) in zip(axes[0, 1:], scored.items(), strict=True):
        for row in table.itertuples():
            marker = "o" if row.group == "minority" else "|"
            panel.errorbar(row.mean, present.index(row.sampling), xerr=half(row), color=style.PALETTE[0],
                           marker=marker, markersize=4.5 if marker == "o" else 8, linestyle="none")
        panel.set_xlabel(style.metric_name(metric).replace(" (", "\n("))
    axes[0, 0].set(xlabel="network calls for a picture")
    axes[0, 0].set_xlim(0, 1.25 * calls["mean"].max())
    axes[0, 0].set_yticks(range(len(present)), [WAYS[way] for way in present])
    axes[0, 0].set_ylim(len(present) - 0.5, -0.5)
    handles = [Line2D([], [], linestyle="none", color=style.PALETTE[0], marker=marker, markersize=size,
                      label=GROUPS[group]) for group, marker, size in (("majority", "|", 8), ("minority", "o", 4.5))]
    handles.append(Line2D([], [], linestyle="none", label=runs(*scored.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def incompatible(frame: pd.DataFrame) -> Figure:
    """Draw the first client's quality when the other client's pictures do not fit (P39)."""
    panels = CURVES
    agree = means(frame, "agreement", ["others"]).set_index(["dataset", "others"])["mean"]
    judged = frame[frame["others"] != ""]
    tables = {metric: means(judged, metric, ["others", "group", "method", "start"], client="all")
              for metric, _ in panels}
    names = sorted(set(tables["frechet"]["dataset"]))
    others = [name for name in OTHERS if (tables["frechet"]["others"] == name).any()]
    figure, axes = style.canvas(style.WIDTH, 2.5 * len(names) + 0.7, len(names), 2)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(line, panels, strict=True):
            own = tables[metric][(tables[metric]["dataset"] == dataset) & (tables[metric]["group"] == "minority")]
            _by_condition(panel, own[own["start"] == "global"], "others", others, joined=False)
            for row in own[own["start"] != "global"].itertuples():
                panel.axhline(row.mean, color=DRAWN[row.method, row.start][1], dashes=(4, 2), linewidth=1.1)
            labels = [f"{OTHERS[name]}\n({agree[dataset, name]:.0%} read\nas named)" for name in others]
            panel.set_xticks(range(len(others)), labels)
            panel.set_xlabel("the other client's pictures")
            panel.set_ylabel(title)
            panel.set_title(f"{dataset}, classes with few pictures")
    _legend(figure, *tables.values())
    return figure


@style.styled
def rarity(frame: pd.DataFrame) -> Figure:
    """Draw quality on rare classes against how many pictures of each a client has (P40)."""
    panels = CURVES
    where = dict(client="all", group="minority")
    one = means(frame, "class_accuracy", ["case", "start"])
    judged = frame[frame["held"] != ""]
    tables = {metric: means(judged, metric, ["held", "method", "start"], **where) for metric, _ in panels}
    names, counts = sorted(set(tables["frechet"]["dataset"])), _numbers(tables["frechet"]["held"])
    cases = [case for case in CASES if (one["case"] == case).any()]
    figure, axes = style.canvas(style.WIDTH, 2.5 * len(names) + 0.7, len(names), 3)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, title) in zip(line, panels):
            _by_condition(panel, tables[metric][tables[metric]["dataset"] == dataset], "held", counts)
            panel.set_xticks(range(len(counts)), counts)
            panel.set_xlabel("pictures of each rare class\nat a client")
            panel.set_ylabel(title)
            panel.set_title(dataset)
        own = one[one["dataset"] == dataset].assign(method="pfdm")
        _by_condition(line[2], own, "case", cases, joined=False)
        line[2].set_xticks(range(len(cases)), [CASES[case] for case in cases])
        line[2].set_ylim(-0.03, 1.03)
        line[2].set_ylabel("label accuracy of one class")
        line[2].set_title("one class, first client")
    _legend(figure, *tables.values())
    return figure


def _by_condition(panel, table: pd.DataFrame, label: str, conditions: list[str], *, joined: bool = True) -> None:
    keys = [key for key in DRAWN if ((table["method"] == key[0]) & (table["start"] == key[1])).any()]
    for index, key in enumerate(keys):
        _, colour, marker = DRAWN[key]
        own = table[(table["method"] == key[0]) & (table["start"] == key[1])]
        own = own.assign(place=[conditions.index(text) for text in own[label]]).sort_values("place")
        shift = 0.1 * (index - (len(keys) - 1) / 2)
        panel.errorbar(own["place"] + shift, own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                       marker=marker, linewidth=0.8, linestyle="-" if joined else "none",
                       elinewidth=1.4)
    panel.set_xlim(-0.5, len(conditions) - 0.5)


def _legend(figure: Figure, *tables: pd.DataFrame) -> None:
    drawn = {(row.method, row.start) for table in tables for row in table.itertuples()}
    handles = [Line2D([], [], color=c, marker=m, label=name) for key, (name, c, m) in DRAWN.items() if key in drawn]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
