"""Figures of robustness, joint training and autoencoders: every mean is drawn, and nothing of nothing."""

import pytest

from feddiff.experiments import figures_silofuse_autoencoders as autoencoders, figures_silofuse_joint as joint
from feddiff.experiments import figures_silofuse_robustness as robustness, style


def drawn_values(figure):
    """Return every ordinate and abscissa that lines and bars of the figure stand at."""
    found = set()
    for panel in figure.axes:
        for line in panel.get_lines():
            found |= {round(float(value), 5) for value in (*line.get_xdata(), *line.get_ydata())}
        found |= {round(float(bar.get_width()), 5) for bar in panel.patches}
    return found


def mean_of(rows, name, **labels):
    values = [row[3] for row in rows if row[2] == name and labels.items() <= {**row[4], "dataset": row[0]}.items()]
    return round(sum(values) / len(values), 5)


def robustness_rows():
    rows = []
    for dataset, shift in (("loan", 0.0), ("heloc", 5.0)):
        for seed in range(3):
            base = 50 + shift + seed / 10
            rows += [(dataset, seed, metric, base / 3, dict(method="real")) for metric in robustness.SCORES]
            cases = [("4", order, draw) for order, draw in
                     (("contiguous", "0"), ("random", "0"), ("random", "1"), ("adversarial", "0"))]
            cases += [("8", "contiguous", "0"), ("1", "contiguous", "0"), ("columns", "contiguous", "0")]
            rows += [(dataset, seed, "column_shape", base / 100 + place / 9 + index / 70,
                      dict(method="silofuse", partition=silos, order="contiguous", draw="0", sort=sort))
                     for place, silos in enumerate(("4", "columns", "columns_wide"))
                     for index, sort in enumerate(robustness.SORTS)]
            for place, (silos, order, draw) in enumerate(cases):
                label = dict(method="silofuse", partition=silos, order=order, draw=draw)
                rows += [(dataset, seed, metric, base + place + index / 7, label)
                         for index, metric in enumerate(robustness.SCORES)]
                rows.append((dataset, seed, "association_all", base + place + 20, label | {"method": "shuffled_silos"}))
    return rows


def joint_rows():
    rows = []
    for dataset, shift in (("loan", 0.0), ("cardio", 5.0)):
        for seed in range(3):
            for place, method in enumerate({**joint.LOOKS, **joint.STAGES}):
                value = 50 + shift + seed / 10 + place
                rows += [(dataset, seed, metric, value / (1 + index), dict(method=method))
                         for index, metric in enumerate(joint.SCORES)]
                rows += [(dataset, seed, f"{metric}_difference", value / 9, dict(of="silofuse", minus=method))
                         for metric in joint.DIFFERENCES]
    return rows


def autoencoder_rows():
    rows, series = [], {"latent": autoencoders.WIDTHS, "variant": autoencoders.VARIANTS,
                        "ae_steps": ["10", "50", "200", "800"]}
    for dataset, shift in (("loan", 0.0), ("diabetes", 5.0)):
        for seed in range(3):
            for name, choices in series.items():
                for place, choice in enumerate(choices):
                    value = 50 + shift + seed / 10 + place
                    rows += [(dataset, seed, metric, value + index / 7,
                              dict(method="silofuse", series=name, choice=choice))
                             for metrics, _ in autoencoders.PANELS for index, (metric, *_) in enumerate(metrics)]
            for method in autoencoders.LINES:
                rows += [(dataset, seed, metric, 44.0 + len(method), dict(method=method))
                         for metric in ("resemblance", autoencoders.ACROSS)]
            for place, hidden in enumerate(("64", "256", "1024")):
                rows += [(dataset, seed, metric, 10 + shift + place + index, dict(hidden=hidden))
                         for index, metric in enumerate(("nll_training", "nll_held_out", "reconstruction_training",
                                                         "reconstruction_held_out", "membership_auc"))]
    return rows


def test_orders_average_the_draws_and_silos_take_the_contiguous_ones(toy):
    rows = robustness_rows()
    found = drawn_values(robustness.orders(toy(rows)))
    for order in robustness.ORDERS:
        assert mean_of(rows, "resemblance", partition="4", order=order, dataset="loan", method="silofuse") in found
    assert mean_of(rows, "association_all", partition="8", dataset="heloc", method="shuffled_silos") in found
    found = drawn_values(robustness.silos(toy(rows)))
    for silos in ("1", "4", "8", "columns"):
        assert mean_of(rows, "reconstruction_mean", partition=silos, order="contiguous", dataset="heloc") in found
    assert mean_of(rows, "resemblance", partition="4", order="adversarial", dataset="heloc") not in found
    found = drawn_values(robustness.shapes(toy(rows)))
    for silos in ("4", "columns", "columns_wide"):
        for sort in robustness.SORTS:
            assert mean_of(rows, "column_shape", partition=silos, sort=sort, dataset="heloc") in found
    with pytest.raises(style.NothingToDraw):
        robustness.orders(toy([("loan", 0, "other", 1.0, dict(method="silofuse", partition="4", order="contiguous"))]))


def test_a_line_joins_numbers_of_silos_only(toy):
    panel = robustness.silos(toy(robustness_rows())).axes[0]
    lines = [line for line in panel.get_lines() if line.get_linestyle() == "-" and line.get_marker() == "None"]
    joined = max(lines, key=lambda line: len(line.get_xdata()))
    names = [label.get_text() for label in panel.get_xticklabels()]
    assert [names[int(place)] for place in joined.get_xdata()] == ["1", "4", "8"] and names[-1] == "one column"
    assert all(panel.get_xlabel() for panel in robustness.silos(toy(robustness_rows())).axes[-3:])


def test_a_perfect_reconstruction_is_not_magnified(toy):
    place = dict(method="silofuse", partition="4", order="contiguous", draw="0")
    rows = [("loan", seed, metric, 1 - seed * 1e-6, place) for seed in range(2) for metric in robustness.SCORES]
    rows += [("loan", 0, "association_all", 0.1, place | {"method": "shuffled_silos"})]
    rows += [("loan", 0, metric, 1.0, {"method": "real"}) for metric in robustness.SCORES]
    for draw in (robustness.orders, robustness.silos):
        low, high = draw(toy(rows)).axes[-1].get_ylim()
        assert low <= 0.98 and 1 < high < 1.1


def test_methods_differences_and_stages_are_drawn(toy):
    rows = joint_rows()
    found = drawn_values(joint.methods(toy(rows)))
    assert {mean_of(rows, metric, method=m, dataset="loan") for metric in joint.SCORES for m in joint.LOOKS} <= found
    found = drawn_values(joint.differences(toy(rows)))
    assert mean_of(rows, "resemblance_difference", minus="independent_clients", dataset="cardio") in found
    found = drawn_values(joint.stages(toy(rows)))
    assert {mean_of(rows, joint.ACROSS, method=m, dataset="cardio") for m in joint.STAGES} <= found
    with pytest.raises(style.NothingToDraw):
        joint.methods(toy([("loan", 0, "other", 1.0, dict(method="silofuse"))]))


def test_series_and_generalisation_are_drawn(toy):
    rows = autoencoder_rows()
    for draw, name, choice in ((autoencoders.widths, "latent", "budget"), (autoencoders.variants, "variant", "vae"),
                               (autoencoders.steps, "ae_steps", "800")):
        found = drawn_values(draw(toy(rows)))
        for metric in ("reconstruction_worst", "resemblance", autoencoders.ACROSS, "known_rows_leak"):
            assert mean_of(rows, metric, series=name, choice=choice, dataset="diabetes") in found
        assert mean_of(rows, "resemblance", method="real", dataset="loan") in found
    found = drawn_values(autoencoders.generalisation(toy(rows)))
    assert mean_of(rows, "nll_held_out", hidden="1024", dataset="loan") in found
    assert mean_of(rows, "membership_auc", hidden="64", dataset="diabetes") in found
    with pytest.raises(style.NothingToDraw):
        autoencoders.generalisation(toy([("loan", 0, "other", 1.0, dict(hidden="64"))]))
