"""Figures of SiloFuse's quality (notebook 30), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import means
from feddiff.experiments.figures_silofuse_parts import ACROSS, log_errors, points, seeds

# Label `method` -> what a reader sees, colour, marker: real rows black, SiloFuse blue, one party's latents light blue,
# joint training violet, other rivals orange and green, floors grey.
LOOKS = {
    "real": ("real rows (ceiling)", "#000000", "*"),
    "silofuse": ("SiloFuse", "#0072B2", "o"),
    "latent_diff": ("LatentDiff (one party), equal budget", "#56B4E9", "s"),
    "latent_diff_equal_reconstruction": ("LatentDiff, equal reconstruction", "#56B4E9", "D"),
    "tabsyn_like": ("variational LatentDiff (TabSyn-like)", "#56B4E9", "v"),
    "e2e": ("trained end to end", "#CC79A7", "P"),
    "tab_ddpm": ("TabDDPM-like", "#E69F00", "s"),
    "tab_ddpm_best": ("TabDDPM-like, best of three", "#E69F00", "D"),
    "gan_linear": ("GAN (linear)", "#009E73", "^"),
    "gan_conv": ("GAN (conv)", "#009E73", "v"),
    "independent_clients": ("independent silos", "#5F5F5F", "X"),
    "independent_marginals": ("independent columns", "#5F5F5F", "<"),
}
RIVALS = tuple(method for method in LOOKS if method not in ("real", "silofuse", "independent_marginals"))
# Metric -> (axis, what the paper's abstract says SiloFuse has over GANs, or None).
SCORES = {"resemblance": ("resemblance (0–100)", 43.8), "utility": ("utility, 90th percentile (0–100)", 29.8),
          "utility_median": ("utility, median column (0–100)", None)}
PARTS = ("column similarity", "correlation similarity", "Jensen-Shannon similarity", "KS similarity", "propensity")
LEGEND = dict(loc="outside lower center", ncols=3, columnspacing=1.0)


def _handles(methods, *tables: pd.DataFrame) -> list[Line2D]:
    handles = [Line2D([], [], linestyle="none", color=LOOKS[m][1], marker=LOOKS[m][2], label=LOOKS[m][0])
               for m in methods]
    return [*handles, Line2D([], [], linestyle="none", label=seeds(*tables))]


def _present(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return data sets and methods of a table, the latter in the order of LOOKS."""
    return sorted(set(table["dataset"])), [m for m in LOOKS if (table["method"] == m).any()]


def _stacked(rows: int, names: list[str], height: float = 1.75):
    """Return figure and panels one above the other, data sets side by side: as readable with eight as with two."""
    figure, axes = style.canvas(style.WIDTH, height * rows + 1.25, rows, 1, sharex=True)
    panels = axes[:, 0]
    for panel in panels:
        for place in range(1, len(names)):
            panel.axvline(place - 0.5, color=style.PALE, linewidth=0.6)
        panel.grid(axis="x", visible=False)
        panel.tick_params(axis="x", length=0)
        panel.set_xlim(-0.5, len(names) - 0.5)
    panels[-1].set_xticks(range(len(names)), names)
    return figure, panels


def _by_dataset(panel, table: pd.DataFrame, methods, names) -> None:
    for index, method in enumerate(methods):
        _, colour, marker = LOOKS[method]
        own = table[table["method"] == method]
        places = [names.index(name) + 0.8 * ((index + 0.5) / len(methods) - 0.5) for name in own["dataset"]]
        points(panel, own, places, colour=colour, marker=marker, markersize=4, elinewidth=0.8)


@style.styled
def scores(frame: pd.DataFrame) -> Figure:
    """Draw resemblance and utility of all methods by data set (S1-S3)."""
    tables = {metric: means(frame, metric, ["method"]) for metric in SCORES}
    names, methods = _present(tables["resemblance"])
    figure, panels = _stacked(len(SCORES), names)
    for panel, (metric, (title, _)) in zip(panels, SCORES.items(), strict=True):
        _by_dataset(panel, tables[metric], methods, names)
        panel.set_title(title)
        # No score lies outside of 0..100, whatever a t-interval over few seeds says.
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -2), min(high, 102))
    figure.legend(handles=_handles(methods, *tables.values()), **LEGEND)
    return figure


@style.styled
def differences(frame: pd.DataFrame) -> Figure:
    """Draw SiloFuse less each rival in points: every data set in a line of its own, their mean, the largest (S1-S3)."""
    panels = {metric: (title, claim) for metric, (title, claim) in SCORES.items() if claim is not None}
    frame = frame[frame["of"] == "silofuse"]
    tables = {metric: means(frame, f"{metric}_difference", ["minus"]) for metric in panels}
    found = tables["resemblance"]
    present = [method for method in RIVALS if (found["minus"] == method).any()]
    if not present:
        raise style.NothingToDraw("SiloFuse was set against no rival")
    looks = style.colours(found["dataset"])
    # Lines of a rival: the mean over data sets, then one a data set.
    lines = {name: 0.8 * ((line + 0.5) / (len(looks) + 1) - 0.5) for line, name in enumerate(["mean", *looks])}
    height = max(0.3, 0.075 * len(lines) + 0.06) * len(present) + 1.6
    figure, axes = style.canvas(style.WIDTH, height, 1, len(panels), sharey=True)
    for panel, (metric, (title, claim)) in zip(axes[0], panels.items(), strict=True):
        panel.axvline(0, color="black", linewidth=0.7)
        for place, method in enumerate(present):
            if place:
                panel.axhline(place - 0.5, color=style.PALE, linewidth=0.6)
            own = tables[metric][tables[metric]["minus"] == method]
            if own.empty:
                continue
            for name, (colour, marker) in looks.items():
                points(panel, own[own["dataset"] == name], [place + lines[name]] * (own["dataset"] == name).sum(),
                       sideways=True, colour=colour, marker=marker, markersize=3.5, elinewidth=0.7)
            panel.plot(own["mean"].mean(), place + lines["mean"], color="black", marker="D", markersize=4)
            largest = own.loc[own["mean"].idxmax()]
            panel.plot(largest["mean"], place + lines[largest["dataset"]], color="black", marker="o", markersize=8,
                       markerfacecolor="none", markeredgewidth=0.8)
        _claimed(panel, claim)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(f"points of {title.split(' (')[0]},\nSiloFuse less the rival (right is better)")
        panel.set_yticks(range(len(present)), [LOOKS[method][0] for method in present])
        panel.set_ylim(len(present) - 0.5, -0.5)
    handles = [Line2D([], [], linestyle="none", color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles += [
        Line2D([], [], linestyle="none", color="black", marker="D", markersize=4, label="mean of data sets"),
        Line2D([], [], linestyle="none", color="black", marker="o", markersize=8, markerfacecolor="none",
               markeredgewidth=0.8, label="largest"),
        Line2D([], [], linestyle="none", label=seeds(*tables.values())),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _claimed(panel, claim: float) -> None:
    """State the abstract's number above the panel; its line shows only where the data reach that far."""
    left, right = panel.get_xlim()
    panel.axvline(claim, color=style.GREY, linewidth=0.9, dashes=(4, 2))
    panel.set_xlim(left, right)
    beyond = " →" if claim > right else ""
    panel.set_title(f"abstract, over GANs: {claim}{beyond}", loc="right", fontweight="normal", color=style.GREY)


@style.styled
def associations(frame: pd.DataFrame) -> Figure:
    """Draw association errors inside and across silos: what the shared latents carry (S10)."""
    panels = {"association_within": "inside silos", "association_across": "across silos",
              ACROSS: "across silos, parts as long as the held-out rows"}
    tables = {name: means(frame, name, ["method"]) for name in panels}
    # Fewer rows are noisier: the held-out ones stand beside tables as short as they are, nowhere else.
    tables = {name: table if name == ACROSS else table[table["method"] != "real"] for name, table in tables.items()}
    names, methods = _present(tables[ACROSS])
    figure, axes = _stacked(len(panels), names)
    for panel, (metric, title) in zip(axes, panels.items(), strict=True):
        _by_dataset(panel, tables[metric], methods, names)
        log_errors(panel, tables[metric])
        panel.set_title(title)
    figure.supylabel("mean error of Cramér's V (log scale, lower is better)", fontsize=8)
    handles = _handles(methods, *tables.values())
    for handle in handles:
        if handle.get_label() == LOOKS["real"][0]:
            handle.set_label("real rows, held out: the noise level")
    figure.legend(handles=handles, **LEGEND)
    return figure


@style.styled
def readings(frame: pd.DataFrame) -> Figure:
    """Draw every reading of the five parts of resemblance on the same tables (S46)."""
    shown = ("identical", "real", "silofuse", "independent_marginals")
    default = means(frame, "resemblance_part", ["method", "part"])
    others = means(frame, "resemblance_reading", ["method", "part", "reading"])
    others = others[others["method"].isin(shown)]
    if others.empty:
        raise style.NothingToDraw("only default readings were recorded")
    lines = [(part, "") for part in PARTS]
    lines += [(part, reading) for part, reading in dict.fromkeys(zip(others["part"], others["reading"]))]
    lines.sort(key=lambda line: PARTS.index(line[0]))
    looks = {"identical": ("identical rows", "#000000", "|")} | {m: LOOKS[m] for m in shown[1:]}
    figure, axes = style.canvas(style.WIDTH, 0.2 * len(lines) + 1.1)
    panel = axes[0, 0]
    for method, (_, colour, marker) in looks.items():
        for place, (part, reading) in enumerate(lines):
            table = others[others["reading"] == reading] if reading else default
            own = table[(table["method"] == method) & (table["part"] == part)]["mean"].dropna()
            if len(own):
                panel.plot(own.mean(), place, color=colour, marker=marker, linestyle="none",
                           markersize=9 if marker == "|" else 5)
    panel.set_yticks(range(len(lines)), [part if not reading else reading for part, reading in lines])
    for label, (_, reading) in zip(panel.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if reading else "bold")
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.set_xlabel("score (0–100)")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, c, m in looks.values()]
    handles.append(Line2D([], [], linestyle="none", label="mean of data sets; bold: read so here"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def alarm(frame: pd.DataFrame) -> Figure:
    """Draw how well autoencoders give columns back: the mean and the worst column of every method."""
    tables = {name: means(frame, name, ["method"]) for name in ("reconstruction_mean", "reconstruction_worst")}
    found = tables["reconstruction_mean"]
    if found.empty:
        raise style.NothingToDraw("no reconstruction was recorded")
    names, methods = _present(found)
    figure, panels = _stacked(len(tables), names)
    for panel, (table, title) in zip(panels, zip(tables.values(), ("mean column", "worst column")), strict=True):
        _by_dataset(panel, table, methods, names)
        panel.axhline(0.9, color=style.GREY, linewidth=0.8, dashes=(2, 2))
        panel.set_ylim(top=min(panel.get_ylim()[1], 1.02))
        panel.set_title(title)
    figure.supylabel("reconstruction (accuracy, R²; 1 is perfect)", fontsize=8)
    handles = _handles(methods, *tables.values())
    handles.append(Line2D([], [], color=style.GREY, linewidth=0.8, dashes=(2, 2), label="below it a warning is raised"))
    figure.legend(handles=handles, **LEGEND)
    return figure
