"""Figures of stacked and joint training of SiloFuse (notebook 33), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.figures_silofuse_parts import ACROSS, WITHIN

# Label `method` -> what a reader sees, colour, marker; the order from top to bottom.
LOOKS = {
    "real": ("real rows", "#000000", "*"),
    "silofuse": ("SiloFuse, one round", "#0072B2", "o"),
    "alternated_1": ("1 extra round", "#56B4E9", "s"),
    "alternated_3": ("3 extra rounds", "#56B4E9", "D"),
    "e2e": ("end to end", "#D55E00", "s"),
    "e2e_distributed": ("end to end, split over parties", "#D55E00", "D"),
    "latent_diff": ("LatentDiff: one party", "#009E73", "^"),
    "independent_clients": ("independent silos", "#CC79A7", "X"),
    "shuffled_silos": ("real silos, shuffled", "#5F5F5F", "P"),
}
STAGES = {
    "real": ("real rows, held out", "#000000"),
    "autoencoders_only": ("autoencoders alone:\nreal latents decoded", "#56B4E9"),
    "perfect_autoencoder": ("diffusion model alone:\non the data itself", "#E69F00"),
    "silofuse": ("both: SiloFuse", "#0072B2"),
    "shuffled_silos": ("real silos, shuffled", "#5F5F5F"),
}
SCORES = {
    "resemblance": "resemblance\n(0–100, higher is better)",
    WITHIN: "association error inside\nsilos, equal rows",
    ACROSS: "association error across\nsilos, equal rows",
}
DIFFERENCES = {"resemblance": "resemblance (points)", "association_across": "association error across silos"}


@style.styled
def methods(frame: pd.DataFrame) -> Figure:
    """Draw every method's resemblance and association errors (S9, S10, S14, S43)."""
    tables = {metric: means(frame, metric, ["method"]) for metric in SCORES}
    names = sorted(set(tables["resemblance"]["dataset"]))
    present = [method for method in LOOKS if (tables["resemblance"]["method"] == method).any()]
    height = 0.2 * len(present) * len(names) + 0.35 * len(names) + 0.8
    figure, axes = style.canvas(style.WIDTH, height, len(names), len(SCORES), sharey=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (metric, table) in zip(line, tables.items(), strict=True):
            own = table[table["dataset"] == dataset].set_index("method")
            for place, method in enumerate(present):
                if method in own.index:
                    _, colour, marker = LOOKS[method]
                    row = own.loc[method]
                    panel.errorbar(row["mean"], place, xerr=half(row), color=colour, marker=marker, linestyle="none")
            if metric != "resemblance":
                panel.set_xlim(left=0)
        line[0].set_yticks(range(len(present)), [LOOKS[method][0] for method in present])
        line[0].set_ylim(len(present) - 0.5, -0.5)
        line[0].set_title(dataset)
    for panel, title in zip(axes[-1], SCORES.values(), strict=True):
        panel.set_xlabel(title)
    figure.legend(handles=[Line2D([], [], linestyle="none", label=runs(*tables.values()))], loc="outside lower right")
    return figure


@style.styled
def differences(frame: pd.DataFrame) -> Figure:
    """Draw SiloFuse less each rival of the same seed (S9, S10, S14)."""
    tables = {metric: means(frame, f"{metric}_difference", ["of", "minus"], of="silofuse") for metric in DIFFERENCES}
    found = tables["resemblance"]
    names, present = sorted(set(found["dataset"])), [m for m in LOOKS if (found["minus"] == m).any()]
    looks = style.colours(names)
    height = 0.2 * len(present) * max(2, len(names)) + 1.0
    figure, axes = style.canvas(style.WIDTH, height, 1, len(DIFFERENCES), sharey=True)
    for panel, (metric, title) in zip(axes[0], DIFFERENCES.items(), strict=True):
        panel.axvline(0, color="black", linewidth=0.7)
        for index, dataset in enumerate(names):
            colour, marker = looks[dataset]
            own = tables[metric][(tables[metric]["dataset"] == dataset) & tables[metric]["minus"].isin(present)]
            places = [present.index(name) + 0.2 * (index - (len(names) - 1) / 2) for name in own["minus"]]
            panel.errorbar(own["mean"], places, xerr=[half(row) for row in own.itertuples()], color=colour,
                           marker=marker, linestyle="none")
        panel.set_xlabel(f"{title},\nSiloFuse less other ({'right' if metric == 'resemblance' else 'left'} is better)")
        panel.set_yticks(range(len(present)), [LOOKS[method][0] for method in present])
        panel.set_ylim(len(present) - 0.5, -0.5)
        panel.locator_params(axis="x", nbins=5)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def stages(frame: pd.DataFrame) -> Figure:
    """Draw the association errors of each stage by itself and of both (S21)."""
    panels = {metric: SCORES[metric] for metric in (WITHIN, ACROSS)}
    tables = {metric: means(frame, metric, ["method"]) for metric in panels}
    names = sorted(set(tables[ACROSS]["dataset"]))
    present = [m for m in STAGES if (tables[ACROSS]["method"] == m).any()]
    figure, axes = style.canvas(style.WIDTH, 0.34 * len(present) * len(names) + 1.05, len(names), 2, sharey=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, table in zip(line, tables.values(), strict=True):
            own = table[table["dataset"] == dataset].set_index("method")
            for place, method in enumerate(present):
                row = own.loc[method]
                panel.barh(place, row["mean"], color=STAGES[method][1], height=0.6)
                panel.errorbar(row["mean"], place, xerr=half(row), color="black", linestyle="none", elinewidth=1)
        line[0].set_yticks(range(len(present)), [STAGES[method][0] for method in present])
        line[0].set_ylim(len(present) - 0.5, -0.5)
        line[0].set_title(dataset)
    for panel, title in zip(axes[-1], panels.values(), strict=True):
        panel.set_xlabel(title.replace("\n", " ") + "\n(lower is better)")
    figure.legend(handles=[Line2D([], [], linestyle="none", label=runs(*tables.values()))], loc="outside lower right")
    return figure
