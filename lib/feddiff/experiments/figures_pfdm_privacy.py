"""Figures of what PFDM's privacy costs and buys (notebook 21) and of its theory (27).

Each is a function of a long records frame.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import chosen, epsilon, half, log_axis, means, runs
from feddiff.experiments.frames import order

# Unit of `pfdm_privacy_study.RADII` -> colour.
UNITS = {
    "one value": "#56B4E9", "RGB pixel": "#0072B2", "picture, C = 10": "#009E73", "28 x 28 picture": "#E69F00",
    "32 x 32 RGB picture": "#D55E00",
}
# What the papers quote (claims P14-P17): t0, unit, epsilon.
QUOTED = ((100, "one value", 45.0), (400, "one value", 5.2), (400, "picture, C = 10", 95.0),
          (690, "picture, C = 10", 10.0))
# Where one and the same local model begins (label `start`) -> what a reader sees, colour, marker.
STARTS = {
    "global": ("PFDM: samples of the global model", "#0072B2", "o"),
    "uploads": ("the uploads themselves, no global model", "#009E73", "^"),
    "noise": ("noise: no server at all", "#CC79A7", "v"),
}
ALONE = {"local": ("local", "#D55E00", (4, 2)), "local_balanced": ("local, balanced batches", "#E69F00", (1, 1.2))}
GROUPS = {"minority": "classes with few pictures", "majority": "classes with many pictures"}
QUALITY = (("frechet", "Fréchet distance (lower is better)"), ("label_accuracy", "label accuracy (higher is better)"))
AUDITS = {"fit": ("audit: distance of the means", "#0072B2", "o"),
          "gaussian": ("audit: errors, Gaussian trade-off", "#56B4E9", "s"),
          "counting": ("audit: errors, no assumption", "#CC79A7", "^")}
# Label `variant` -> what is changed in the cell that it is compared with.
VARIANTS = {
    "main": "as it is", "small_network": "smaller network", "no_flag": "no clipped pictures in local training",
    "undertrained": "a sixth of the local training", "tight": "t0 by the exact ε = 10",
    "non_negative": "[0, 1], diameter √2 C, ε = 10", "equal_epsilon": "small t0 and C at the ε of t0 = 690",
    "latent": "in a latent space",
}

# Method of `pfdm_theory.trial` -> what a reader sees, colour, marker, dashes; "bound": Theorem 5.2.
ERRORS = {
    "pfdm": ("PFDM", "#0072B2", "o", (1, 0)),
    "no_server": ("the same local model from N(0, I): no server", "#CC79A7", "v", (1, 0)),
    "pooled": ("all clean pictures pooled", "#5F5F5F", "", (1, 1.3)),
    "bound": ("Theorem 5.2, its constant taken from training alone", "#000000", "", (4, 2)),
}
LAWS = {"unit": "unit variance", "pictures": "digits, clipped"}


def cells(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Return the cells of the sweep of a data set, columns t0, C, variant, epsilon (of a picture), largest first."""
    found = means(frame, "epsilon_image", ["variant", "t0", "C"], dataset=dataset)
    found = found[["variant", "t0", "C", "mean"]].rename(columns={"mean": "epsilon"})
    return found.sort_values("epsilon", ascending=False, kind="stable").reset_index(drop=True)


def cell_name(t0: str, C: str) -> str:
    """Return what a reader sees of a cell."""
    return f"$t_0$={t0}" + (f", C={C}" if C != "none" else "")


@style.styled
def bounds(frame: pd.DataFrame) -> Figure:
    """Draw epsilon of one upload against t0 for several units, by Theorem 5.1 and exactly, with the papers' numbers."""
    found = chosen(frame, "epsilon_bound")
    found = found.drop_duplicates(["t0", "unit", "bound"]).assign(t0=lambda part: part["t0"].astype(int))
    figure, axes = style.canvas(0.75 * style.WIDTH, 3.4)
    panel = axes[0, 0]
    for unit, colour in UNITS.items():
        for bound, dashes, width in (("analytic", (1, 0), 1.6), ("theorem", (3, 2), 1.0)):
            own = found[(found["unit"] == unit) & (found["bound"] == bound)].sort_values("t0")
            panel.plot(own["t0"], own["value"], color=colour, dashes=dashes, linewidth=width)
    for t0, unit, value in QUOTED:
        panel.plot(t0, value, color=UNITS[unit], marker="o", markersize=7, markeredgecolor="black", zorder=4)
        panel.annotate(f"{value:g}", (t0, value), (6, 5), textcoords="offset points", fontsize=7.5)
    panel.axhline(10, color=style.GREY, linewidth=0.7, dashes=(1, 2))
    panel.set(yscale="log", xlabel="step $t_0$ to which a picture is noised", ylabel="ε of one upload (log scale)")
    handles = [Line2D([], [], color=colour, label=unit.replace(" x ", " × ")) for unit, colour in UNITS.items()]
    handles += [Line2D([], [], color="black", label="exact"),
                Line2D([], [], color="black", dashes=(3, 2), linewidth=1.0, label="Theorem 5.1"),
                Line2D([], [], linestyle="none", marker="o", markersize=7, color="white", markeredgecolor="black",
                       label="quoted in the papers")]
    figure.legend(handles=handles, loc="outside right center", title="what may change", alignment="left")
    return figure


@style.styled
def audit(frame: pd.DataFrame) -> Figure:
    """Draw what audits of real uploads prove beside the exact epsilon and the theorem's, a place a cell."""
    by = ["t0", "C"]
    exact, stated = means(frame, "epsilon_exact", by), means(frame, "epsilon_stated", by)
    proved = means(frame, "epsilon_lower", [*by, "bound"])
    exact = exact.sort_values("mean", ascending=False, kind="stable")
    places = {key: place for place, key in enumerate(dict.fromkeys(zip(exact["t0"], exact["C"])))}
    figure, axes = style.canvas(style.WIDTH * 0.75, 2.9)
    panel = axes[0, 0]
    for table, dashes in ((exact, (1, 0)), (stated, (2, 1.5))):
        for row in table.itertuples():
            place = places[row.t0, row.C]
            panel.plot([place - 0.3, place + 0.3], [row.mean] * 2, color="black", linewidth=1.4, dashes=dashes)
    for index, (bound, (_, colour, marker)) in enumerate(AUDITS.items()):
        for row in proved[proved["bound"] == bound].itertuples():
            place = places[row.t0, row.C] + 0.14 * (index - 1)
            panel.errorbar(place, row.mean, yerr=half(row), color=colour, marker=marker, linestyle="none")
    panel.set_yscale("log")
    panel.set_xticks(range(len(places)), [cell_name(*key) for key in places])
    panel.set_xlim(-0.5, len(places) - 0.5)
    panel.set_ylabel("ε of one upload (log scale)")
    handles = [Line2D([], [], color="black", label="exact"),
               Line2D([], [], color="black", dashes=(2, 1.5), label="Theorem 5.1")]
    handles += [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, c, m in AUDITS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(proved)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.styled
def frontier(frame: pd.DataFrame) -> Figure:
    """Draw quality against the epsilon of a picture: PFDM, the same local models without server, training alone."""
    names = sorted(set(chosen(frame, "epsilon_image")["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 4.4 * len(names) + 0.6, 2 * len(names), 2, sharex="row")
    drawn = []
    for number, dataset in enumerate(names):
        spent = cells(frame, dataset).query("variant == 'main'")
        at = {(row.t0, row.C): row.epsilon for row in spent.itertuples()}
        for line, group in zip(axes[2 * number : 2 * number + 2], GROUPS, strict=True):
            for panel, (metric, title) in zip(line, QUALITY, strict=True):
                where = dict(dataset=dataset, client="all", group=group)
                found = means(frame, metric, ["method", "variant", "start", "t0", "C"], **where)
                drawn.append(found)
                _lines_of_starts(panel, found[found["variant"] == "main"], at)
                for method, (_, colour, dashes) in ALONE.items():
                    for row in found[(found["method"] == method)].itertuples():
                        panel.axhline(row.mean, color=colour, dashes=dashes, linewidth=1.1)
                panel.set_xscale("log")
                panel.set_ylabel(GROUPS[group])
                panel.axvline(10, color=style.GREY, linewidth=0.7, dashes=(1, 2))
                if metric == "frechet":
                    log_axis(panel, "y")
                if group == "majority":
                    panel.set_xlabel("ε of a picture, exact (log scale)")
                else:
                    panel.set_title(f"{dataset}: {title}")
                    _name_cells(panel, at)
    handles = _starts(pd.concat(drawn))
    handles += [Line2D([], [], color=c, dashes=d, label=name) for name, c, d in ALONE.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*drawn)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _starts(found: pd.DataFrame) -> list[Line2D]:
    present = [start for start in STARTS if (found["start"] == start).any()]
    return [Line2D([], [], color=STARTS[start][1], marker=STARTS[start][2], label=f"from {STARTS[start][0]}")
            for start in present]


def _lines_of_starts(panel, found: pd.DataFrame, at: dict) -> None:
    for start, (_, colour, marker) in STARTS.items():
        own = found[(found["start"] == start)]
        own = own.assign(x=[at[row.t0, row.C] for row in own.itertuples()]).sort_values("x")
        if len(own):
            panel.errorbar(own["x"], own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                           marker=marker)


def _name_cells(panel, at: dict) -> None:
    top = panel.secondary_xaxis("top")
    top.set_xticks(list(at.values()), [cell_name(*key).replace(", ", "\n") for key in at], fontsize=6.5)
    top.tick_params(which="both", length=2)
    top.minorticks_off()
    top.spines["top"].set_visible(False)
    panel.title.set_position((0, 1.25))


@style.styled
def gains(frame: pd.DataFrame) -> Figure:
    """Draw PFDM's gain on rare classes against epsilon: over training alone, and over its own local model alone."""
    minuses = {"local": ("over training alone", "#D55E00", "o"),
               "local_balanced": ("over training alone in balanced batches", "#E69F00", "s"),
               "no_server": ("over its own local model started from noise: the server's part", "#0072B2", "D")}
    names = sorted(set(chosen(frame, "frechet_difference")["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.4 * len(names) + 0.6, len(names), 2)
    drawn = []
    for line, dataset in zip(axes, names, strict=True):
        spent = cells(frame, dataset).query("variant == 'main'").reset_index(drop=True)
        places = {(row.t0, row.C): row.Index for row in spent.itertuples()}
        for panel, (metric, sign, title) in zip(
            line, (("frechet", -1, "less Fréchet distance"), ("label_accuracy", 1, "more label accuracy")), strict=True
        ):
            where = dict(dataset=dataset, group="minority", start="global", variant="main")
            found = means(frame, f"{metric}_difference", ["minus", "t0", "C"], **where)
            drawn.append(found)
            panel.axhline(0, color="black", linewidth=0.7)
            for index, (minus, (_, colour, marker)) in enumerate(minuses.items()):
                for row in found[found["minus"] == minus].itertuples():
                    place = places[row.t0, row.C] + 0.16 * (index - 1)
                    panel.errorbar(place, sign * row.mean, yerr=half(row), color=colour, marker=marker)
            panel.set_xticks(range(len(spent)), [
                f"{cell_name(row.t0, row.C)}\nε {epsilon(row.epsilon)}".replace(", ", "\n")
                for row in spent.itertuples()
            ])
            panel.set_xlim(-0.5, len(spent) - 0.5)
            panel.set_ylabel(f"{title}\n(above 0: a gain)")
            panel.set_title(f"{dataset}, classes with few pictures")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, c, m in minuses.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*drawn)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.styled
def variants(frame: pd.DataFrame) -> Figure:
    """Draw the rare classes' Fréchet distance of each variant beside the cell that it changes (P28, P29, P50, P54)."""
    where = dict(client="all", group="minority", method="pfdm")
    found = means(frame, "frechet", ["variant", "start", "t0", "C"], **where)
    if set(found["variant"]) <= {"main"}:
        raise style.NothingToDraw("the records hold no variant of a cell (they are no part of quick)")
    names = sorted(set(found["dataset"]))
    spent = pd.concat([cells(frame, dataset).assign(dataset=dataset) for dataset in names])
    rows = spent.drop_duplicates(["variant", "t0", "C"]).sort_values(
        ["t0", "C", "variant"], key=lambda part: part.map(order if part.name != "variant" else list(VARIANTS).index)
    ).reset_index(drop=True)
    figure, axes = style.canvas(style.WIDTH, 0.24 * len(rows) + 1.1, 1, len(names), sharey=True)
    for panel, dataset in zip(axes[0], names, strict=True):
        for place, row in rows.iterrows():
            own = found[(found["dataset"] == dataset) & (found[["variant", "t0", "C"]] == row[["variant", "t0", "C"]])
                        .all(axis=1)]
            for point in own.itertuples():
                _, colour, marker = STARTS[point.start]
                panel.errorbar(point.mean, place, xerr=half(point), color=colour, marker=marker, linestyle="none")
        log_axis(panel)
        panel.set(xlabel="Fréchet distance, classes with few pictures\n(log scale, lower is better)")
        panel.set_title(dataset)
    labels = [f"{cell_name(row.t0, row.C)} (ε {epsilon(row.epsilon)}): {VARIANTS[row.variant]}"
              for row in rows.itertuples()]
    axes[0, 0].set_yticks(range(len(rows)), labels)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    handles = _starts(found)
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure



@style.styled
def theory(frame: pd.DataFrame) -> Figure:
    """Draw what PFDM leaves of the error of training alone against t0, beside Theorem 5.2, a panel a law (P18)."""
    found = means(frame, "error_left", ["law", "dimension", "pictures", "method", "t0"], sampler="ancestral")
    panels = _settings(found)
    rows = -(-len(panels) // 3)
    figure, axes = style.canvas(style.WIDTH, 2.2 * rows + 0.9, rows, min(3, len(panels)), sharex=True, sharey=True)
    for panel, (law, d, n) in zip(axes.flat, panels):
        own = found[(found["law"] == law) & (found["dimension"] == d) & (found["pictures"] == n)]
        for method, (_, colour, marker, dashes) in ERRORS.items():
            part = own[own["method"] == method].assign(t0=lambda rows: rows["t0"].astype(int)).sort_values("t0")
            panel.errorbar(part["t0"], part["mean"], yerr=[half(row) for row in part.itertuples()], color=colour,
                           marker=marker, dashes=dashes, markersize=3.5)
        panel.axhline(1, color="black", linewidth=0.7)
        panel.set_title(f"{LAWS[law]}\nd = {d}, n = {n}")
        panel.set_yscale("log")
        panel.set_ylim(0.004, 30)
    columns = axes.shape[1]
    for place, panel in enumerate(axes.flat):
        panel.set_visible(place < len(panels))
        if place < len(panels) <= place + columns:
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("step $t_0$")
    for line in axes:
        line[0].set_ylabel("$W_2^2$ to the truth, over that\nof training alone (log scale)")
    handles = [Line2D([], [], color=c, marker=m, dashes=d, markersize=3.5, label=name)
               for name, c, m, d in ERRORS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _settings(found: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return (law, dimension, pictures) in order: unit variance first, then by size."""
    names = set(zip(found["law"], found["dimension"], found["pictures"], strict=True))
    return sorted(names, key=lambda key: (key[0] != "unit", *map(order, key[1:])))


@style.styled
def theory_gain(frame: pd.DataFrame) -> Figure:
    """Draw the share of the local error that PFDM saves against t0 and epsilon, beside Theorem 5.2's rate (P18)."""
    found = means(frame, "gain_share", ["law", "dimension", "pictures", "t0"], sampler="ancestral")
    promised = means(frame, "gain_promised", ["t0"])
    spent = means(frame, "epsilon_image", ["t0"])
    series = _settings(found)
    figure, axes = style.canvas(0.75 * style.WIDTH, 4.0)
    panel = axes[0, 0]
    for (law, d, n), colour, marker in zip(series, style.PALETTE * 2, style.MARKERS * 2):
        own = found[(found["law"] == law) & (found["dimension"] == d) & (found["pictures"] == n)]
        own = own[own["mean"] > 0].assign(t0=lambda rows: rows["t0"].astype(int)).sort_values("t0")
        panel.errorbar(own["t0"], own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                       marker=marker, label=f"{LAWS[law]}, d = {d}, n = {n}")
    promised = promised.assign(t0=promised["t0"].astype(int)).sort_values("t0")
    panel.plot(promised["t0"], promised["mean"], color="black", dashes=(4, 2),
               label="Theorem 5.2, Eq. 9: (s + 1) / (2s + 1)²")
    panel.set(yscale="log", xlabel="step $t_0$")
    panel.set_ylabel("share of the error of training alone\nthat PFDM saves (log scale)")
    panel.set_ylim(3e-4, 1.5)
    top = panel.secondary_xaxis("top")
    spent = spent[spent["t0"].astype(int) >= 100]
    top.set_xticks(spent["t0"].astype(int), [epsilon(value) for value in spent["mean"]], fontsize=7)
    top.set_xlabel("ε of a picture at C = 10, exact")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
