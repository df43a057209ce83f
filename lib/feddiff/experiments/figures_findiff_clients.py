"""Figures of DP-Fed-FinDiff over numbers of clients (notebook 11), each a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import chosen, half, means, runs
from feddiff.experiments.tables import summarise

# (budget, partition) -> (what a reader sees, colour, marker, dashed)
ARMS = {
    ("none", "iid"): ("no DP, at random", "#000000", "o", False),
    ("none", "by_category"): ("no DP, by category", "#000000", "o", True),
    ("epsilon", "iid"): ("each client ε = 1, at random", "#0072B2", "s", False),
    ("epsilon", "by_category"): ("each client ε = 1, by category", "#0072B2", "s", True),
    ("sigma", "iid"): ("noise of one client for all, at random", "#D55E00", "^", False),
    ("sigma", "by_category"): ("noise of one client for all, by category", "#D55E00", "^", True),
}
PANELS = {
    "pair_trends": ("pair trends", {"method": "ours"}),
    "roc_auc": ("ROC AUC", {"method": "ours", "classifier": "boosting"}),
    "attack_risk": ("attack risk\n(lower is better)", {"method": "ours"}),
}
# (of, minus) -> what a reader sees; the federated release is "ours"
CONTROLS = {
    ("ours", "local"): "federated less\na client alone",
    ("ours", "local_pooled"): "federated less releases\nof all clients together",
    ("centralised", "ours"): "one client with all rows\nless federated",
}
SETTINGS = {("none", "iid"): "no DP", ("none", "by_category"): "no DP, by category", ("epsilon", "iid"): "ε = 1",
            ("epsilon", "by_category"): "ε = 1, by category"}


def _clients_axis(panel, counts) -> None:
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(sorted(counts)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("clients (same rows in all)")


def arms_legend(figure: Figure, seen: dict, tables: dict[str, pd.DataFrame]) -> None:
    """Name below `figure` the arms that were seen (key of ARMS -> handle), in their order, and what the bars are."""
    handles = [seen[arm] for arm in ARMS if arm in seen]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


@style.styled
def clients(frame: pd.DataFrame) -> Figure:
    """Draw quality and attack risk against the number of clients; columns are data sets (F6)."""
    tables = {}
    for metric, (_, where) in PANELS.items():
        try:
            tables[metric] = means(frame, metric, ["budget", "partition", "clients"], **where)
        except style.NothingToDraw:
            if metric != "attack_risk":
                raise
    names = sorted(set(tables["pair_trends"]["dataset"]))
    figure, axes = style.canvas(
        style.WIDTH, 1.6 * len(tables) + 0.8, len(tables), len(names), sharex=True, sharey="row"
    )
    counts = sorted({int(text) for text in tables["pair_trends"]["clients"]})
    seen = {}
    for line, (metric, table) in zip(axes, tables.items(), strict=True):
        for panel, dataset in zip(line, names, strict=True):
            for place, (arm, (text, colour, marker, dashed)) in enumerate(ARMS.items()):
                own = table[(table["dataset"] == dataset) & (table["budget"] == arm[0])]
                own = own[own["partition"] == arm[1]]
                own = own.assign(clients=own["clients"].astype(int)).sort_values("clients")
                if len(own):
                    shift = 1.03 ** (place - 2.5)
                    look = dict(color=colour, marker=marker, linestyle="--" if dashed else "-",
                                markerfacecolor="white" if dashed else colour)
                    bars = [half(row) for row in own.itertuples()]
                    panel.errorbar(own["clients"] * shift, own["mean"], yerr=bars, **look)
                    seen[arm] = Line2D([], [], label=text, **look)
            if metric == next(iter(tables)):
                panel.set_title(dataset)
            if metric == list(tables)[-1]:
                _clients_axis(panel, counts)
        line[0].set_ylabel(PANELS[metric][0])
        style.focus(line[0], table["mean"], "y", spread=0.3, high=1)
    arms_legend(figure, seen, tables)
    return figure


@style.styled
def noise(frame: pd.DataFrame) -> Figure:
    """Draw the noise that a fixed epsilon takes, what is left in the average, and the epsilon of a fixed noise (F6)."""
    panels = (
        ("noise_multiplier", "epsilon", "noise multiplier of a client\nat ε = 1 each"),
        ("averaged_noise", "epsilon", "noise in the average gradient\nat ε = 1 each (units of C)"),
        ("client_epsilon", "sigma", "ε of a client at the noise\nof one client with all rows"),
    )
    figure, axes = style.canvas(style.WIDTH, 2.7, 1, 3)
    drawn = [means(frame, m, ["clients"], method="ours", budget=b, partition="iid") for m, b, _ in panels]
    looks = style.colours(drawn[0]["dataset"])
    for panel, (_, _, title), table in zip(axes[0], panels, drawn, strict=True):
        for dataset, (colour, marker) in looks.items():
            own = table[table["dataset"] == dataset]
            own = own.assign(clients=own["clients"].astype(int)).sort_values("clients")
            panel.plot(own["clients"], own["mean"], color=colour, marker=marker)
        _clients_axis(panel, {int(text) for text in table["clients"]})
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_title(title, fontsize=8)
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def differences(frame: pd.DataFrame, metric: str, clients_: str) -> pd.DataFrame:
    """Return CONTROLS' paired differences per data set, budget, partition and seed at `clients_` clients."""
    rows = []
    part = chosen(frame, metric, **{name: text for name, text in PANELS[metric][1].items() if name != "method"})
    part = part[part["client"] == ""] if "client" in part.columns else part
    one = part[(part["method"] == "ours") & (part["clients"] == "1")]
    here = part[part["clients"] == clients_]
    for (dataset, seed, budget, partition), group in here.groupby(["dataset", "seed", "budget", "partition"]):
        value = dict(zip(group["method"], group["value"], strict=True))
        whole = one[(one["dataset"] == dataset) & (one["seed"] == seed) & (one["budget"] == budget)]["value"]
        value |= {"centralised": whole.iloc[0]} if len(whole) else {}
        for of, minus in CONTROLS:
            if of in value and minus in value and (budget, partition) in SETTINGS:
                rows.append((dataset, seed, budget, partition, of, minus, "difference", value[of] - value[minus], ""))
    names = ["dataset", "seed", "budget", "partition", "of", "minus", "name", "value", "reason"]
    return pd.DataFrame(rows, columns=names)


@style.styled
def alone(frame: pd.DataFrame) -> Figure:
    """Draw federated less local-only and centralised less federated, paired by seed (F17)."""
    local = chosen(frame, "pair_trends", method="local")
    at = local["clients"].iloc[0]
    tables = {}
    for metric in ("pair_trends", "roc_auc"):
        found = differences(frame, metric, at)
        tables[metric] = summarise(found, ["dataset", "budget", "partition", "of", "minus"])
    present = [s for s in SETTINGS if len(tables["pair_trends"].query("budget == @s[0] and partition == @s[1]"))]
    looks = style.colours(frame["dataset"])
    figure, axes = style.canvas(style.WIDTH, 0.75 * len(present) * 1.25 + 1.3, 2, 3, sharey=True, sharex="row")
    for line, (metric, table) in zip(axes, tables.items(), strict=True):
        for panel, ((of, minus), title) in zip(line, CONTROLS.items(), strict=True):
            panel.axvline(0, color="black", linewidth=0.7)
            for place, (budget, partition) in enumerate(present):
                for index, (dataset, (colour, marker)) in enumerate(looks.items()):
                    y = place + 0.18 * (index - (len(looks) - 1) / 2)
                    own = table[(table["of"] == of) & (table["minus"] == minus) & (table["dataset"] == dataset)
                                & (table["budget"] == budget) & (table["partition"] == partition)]
                    for row in own.itertuples():
                        panel.errorbar(row.mean, y, xerr=half(row), color=colour, marker=marker, linestyle="none")
            panel.set_xlabel(f"difference in {PANELS[metric][0]}")
            style.focus(panel, table["mean"], low=-1, high=1)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            if metric == "pair_trends":
                panel.set_title(title, fontsize=8)
        line[0].set_yticks(range(len(present)), [SETTINGS[s] for s in present])
        line[0].set_ylim(len(present) - 0.5, -0.5)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=f"{at} clients; {runs(*tables.values())}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def unit(frame: pd.DataFrame) -> Figure:
    """Draw epsilon against the records that are protected together, up to a whole client; who took part (F45)."""
    groups = means(frame, "group_epsilon", ["records"])
    whole, share = means(frame, "client_level_epsilon", []), means(frame, "client_share", ["presence"])
    looks = style.colours(groups["dataset"])
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, 2, width_ratios=(3, 2))
    last = max(int(text) for text in groups["records"])
    left, right = axes[0]
    for index, (dataset, (colour, marker)) in enumerate(looks.items()):
        own = groups[groups["dataset"] == dataset]
        own = own.assign(records=own["records"].astype(int)).sort_values("records")
        left.plot(own["records"], own["mean"], color=colour, marker=marker)
        for row in whole[whole["dataset"] == dataset].itertuples():
            left.plot(8 * last * 1.25**index, row.mean, color=colour, marker=marker, linestyle="none")
        for row in share[share["dataset"] == dataset].itertuples():
            right.errorbar(["in", "out"].index(row.presence) + 0.1 * (index - (len(looks) - 1) / 2), row.mean,
                           yerr=half(row), color=colour, marker=marker, linestyle="none")
    for axis in ("x", "y"):
        getattr(left, f"set_{axis}scale")("log")
    ticks = sorted({int(text) for text in groups["records"]})
    left.xaxis.set_minor_locator(NullLocator())
    left.set_xticks([*ticks, 8 * last * 1.25 ** ((len(looks) - 1) / 2)], [*map(str, ticks), "a whole\nclient"])
    left.set_xlabel("records of one party")
    left.set_ylabel("ε for all of them together")
    left.axhline(10, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    left.annotate("ε = 10", (1, 10), (0, 3), textcoords="offset points", fontsize=7, color=style.GREY)
    right.set_xticks([0, 1], ["it took part", "it did not"])
    right.set_xlim(-0.5, 1.5)
    right.set_ylim(bottom=0)
    right.set_ylabel("released rows of one client's\ncategories (share), ε = 1 a record")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(share)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
