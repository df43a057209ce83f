"""Figure of the three systems on one scale (notebook 49), a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import ends, epsilon, half, means, runs
from feddiff.experiments.frames import order

# Label `system` -> what a reader sees, colour, how a setting is named, the one without any noise.
SYSTEMS = {
    "findiff": ("DP-Fed-FinDiff", "#0072B2", "budget ε = {}", "without DP"),
    "silofuse": ("SiloFuse", "#009E73", "latents at ε = {}", "latents as they are"),
    "pfdm": ("PFDM", "#D55E00", "$t_0$ = {}", ""),
}
# Label `view` -> what a reader sees, filled or not.
VIEWS = {"server": ("what the server holds", True), "release": ("synthetic rows alone", False)}
PANELS = (
    ("epsilon_lower", "lower bound on ε, 95 %\n(one person replaced)"),
    ("tpr_at_1_percent", "members found at 1 %\nfalse positives (log scale)"),
    ("anonymity_risk", "persons named or linked,\nless control (0–1)"),
)
BY = ["system", "choice", "view"]
_FLOOR = 2e-3


@style.styled
def scale(frame: pd.DataFrame) -> Figure:
    """Draw utility against each measure of leakage of a person: systems, settings and views (headline)."""
    shares, looks = means(frame, "utility_share", BY[:2]), _looks(frame)
    names = sorted(set(shares["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.2 * len(names) + 1.3, len(names), 3, sharex=True)
    for line, dataset in zip(axes, names, strict=True):
        at = {(row.system, row.choice): row for row in shares[shares["dataset"] == dataset].itertuples()}
        most = means(frame, "epsilon_ceiling", BY, dataset=dataset)["mean"].max()
        for panel, (metric, title) in zip(line, PANELS, strict=True):
            found = means(frame, metric, BY, dataset=dataset)
            limits = dict(low=_drawn(0.0, metric), high=most if metric == "epsilon_lower" else 1.0)
            for system, (_, colour, _, _) in SYSTEMS.items():
                own = found[(found["system"] == system) & (found["view"] == "server")].set_index("choice")["mean"]
                ladder = [place for place in looks if place[0] == system and place[1] in own]
                panel.plot([at[place].mean for place in ladder], [_drawn(own[place[1]], metric) for place in ladder],
                           color=colour, linewidth=0.6)
            for (system, choice), (colour, marker) in looks.items():
                for row in found[(found["system"] == system) & (found["choice"] == choice)].itertuples():
                    where, filled = at[system, choice], VIEWS[row.view][1]
                    panel.errorbar(where.mean, _drawn(row.mean, metric), xerr=half(where), yerr=ends(row, **limits),
                                   color=colour, marker=marker, mfc=colour if filled else "white", linestyle="none",
                                   zorder=3 if filled else 2, clip_on=False)
            panel.axvline(means(frame, "matched_target", [], dataset=dataset)["mean"].iloc[0], color=style.GREY,
                          linewidth=0.7, dashes=(1, 2))
            panel.set_ylabel(title)
            panel.set_xlim(0, 1.05)
            if dataset == names[-1]:
                panel.set_xlabel("utility, share of real rows'")
        line[0].axhline(most, color=style.GREY, linewidth=0.9, dashes=(3, 2))
        line[0].annotate("most that the coins can show", (0.02, most), (0, 4), textcoords="offset points",
                         fontsize=6, color=style.GREY)
        line[0].set_ylim(-0.03 * most, 1.17 * most)
        swapped = means(frame, "tpr_swapped", BY, dataset=dataset)["mean"]
        line[1].axhspan(swapped.min(), swapped.max(), color=style.PALE, alpha=0.6, linewidth=0, zorder=0)
        line[1].annotate("band: slots swapped at random", (0.02, _FLOOR), (0, 3), textcoords="offset points",
                         fontsize=6, color=style.GREY)
        line[1].set(yscale="log", ylim=(_FLOOR, 1.1))
        line[2].set_ylim(-0.02, 1.02)
        line[0].set_title(dataset)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=_named(frame, *place))
               for place, (c, m) in looks.items()]
    handles += [Line2D([], [], color="black", marker="o", mfc="black" if filled else "white", linestyle="none",
                       label=text) for text, filled in VIEWS.values()]
    handles += [Line2D([], [], color=style.GREY, linewidth=0.7, dashes=(1, 2), label="matched utility"),
                Line2D([], [], linestyle="none", label=runs(shares))]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0,
                  title="setting: ε that is stated for what the server holds, one person replaced")
    return figure


def _drawn(value: float, metric: str) -> float:
    return max(value, _FLOOR) if metric == "tpr_at_1_percent" else value


def _looks(frame: pd.DataFrame) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (system, choice) -> (colour, marker), systems in their order, the least private setting first."""
    found = means(frame, "utility_share", BY[:2])
    looks = {}
    for system, (_, colour, _, _) in SYSTEMS.items():
        choices = sorted(set(found[found["system"] == system]["choice"]), key=order, reverse=system != "pfdm")
        looks |= {(system, choice): (colour, style.MARKERS[place]) for place, choice in enumerate(choices)}
    return looks


def _named(frame: pd.DataFrame, system: str, choice: str) -> str:
    name, _, setting, plain = SYSTEMS[system]
    told = frame[(frame["name"] == "epsilon_stated") & (frame["system"] == system) & (frame["choice"] == choice)
                 & (frame["view"] == "server")]["value"].dropna()
    words = plain if choice == "inf" else setting.format(choice)
    return f"{name}, {words}: {epsilon(told.max()) if len(told) else '∞'}"
