"""Figures of many clients and of break conditions: every mean is drawn, at its place, and nothing of nothing."""

import pytest

from feddiff.experiments import figures_pfdm_clients as figures
from feddiff.experiments import style


def drawn_values(figure):
    """Return every ordinate and abscissa that lines and bars of the figure stand at."""
    found = set()
    for panel in figure.axes:
        for line in panel.get_lines():
            found |= {round(float(value), 6) for value in (*line.get_xdata(), *line.get_ydata())}
        found |= {round(float(bar.get_width()), 6) for bar in panel.patches}
    return found


def clients_rows():
    rows = []
    for seed in range(2):
        for count in (2, 8, 32):
            for minus in figures.MINUS:
                rows += [("toy", seed, "frechet_difference", -count - len(minus) / 100 - (group == "minority"),
                          dict(clients=str(count), minus=minus, group=group)) for group in ("majority", "minority")]
            rows.append(("toy", seed, "break_even_rounds", 10 / count, dict(published="MNIST", clients=str(count))))
        for side in (8, 28):
            rows += [("toy", seed, "upload_bytes", n * side * 1e4, dict(pictures=str(n), side=str(side)))
                     for n in (100, 1000)]
        for index, way in enumerate(("every_step", "strided")):
            rows.append(("toy", seed, "network_calls", 1100.0 - 1000 * index, dict(sampling=way, stage="total")))
            rows += [("toy", seed, metric, 0.25 + index / 10 + (group == "minority") / 100 + (metric == "frechet"),
                      dict(sampling=way, client="all", group=group))
                     for metric in ("frechet", "label_accuracy") for group in ("majority", "minority")]
    return rows


def breaks_rows():
    rows = []
    for index, others in enumerate(figures.OTHERS):
        rows.append(("toy", 0, "agreement", 1 - index / 2, dict(others=others)))
        for start in ("global", "noise"):
            rows += [("toy", 0, metric, 3 + index + len(start) / 10, dict(
                others=others, client="all", group=group, method="pfdm", start=start))
                for metric in ("frechet", "label_accuracy") for group in ("majority", "minority")]
    for index, held in enumerate((0, 5, 50)):
        for method, start in (("pfdm", "global"), ("pfdm", "noise"), ("local", "")):
            rows += [("toy", 0, metric, 11 + index + len(method + start) / 100, dict(
                held=str(held), client="all", group="minority", method=method, start=start))
                for metric in ("frechet", "label_accuracy")]
    rows += [("toy", 0, "class_accuracy", 0.31 + place / 10, dict(case=case, start="global"))
             for place, case in enumerate(figures.CASES)]
    return rows


def test_the_advantage_is_drawn_above_zero_where_pfdm_is_better(toy):
    rows = clients_rows()
    found = drawn_values(figures.advantage(toy(rows)))
    assert {round(-row[3], 6) for row in rows if row[2] == "frechet_difference"} <= found


def test_traffic_and_cost_show_every_number(toy):
    rows = clients_rows()
    found = drawn_values(figures.traffic(toy(rows)))
    assert {round(row[3] / 1e6, 6) for row in rows if row[2] == "upload_bytes"} <= found
    assert {round(row[3], 6) for row in rows if row[2] == "break_even_rounds"} <= found
    found = drawn_values(figures.cost(toy(rows)))
    assert {round(row[3], 6) for row in rows if row[2] in ("network_calls", "frechet", "label_accuracy")} <= found


def test_break_conditions_show_the_rare_classes(toy):
    rows = breaks_rows()
    figure = figures.incompatible(toy(rows))
    wanted = {round(row[3], 6) for row in rows if row[4].get("others") and row[4].get("group") == "minority"}
    assert wanted <= drawn_values(figure)
    assert any("50%" in text.get_text() for text in figure.axes[0].get_xticklabels())
    found = drawn_values(figures.rarity(toy(rows)))
    assert {round(row[3], 6) for row in rows if row[4].get("held") or row[2] == "class_accuracy"} <= found


@pytest.mark.parametrize("draw", [
    figures.advantage, figures.traffic, figures.cost, figures.incompatible, figures.rarity,
])
def test_nothing_is_drawn_of_nothing(toy, draw):
    with pytest.raises(style.NothingToDraw, match="hold no"):
        draw(toy([("toy", 0, "accuracy", 0.5, dict(method="local"))]))
