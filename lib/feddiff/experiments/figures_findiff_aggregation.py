"""Figures of server optimisers and client optimiser states (notebook 13), each a function of a long records frame."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from feddiff.experiments import style
from feddiff.experiments.figures_findiff_clients import ARMS, PANELS, arms_legend
from feddiff.experiments.figures_pfdm import half, means, runs

# Label `strategy` -> (what a reader sees, colour, line)
STRATEGIES = {
    "FedAvg": ("FedAvg", "#000000", "-"), "FedProx": ("FedProx", "#E69F00", "-"),
    "FedAdam": ("FedAdam", "#0072B2", "-"), "FedYogi": ("FedYogi", "#009E73", ":"),
    "FedAdam_planted": ("FedAdam, planted rate 1", "#D55E00", "--"),
}
POLICIES = {"adam_reset": "Adam reset", "sgd": "SGD"}
METRICS = {"pair_trends": "pair trends", "roc_auc": "ROC AUC", "held_out_loss": "held-out loss (left is better)"}
TRACES = (
    ("held_out_loss_trace", "inf", "held-out loss\nno DP"),
    ("held_out_loss_trace", "1", "held-out loss\nε = 1"),
    ("move_norm_trace", "1", "global move\nε = 1"),
    ("weight_norm_trace", "1", "weight norm\nε = 1"),
)


@style.styled
def strategies(frame) -> Figure:
    """Draw fidelity, utility and attack risk of the server optimisers; rows are metrics, columns data sets (F10)."""
    tables = {}
    for metric, (name, where) in PANELS.items():
        where = {label: text for label, text in where.items() if label != "method"}
        tables[name] = means(frame, metric, ["strategy", "budget", "partition"], policy="adam_keep", **where)
    names = sorted(set(frame["dataset"]))
    present = [name for name in STRATEGIES if name in set(tables["pair trends"]["strategy"]) and "planted" not in name]
    figure, axes = style.canvas(style.WIDTH, 1.5 * len(tables) + 0.8, len(tables), len(names), sharex=True,
                                sharey="row")
    seen = {}
    for line, (title, table) in zip(axes, tables.items(), strict=True):
        for panel, dataset in zip(line, names, strict=True):
            for index, (arm, (text, colour, marker, dashed)) in enumerate(ARMS.items()):
                own = table[(table["dataset"] == dataset) & (table["budget"] == arm[0])]
                own = own[(own["partition"] == arm[1]) & own["strategy"].isin(present)]
                face = "white" if dashed else colour
                look = dict(color=colour, marker=marker, linestyle="none", markerfacecolor=face)
                for row in own.itertuples():
                    panel.errorbar(present.index(row.strategy) + 0.14 * (index - 1.5), row.mean, yerr=half(row), **look)
                if len(own):
                    seen[arm] = Line2D([], [], label=text, **look)
            panel.set_xticks(range(len(present)), [STRATEGIES[name][0] for name in present], rotation=20)
            if title == next(iter(tables)):
                panel.set_title(dataset)
        line[0].set_ylabel(title)
    arms_legend(figure, seen, tables)
    return figure


@style.styled
def traces(frame) -> Figure:
    """Draw held-out loss, move and weight norm over the local steps, by category; columns are data sets (F27)."""
    names = sorted(set(frame["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 6.2, len(TRACES), len(names), sharex=True, sharey="row")
    for index, (line, (metric, epsilon, title)) in enumerate(zip(axes, TRACES, strict=True)):
        table = means(frame, metric, ["strategy", "steps"], policy="adam_keep", partition="by_category",
                      epsilon=epsilon)
        for panel, dataset in zip(line, names, strict=True):
            for strategy, (_, colour, dashes) in STRATEGIES.items():
                own = table[(table["dataset"] == dataset) & (table["strategy"] == strategy)]
                own = own.assign(steps=own["steps"].astype(int)).sort_values("steps")
                panel.plot(own["steps"], own["mean"], color=colour, linestyle=dashes)
            if index == 0:
                panel.set_title(dataset)
            if index == len(TRACES) - 1:
                panel.set_xlabel("local steps of a client")
        line[0].set_ylabel(title)
        if metric == "held_out_loss_trace":
            # What has been planted lies orders of magnitude higher and would flatten the others: it leaves the axis.
            inside = table[~table["strategy"].str.contains("planted")]["mean"]
            margin = 0.08 * max(inside.max() - inside.min(), 0.01)
            line[0].set_ylim(inside.min() - margin, inside.max() + margin)
        else:
            line[0].set_yscale("log")
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, label=text) for text, colour, dashes in STRATEGIES.values()
    ]
    told = "mean over seeds, by category;\nplanted: its loss leaves the axis"
    handles.append(Line2D([], [], linestyle="none", label=told))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def states(frame) -> Figure:
    """Draw what resetting Adam, or SGD, changes against Adam kept, by server optimiser and paired by seed (F44)."""
    looks = style.colours(frame["dataset"])
    tables = {metric: means(frame, f"{metric}_difference", ["strategy", "epsilon", "of"], minus="adam_keep")
              for metric in METRICS}
    known = tables["pair_trends"]
    lines = [(s, e) for s in STRATEGIES for e in ("inf", "1")
             if len(known[(known["strategy"] == s) & (known["epsilon"] == e)])]
    height = 0.11 * len(lines) * max(2, len(looks)) * len(POLICIES) + 1.4
    figure, axes = style.canvas(style.WIDTH, height, len(POLICIES), len(METRICS), sharey=True, sharex="col")
    for number, (row, (policy, title)) in enumerate(zip(axes, POLICIES.items(), strict=True)):
        for panel, (metric, name) in zip(row, METRICS.items(), strict=True):
            table = tables[metric][tables[metric]["of"] == policy]
            panel.axvline(0, color="black", linewidth=0.7)
            for index, (dataset, (colour, marker)) in enumerate(looks.items()):
                for own in table[table["dataset"] == dataset].itertuples():
                    place = lines.index((own.strategy, own.epsilon)) + 0.2 * (index - (len(looks) - 1) / 2)
                    panel.errorbar(own.mean, place, xerr=half(own), color=colour, marker=marker, linestyle="none",
                                   markersize=3.5)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            if number == len(POLICIES) - 1:
                panel.set_xlabel(f"{name},\nless that of Adam kept")
        row[0].set_yticks(range(len(lines)), [f"{s}, {'no DP' if e == 'inf' else 'ε = 1'}" for s, e in lines])
        row[0].set_ylim(len(lines) - 0.5, -0.5)
        row[0].set_ylabel(title, fontweight="bold")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
