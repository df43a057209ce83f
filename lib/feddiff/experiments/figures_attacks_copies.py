"""Figure of releases that copy their training rows (notebook 46), a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs

RELEASES = {
    "copy": "exact copy", "copy_noised": "copy + N(0, 0.3²)", "copy_moved_half": "copy moved by 0.5 sd",
    "copy_moved_one": "copy moved by 1 sd", "fresh": "fresh rows, no copy",
}
# (metrics with name, colour and marker; axis label; what fresh rows give)
PANELS = (
    ((("closer_to_train", "nearer to training rows", "#56B4E9", "o"),),
     "share nearer to training\nthan to held-out rows", 0.5),
    ((("dcr_5_ratio", "distance ratio", "#56B4E9", "o"),), "5 % distance over that\nof fresh rows (≥ 1 passes)", 1.0),
    ((("distance_auc", "distance attack", "#0072B2", "v"), ("moved_back_auc", "moved back first", "#D55E00", "s")),
     "membership (AUC,\n0.5: cannot tell)", 0.5),
    ((("recovered", "training rows", "#009E73", "D"), ("recovered_holdout", "held-out rows", style.GREY, "X")),
     "share of rows recovered\nto 0.25 sd a column", None),
)


@style.styled
def releases(frame: pd.DataFrame) -> Figure:
    """Draw what the copy detector and the attacks say of each release, a line of panels for each source (F43)."""
    tables = {name: means(frame, name, ["release", "source"]) for metrics, *_ in PANELS for name, *_ in metrics}
    # The toy is the same whatever data set stands beside it.
    names = sorted(set(tables["recovered"]["dataset"]))
    real = names if (tables["recovered"]["source"] == "table").any() else []
    cases = [("toy", names[0]), *(("table", name) for name in real)]
    figure, axes = style.canvas(style.WIDTH, 1.75 * len(cases) + 0.7, len(cases), len(PANELS), sharey=True)
    places = {name: -index for index, name in enumerate(RELEASES)}
    for line, (source, dataset) in zip(axes, cases, strict=True):
        for panel, (metrics, label, passing) in zip(line, PANELS, strict=True):
            if passing is not None:
                panel.axvline(passing, color=style.GREY, dashes=(2, 2), linewidth=0.9)
            for index, (name, _, colour, marker) in enumerate(metrics):
                own = tables[name]
                own = own[(own["source"] == source) & (own["dataset"] == dataset)]
                for row in own.dropna(subset=["mean"]).itertuples():
                    up = places[row.release] - 0.2 * (index - (len(metrics) - 1) / 2)
                    panel.errorbar(row.mean, up, xerr=half(row), color=colour, marker=marker, elinewidth=1.4)
            panel.set_yticks(list(places.values()), list(RELEASES.values()))
            panel.set_ylim(-len(RELEASES) + 0.5, 0.5)
            if panel in axes[-1]:
                panel.set_xlabel(label)
        line[0].set_title("toy" if source == "toy" else f"{dataset}, its numbers")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=text)
               for metrics, *_ in PANELS[2:] for _, text, c, m in metrics]
    handles.append(Line2D([], [], color=style.GREY, dashes=(2, 2), linewidth=0.9, label="what fresh rows give"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
