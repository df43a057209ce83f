"""Figures of the attacks on latents (notebook 43), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import chosen, ends, half, means, runs
from feddiff.experiments.frames import order

NONE = dict(defence="none")
# (attack, method) -> (name, colour, marker)
CURVES = {
    "paired": {
        ("paired", "ridge"): ("ridge regression", "#0072B2", "o"), ("paired", "knn"): ("nearest 5", "#56B4E9", "v"),
        ("paired", "mlp"): ("small network", "#D55E00", "s"),
        ("paired_control", "ridge"): ("control: pairs permuted", style.GREY, "X"),
    },
    "clone": {
        ("clone", "ridge"): ("ridge regression", "#0072B2", "o"), ("clone", "mlp"): ("small network", "#D55E00", "s"),
        ("clone_control", "ridge"): ("control: pairs permuted", style.GREY, "X"),
    },
}
CURVE_LABELS = {"paired": "known real rows", "clone": "published synthetic rows"}
# Most knowledge first: (attack, name, colour, marker)
ATTACKS = (
    ("decoder", "the decoders themselves", "#000000", "*"),
    ("clone", "published synthetic rows (clone)", "#D55E00", "s"),
    ("paired", "{known} known rows", "#0072B2", "o"),
    ("insider", "{known} known rows, first silo colludes", "#CC79A7", "D"),
    ("insider_floor", "the same without latents (floor)", style.GREY, "X"),
    ("unpaired", "unpaired public rows", "#009E73", "^"),
    ("unpaired_control", "control: guesses of other rows", style.GREY, "X"),
    ("marginals", "public marginals, a column a silo", "#E69F00", "P"),
    ("marginals_control", "control: guesses of other rows", style.GREY, "X"),
)
STRUCTURE = {
    "distance_correlation": "distances: rank correlation",
    "neighbour_gain": "nearest latents are alike",
    "cluster_agreement": "clusters name categories",
    "duplicates_recall": "equal rows found by equal latents",
    "duplicates_precision": "equal latents are equal rows",
    "relinked": "second release: same row found",
}
DEFENCES = {
    "none": ("none", "#000000", "*"), "rotation": ("secret rotation", "#CC79A7", "D"), "vae": ("VAE", "#009E73", "^"),
    "narrow": ("half the width", "#E69F00", "P"), "epsilon_1000": ("noise, ε = 1,000", "#9ecae1", "o"),
    "epsilon_100": ("noise, ε = 100", "#56B4E9", "o"), "epsilon_10": ("noise, ε = 10", "#0072B2", "o"),
}
LEAK = "leak (0 nothing, 1 all)"


@style.styled
def curves(frame: pd.DataFrame) -> Figure:
    """Draw the leak against the number of known rows and of published rows (S29, S32, S35, S39)."""
    whole = means(frame, "leak", ["attack", "method", "known"], **NONE)
    tables = {curve: whole[whole["attack"].isin([curve, f"{curve}_control"])] for curve in CURVES}
    names = sorted(set(tables["paired"]["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.1 * len(names) + 0.7, len(names), 2, sharey=True)
    most = means(frame, "leak", ["attack"], attack="decoder", **NONE)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (curve, looks) in zip(line, CURVES.items(), strict=True):
            own = tables[curve][tables[curve]["dataset"] == dataset]
            places = sorted(set(own["known"]), key=order)
            for (attack, method), (_, colour, marker) in looks.items():
                part = own[(own["attack"] == attack) & (own["method"] == method)]
                part = part.assign(place=[places.index(text) for text in part["known"]]).sort_values("place")
                panel.errorbar(part["place"], part["mean"], yerr=ends(*part.itertuples()),
                               color=colour, marker=marker, linewidth=0.9, elinewidth=1.4)
            for row in most[most["dataset"] == dataset].itertuples():
                panel.axhline(row.mean, color="black", dashes=(2, 2), linewidth=0.9)
            panel.set_xticks(range(len(places)), [text if text == "all" else f"{int(text):,}" for text in places])
            panel.set_ylim(-0.04, 1.04)
        line[0].set_ylabel(LEAK)
        line[0].set_title(dataset)
    for panel, label in zip(axes[-1], CURVE_LABELS.values(), strict=True):
        panel.set_xlabel(label)
    handles = [Line2D([], [], color=c, marker=m, label=text) for text, c, m in CURVES["paired"].values()]
    handles.append(Line2D([], [], color="black", dashes=(2, 2), linewidth=0.9, label="the decoders themselves"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def columns(frame: pd.DataFrame) -> Figure:
    """Draw the gain of each column against the number of known rows, and by a clone (S11, S35, S39)."""
    table = means(frame, "column_gain", ["attack", "known", "column", "kind"], method="ridge", **NONE)
    names = sorted(set(table["dataset"]))
    counts = [table.loc[table["dataset"] == name, "column"].nunique() for name in names]
    figure, axes = style.canvas(style.WIDTH, 0.16 * sum(counts) + 0.55 * len(names) + 0.6, len(names), 1,
                                height_ratios=counts)
    for panel, dataset in zip(axes[:, 0], names, strict=True):
        own = table[table["dataset"] == dataset]
        own = own.assign(case=[text if attack == "paired" else "clone" if text == "all" else ""
                               for attack, text in zip(own["attack"], own["known"])])
        wide = own[own["case"] != ""].pivot(index=["kind", "column"], columns="case", values="mean").sort_index()
        wide = wide[sorted(wide.columns, key=order)]
        image = panel.imshow(wide.clip(0, 1), cmap="viridis", vmin=0, vmax=1, aspect="auto")
        short = [column if len(column) < 24 else f"{column[:22]}…" for _, column in wide.index]
        panel.set_yticks(range(len(wide)), short)
        panel.set_xticks(range(wide.shape[1]), wide.columns)
        panel.tick_params(labelsize=6.5)
        panel.grid(False)
        panel.set_title(dataset)
    axes[-1, 0].set_xlabel("known rows, or clone (ridge regression)")
    figure.colorbar(image, ax=list(axes[:, 0]), label="gain over the baseline (1: all)", shrink=0.7, pad=0.01)
    return figure


@style.styled
def attacks(frame: pd.DataFrame) -> Figure:
    """Draw the leak by what the adversary has, from the decoder down to public marginals (S11, S16, S36, S38)."""
    known = max(chosen(frame, "leak", attack="insider")["known"], key=order)
    found = chosen(frame, "leak", **NONE)
    found = found[found["attack"].isin([attack for attack, *_ in ATTACKS])]
    found = found[found["attack"].map({"paired": known, "clone": "all"}).fillna(found["known"]) == found["known"]]
    # One method for all that learn from pairs; where others were tried too, the one with the largest leak beside it.
    table = means(found[~found["method"].isin(["knn", "mlp"])], "leak", ["attack"])
    several = found.groupby("attack")["method"].nunique() > 1
    best = found[found["attack"].isin(several.index[several])].sort_values("value")
    best = best.groupby(["dataset", "seed", "attack"], as_index=False).last()
    sides = [(table, True)] + ([(means(best, "leak", ["attack"]), False)] if len(best) else [])
    names = sorted(set(table["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, len(names), sharey=True)
    places = {attack: -index for index, (attack, *_) in enumerate(ATTACKS)}
    for panel, dataset in zip(axes[0], names, strict=True):
        for attack, _, colour, marker in ATTACKS:
            for side, filled in sides:
                for row in side[(side["dataset"] == dataset) & (side["attack"] == attack)].itertuples():
                    panel.errorbar(row.mean, places[attack], xerr=ends(row), color=colour, marker=marker,
                                   elinewidth=1.4, markerfacecolor=colour if filled else "white",
                                   markersize=4.5 if filled else 7, zorder=3 if filled else 2)
        panel.set_yticks(list(places.values()), [text.format(known=known) for _, text, *_ in ATTACKS])
        panel.set_ylim(-len(ATTACKS) + 0.5, 0.5)
        panel.set_xlim(-0.04, 1.04)
        panel.set_xlabel(LEAK)
        panel.set_title(dataset)
    handles = [Line2D([], [], color="black", marker="o", markerfacecolor="black" if filled else "white",
                      markersize=4.5 if filled else 7, linestyle="none", label=text)
               for text, filled in (("pairs: ridge regression", True), ("the best of several methods", False))]
    handles.append(Line2D([], [], linestyle="none", label=runs(table)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def structure(frame: pd.DataFrame) -> Figure:
    """Draw what relations between rows the latents show without any pair (S37)."""
    tables = {name: means(frame, name, []) for name in STRUCTURE if (frame.loc[frame["name"] == name, "value"]).any()}
    names = sorted(set(tables["distance_correlation"]["dataset"]))
    looks = style.colours(names)
    figure, axes = style.canvas(style.WIDTH, 2.4)
    panel = axes[0, 0]
    for place, (name, table) in enumerate(tables.items()):
        for row in table.dropna(subset=["mean"]).itertuples():
            shift = 0.16 * (names.index(row.dataset) - (len(names) - 1) / 2)
            colour, marker = looks[row.dataset]
            panel.errorbar(row.mean, -place - shift, xerr=ends(row), color=colour, marker=marker, elinewidth=1.4)
    panel.set_yticks([-place for place in range(len(tables))], [STRUCTURE[name] for name in tables])
    panel.set_xlim(-0.04, 1.04)
    panel.set_xlabel("0: nothing, 1: perfectly")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def defences(frame: pd.DataFrame) -> Figure:
    """Draw leak against resemblance for each defence: to known rows and to a clone (S40)."""
    worth = means(frame, "resemblance", ["defence"])
    told = {
        attack: means(frame, "leak", ["defence", "known"], attack=attack, method="ridge")
        for attack in ("paired", "clone")
    }
    known = max(chosen(frame, "leak", attack="insider")["known"], key=order)
    names = sorted(set(worth["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.3 * len(names) + 0.8, len(names), 2, sharey=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (attack, text) in zip(line, (("paired", known), ("clone", "all")), strict=True):
            for defence, (_, colour, marker) in DEFENCES.items():
                x = worth[(worth["dataset"] == dataset) & (worth["defence"] == defence)]
                y = told[attack]
                y = y[(y["dataset"] == dataset) & (y["defence"] == defence) & (y["known"] == text)]
                for across, up in zip(x.itertuples(), y.itertuples()):
                    panel.errorbar(across.mean, up.mean, xerr=half(across), yerr=ends(up), color=colour, marker=marker,
                                   elinewidth=1.2)
            panel.set_ylim(-0.04, 1.04)
        line[0].set_ylabel(LEAK)
        line[0].set_title(f"{dataset}: to {known} known rows")
        line[1].set_title("to a clone of the decoders")
    for panel in axes[-1]:
        panel.set_xlabel("resemblance (0–100, higher is better)")
    seen = [entry for name, entry in DEFENCES.items() if (worth["defence"] == name).any()]
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=text) for text, c, m in seen]
    handles.append(Line2D([], [], linestyle="none", label=runs(worth)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
