"""Figures and table of the anonymity games (notebook 42), each a function of a long records frame."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from feddiff.experiments import style, tables
from feddiff.experiments.figures_pfdm import chosen, ends, means, runs

RELEASES = {
    "copy": "exact copy", "copy_noised": "copy, noise 0.1 sd", "copy_moved": "copy, moved by 1 sd",
    "permuted": "columns permuted", "fresh": "fresh real rows", "ours_inf": "FinDiff, no DP",
    "twin": "FinDiff, no DP, twin", "ours_1": "FinDiff, ε = 1",
    "public_1": "FinDiff, ε = 1, public codec", "strongest_1": "private tree, ε = 1",
    "silofuse": "SiloFuse",
}
GAMES = {
    "singling-out-univariate": "singling out, 1 column", "singling-out-multivariate": "singling out, 3 columns",
    "linkability": "linkability, halves", "attribute-inference": "attribute inference",
    "linkability-silos": "linkability, silo 0 | rest",
    "attribute-inference-silos": "silo 0 infers the rest",
}
# Column of the matrix -> (metric, its labels, what a reader sees, value without a leak, value of a full leak, `passes`)
COLUMNS = (
    ("closer_to_train", {}, "copy detector (share)", 0.5, 1.0, "dcr"),
    ("membership_auc", {"attack": "domias"}, "DOMIAS (AUC)", 0.5, 1.0, "domias"),
    ("membership_auc", {"attack": "moved_back"}, "moved back (AUC)", 0.5, 1.0, "moved_back"),
    *(("risk", {"game": game}, words, 0.0, 1.0, game) for game, words in (
        ("singling-out-univariate", "singling out, 1 column"), ("singling-out-multivariate", "singling out, 3 columns"),
        ("linkability", "linkability"), ("attribute-inference", "inference"),
        ("attribute-inference-silos", "inference by silo 0"),
    )),
)


@style.styled
def risks(frame: pd.DataFrame) -> Figure:
    """Draw the risk of every release in every game with its interval (F1, F25, S12, S22, S25)."""
    found, weak = means(frame, "risk", ["release", "game"]), means(frame, "too_weak", ["release", "game"])
    inner, outer = (means(frame, f"risk_{end}", ["release", "game"])["mean"] for end in ("low", "high"))
    joined = found.assign(weak=weak["mean"], inner=inner, outer=outer)
    names, places = sorted(set(found["dataset"])), _places(found)
    looks = style.colours(names)
    tall = max(0.21, 0.1 + 0.08 * len(names))
    figure, axes = style.canvas(style.WIDTH, 2 * tall * len(places) + 1.6, 2, 3, sharex=True, sharey=True)
    for panel, (game, title) in zip(axes.flat, GAMES.items(), strict=True):
        for index, name in enumerate(names):
            colour, marker = looks[name]
            own = joined[(joined["dataset"] == name) & (joined["game"] == game)]
            for row in own.itertuples():
                up = places[row.release] - 0.6 * (index - (len(names) - 1) / 2) / len(names)
                one = math.isnan(row.half_width)
                bar = [[row.mean - row.inner], [row.outer - row.mean]] if one else ends(row)
                panel.errorbar(row.mean, up, xerr=bar, color=colour, marker=marker, markersize=3.6, elinewidth=1.1,
                               markerfacecolor="white" if row.weak > 0 else colour)
        for place in list(places.values())[1::2]:
            panel.axhspan(place - 0.5, place + 0.5, color="#F4F4F4", zorder=0, linewidth=0)
        panel.axvline(0, color=style.GREY, dashes=(2, 2), linewidth=0.9)
        panel.set_title(title)
        panel.set_yticks(list(places.values()), [RELEASES.get(name, name) for name in places])
        panel.set_ylim(-len(places) + 0.4, 0.6)
        # Most risks are a few thousandths: linear up to .01, logarithmic above.
        panel.set_xscale("symlog", linthresh=0.01, linscale=0.7)
        panel.set_xlim(-0.0015, 1.3)
        panel.set_xticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
        panel.xaxis.set_minor_locator(NullLocator())
    for panel in axes[-1]:
        panel.set_xlabel("risk (0: no gain over control),\nlog scale from 0.01 on")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", linestyle="none",
                          label="hollow: in some run no better than blind"))
    words = runs(found)
    handles.append(Line2D([], [], linestyle="none", label="bars: 95 % interval of the attacks of one run"
                          if words.startswith("one run") else words))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def metrics(frame: pd.DataFrame) -> Figure:
    """Draw what every metric says of every release, darker for more leak, failures framed (S26)."""
    found = scores(frame)[0]
    names, places = sorted(set(found["dataset"])), _places(found)
    lines = math.ceil(len(names) / 2)
    wide = min(2, len(names))
    figure, axes = style.canvas(style.WIDTH, lines * (0.2 * len(places) + 1.25) + 0.3, lines, wide, sharey=True,
                                sharex=True)
    for panel, name in zip(axes.flat, names):
        for row in found[found["dataset"] == name].itertuples():
            column = next(i for i, entry in enumerate(COLUMNS) if entry[2] == row.metric)
            _, _, _, none, full, _ = COLUMNS[column]
            leak = min(max((row.mean - none) / (full - none), 0.0), 1.0)
            low = places[row.release] - 0.5
            panel.add_patch(Rectangle((column - 0.5, low), 1, 1, facecolor=_shade(leak), edgecolor="white"))
            panel.text(column, places[row.release], f"{row.mean:.2f}", ha="center", va="center", fontsize=6,
                       color="white" if leak > 0.6 else "black", weight="bold" if row.passes < 1 else "normal")
            if row.passes < 1:
                panel.add_patch(Rectangle((column - 0.42, low + 0.08), 0.84, 0.84, fill=False,
                                          edgecolor=style.PALETTE[1], linewidth=1.1))
        panel.set_title(f"{name}: {_agreement(frame, name)}", fontsize=7.5)
        panel.grid(False)
        panel.set_xlim(-0.5, len(COLUMNS) - 0.5)
        panel.set_ylim(-len(places) + 0.5, 0.5)
        panel.set_yticks(list(places.values()), [RELEASES.get(release, release) for release in places])
        panel.set_xticks(range(len(COLUMNS)), [entry[2] for entry in COLUMNS], fontsize=6, rotation=45, ha="right",
                         rotation_mode="anchor")
        panel.tick_params(length=0, labelbottom=True)
        panel.spines[["left", "bottom"]].set_visible(False)
    for panel in axes.flat[len(names):]:
        panel.set_visible(False)
    figure.legend(handles=[Line2D([], [], color=style.PALETTE[1], marker="s", markerfacecolor="none", linestyle="none",
                                  label="framed: fails in some run; darker: more leak; "
                                  "τ: mean agreement of ranks of the metrics")],
                  loc="outside lower center")
    return figure


def scores(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (long, wide): every metric of COLUMNS for every release, and whether the release passes it.

    Long: dataset, release, metric, n, mean, half_width, passes (share of the runs). Wide: a row a release; "fails"
    behind a value where a run failed.
    """
    parts = []
    for name, labels, words, *_, test in COLUMNS:
        values = means(frame, name, ["release"], **labels)
        passed = means(frame, "passes", ["release"], test=test).set_index(["dataset", "release"])["mean"]
        own = values[["dataset", "release", "n", "mean", "half_width"]].assign(metric=words)
        parts.append(own.assign(passes=[passed[row.dataset, row.release] for row in own.itertuples()]))
    full = pd.concat(parts, ignore_index=True)
    orders = {"release": list(RELEASES), "metric": [entry[2] for entry in COLUMNS]}
    places = sorted(range(len(full)), key=lambda place: (
        full["dataset"].iat[place], *(order.index(full[name].iat[place]) for name, order in orders.items())
    ))
    full = full.iloc[places].reset_index(drop=True)
    rows = []
    for (dataset, release), group in full.groupby(["dataset", "release"], sort=False):
        cells = {
            row["metric"]: tables.cell(row) + (" fails" if row["passes"] < 1 else "")
            for row in group.to_dict("records")
        }
        rows.append({"dataset": dataset, "release": RELEASES.get(release, release)} | cells)
    return full, pd.DataFrame(rows)


def _agreement(frame: pd.DataFrame, dataset: str) -> str:
    taken = chosen(frame, "rank_agreement_mean", releases="all")
    taken = taken[taken["dataset"] == dataset]["value"]
    count = chosen(frame, "attack_risk")
    count = count[count["dataset"] == dataset]["release"].nunique()
    return f"τ {taken.mean():.2f}, {count} releases"


def _places(found: pd.DataFrame) -> dict[str, int]:
    known = [name for name in RELEASES if name in set(found["release"])]
    return {name: -place for place, name in enumerate([*known, *sorted(set(found["release"]) - set(known))])}


def _shade(leak: float) -> tuple[float, float, float]:
    """Return white for no leak and the house's blue for a full one."""
    blue = [int(style.PALETTE[0][place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return tuple(1 - leak * (1 - part) for part in blue)
