"""Figure of the input-space canaries (notebook 47), a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs

# Labels (bound, coins) of canary_epsilon_lower -> what a reader sees, colour, marker.
LOOKS = {
    ("one_run", "fair"): ("one run", "#0072B2", "o"),
    ("one_run_fdp", "fair"): ("one run, Gaussian trade-off", "#D55E00", "D"),
    ("one_run", "permuted"): ("one run, coins permuted", "#56B4E9", "s"),
    ("one_run_fdp", "permuted"): ("Gaussian trade-off, coins permuted", "#E69F00", "v"),
}


@style.styled
def canaries(frame: pd.DataFrame) -> Figure:
    """Draw what one training proves about its epsilon beside the accounted one, and the AUC of the canaries.

    Metrics canary_epsilon_lower with the labels `epsilon` (the budget), `bound` and `coins`; canary_epsilon and
    canary_auc with `epsilon`. A bound of 0 lies on the axis.
    """
    found = means(frame, "canary_epsilon_lower", ["epsilon", "bound", "coins"])
    spent, area = (means(frame, name, ["epsilon"]) for name in ("canary_epsilon", "canary_auc"))
    places = {text: place for place, text in enumerate(sorted(set(found["epsilon"]), key=float))}
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, 2)
    proved, power = axes[0]
    for index, (place, (_, colour, marker)) in enumerate(LOOKS.items()):
        for row in found[(found["bound"] == place[0]) & (found["coins"] == place[1])].itertuples():
            where = places[row.epsilon] + 0.17 * (index - 1.5)
            proved.errorbar(where, row.mean, yerr=half(row), color=colour, marker=marker, clip_on=False)
    for row in spent.itertuples():
        proved.hlines(row.mean, places[row.epsilon] - 0.4, places[row.epsilon] + 0.4, color="black", linewidth=1.4)
    proved.set_yscale("symlog", linthresh=1.0)
    proved.set_ylim(bottom=0)
    proved.set_ylabel("ε at δ (below 1 linear)")
    proved.set_title("what one training proves")
    for row in area.itertuples():
        power.errorbar(places[row.epsilon], row.mean, yerr=half(row), color="black", marker="o")
    power.axhline(0.5, color=style.GREY, dashes=(2, 2), linewidth=0.9)
    power.set_ylim(min(0.4, power.get_ylim()[0]), 1.02)
    power.set_ylabel("AUC of the canaries\n(0.5: cannot tell)")
    power.set_title("what the scores tell")
    for panel in (proved, power):
        panel.set_xticks(list(places.values()), [style.epsilon_name(text) for text in places])
        panel.set_xlim(-0.5, len(places) - 0.5)
        panel.set_xlabel("privacy budget ε of a record")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=text) for text, c, m in LOOKS.values()]
    handles.append(Line2D([], [], color="black", linewidth=1.4, label="accounted ε"))
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
