"""Figures of PFDM's privacy, clients, break conditions and theory: every number drawn, nothing drawn of nothing."""

import pytest

from feddiff.experiments import figures_pfdm_privacy as figures
from feddiff.experiments import style
from feddiff.experiments.pfdm_privacy_study import RADII

CELLS = (("main", "100", "none", 5000.0), ("main", "400", "none", 190.0), ("main", "690", "10", 8.8))


def drawn_values(figure):
    """Return every number that lines, error bars and points of the figure stand at, on either axis."""
    found = set()
    for panel in figure.axes:
        for line in panel.get_lines():
            found |= {round(float(value), 6) for value in (*line.get_xdata(), *line.get_ydata())}
    return found


def frontier_rows(cells=CELLS, starts=("global", "noise")):
    rows, values = [], set()
    for seed in range(2):
        for index, (variant, t0, C, epsilon) in enumerate(cells):
            place = dict(variant=variant, t0=t0, C=C)
            rows.append(("toy", seed, "epsilon_image", epsilon, place))
            for start in starts:
                for group in ("majority", "minority"):
                    for metric in ("frechet", "label_accuracy"):
                        value = 1.0 + index + 0.1 * len(start) + (group == "majority") + (metric == "frechet") * 5
                        values.add(value)
                        labels = dict(method="pfdm", start=start, client="all", group=group, **place)
                        rows.append(("toy", seed, metric, value, labels))
                        if start == "global":
                            for minus in ("local", "local_balanced", "no_server"):
                                labels = dict(start=start, group=group, minus=minus, **place)
                                rows.append(("toy", seed, f"{metric}_difference", value / 10, labels))
    for method in ("local", "local_balanced"):
        for group in ("majority", "minority"):
            for metric in ("frechet", "label_accuracy"):
                labels = dict(method=method, client="all", group=group)
                rows += [("toy", seed, metric, 3.25, labels) for seed in range(2)]
    return rows, values


def test_the_frontier_shows_every_mean_at_its_epsilon(toy):
    rows, values = frontier_rows()
    found = drawn_values(figures.frontier(toy(rows)))
    assert {round(value, 6) for value in values} <= found and {5000.0, 190.0, 8.8, 3.25} <= found


def test_gains_are_drawn_with_their_sign_turned_for_distances(toy):
    rows, _ = frontier_rows()
    found = drawn_values(figures.gains(toy(rows)))
    own = {(row[2], row[3]) for row in rows if row[2].endswith("difference") and row[4]["group"] == "minority"}
    assert {round(-value if metric.startswith("frechet") else value, 6) for metric, value in own} <= found


def test_variants_need_variants_and_show_them(toy):
    rows, _ = frontier_rows()
    with pytest.raises(style.NothingToDraw, match="variant"):
        figures.variants(toy(rows))
    rows, _ = frontier_rows((*CELLS, ("tight", "675", "10", 9.97)), ("uploads", "noise"))
    figure = figures.variants(toy(rows))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 4 and any("675" in label and "exact" in label for label in labels)


def test_bounds_show_both_bounds_of_every_unit(toy):
    rows = [("toy", 0, "epsilon_bound", 10.0 / t0 + place + (bound == "theorem"), dict(t0=t0, unit=unit, bound=bound))
            for t0 in (100, 400) for place, unit in enumerate(RADII) for bound in ("analytic", "theorem")]
    found = drawn_values(figures.bounds(toy(rows)))
    assert {round(row[3], 6) for row in rows} <= found
    assert set(figures.UNITS) == set(RADII)


def test_the_audit_shows_what_is_proved_and_what_is_stated(toy):
    rows = []
    for t0, C, exact in (("100", "none", 1300.0), ("690", "10", 8.77)):
        place = dict(t0=t0, C=C)
        rows += [("toy", 0, "epsilon_exact", exact, place), ("toy", 0, "epsilon_stated", 1.2 * exact, place)]
        rows += [("toy", 0, "epsilon_lower", exact * share, dict(bound=bound, **place))
                 for bound, share in (("fit", 0.95), ("gaussian", 0.9), ("counting", 0.3))]
    assert {round(row[3], 6) for row in rows} <= drawn_values(figures.audit(toy(rows)))


@pytest.mark.parametrize("draw", [
    figures.bounds, figures.audit, figures.frontier, figures.gains, figures.variants, figures.theory, figures.theory_gain,
])
def test_nothing_is_drawn_of_nothing(toy, draw):
    with pytest.raises(style.NothingToDraw, match="hold no"):
        draw(toy([("toy", 0, "accuracy", 0.5, dict(method="local"))]))


def theory_rows():
    rows = [("toy", 0, name, value / t0, dict(t0=str(t0))) for t0 in (100, 690)
            for name, value in (("epsilon_image", 9e5), ("gain_promised", 70.0))]
    for place, (law, d, n) in enumerate((("unit", "8", "50"), ("unit", "64", "500"), ("pictures", "64", "50"))):
        for t0 in (100, 690):
            labels = dict(law=law, dimension=d, pictures=n, sampler="ancestral", t0=str(t0))
            rows += [("toy", 0, "error_left", 0.1 + place / 10 + index / 100 + t0 / 1e4, dict(method=method, **labels))
                     for index, method in enumerate(figures.ERRORS)]
            rows += [("toy", 0, "gain_share", (place + 1) / t0, labels), ("toy", 0, "error_left", 9.0, dict(
                method="pfdm", **{**labels, "sampler": "ddim"}))]
    return rows


def test_theory_shows_every_law_with_the_papers_sampler(toy):
    rows = theory_rows()
    figure = figures.theory(toy(rows))
    wanted = {round(row[3], 6) for row in rows if row[2] == "error_left" and row[4]["sampler"] == "ancestral"}
    found = drawn_values(figure)
    assert wanted <= found and 9.0 not in found
    assert [panel.get_title(loc="left") for panel in figure.axes][0].startswith("unit variance\nd = 8, n = ")
    found = drawn_values(figures.theory_gain(toy(rows)))
    assert {round(row[3], 6) for row in rows if row[2] in ("gain_share", "gain_promised")} <= found
