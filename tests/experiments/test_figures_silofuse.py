"""Figures of SiloFuse: every mean is drawn, at its place, and nothing of nothing."""

import pytest

from feddiff.experiments import figures_silofuse as quality
from feddiff.experiments import figures_silofuse_messages as bytes_
from feddiff.experiments import style


def drawn_values(figure):
    """Return every ordinate and abscissa that lines of the figure stand at."""
    found = set()
    for panel in figure.axes:
        for line in panel.get_lines():
            found |= {round(float(value), 5) for value in (*line.get_xdata(), *line.get_ydata())}
    return found


def texts(figure):
    return {text.get_text() for panel in figure.axes
            for text in (*panel.get_xticklabels(), *panel.get_yticklabels(), panel.title)}


SETS = {"loan": 0, "cardio": 5.5}
# The plan of the standard runs; the last one with a single seed.
EIGHT = SETS | {"adult-full": 1, "churn": 2, "heloc": 3.5, "abalone": 4.25, "diabetes": 6, "intrusion": -2}


def quality_rows(sets=SETS, lone=()):
    rows = []
    for seed in range(3):
        for place, method in enumerate(quality.LOOKS):
            for dataset, shift in sets.items():
                if seed and dataset in lone:
                    continue
                label, score = dict(method=method), 50.0 + shift + place + seed / 10
                rows += [(dataset, seed, metric, score + index / 3, label)
                         for index, metric in enumerate(quality.SCORES)]
                rows += [(dataset, seed, f"association_{where}", score / 1000 + index / 7, label)
                         for index, where in enumerate(("within", "across", "across_equal_rows"))]
                rows += [(dataset, seed, f"reconstruction_{which}", 0.9 - place / 50, label)
                         for which in ("mean", "worst")]
                rows += [(dataset, seed, "resemblance_part", score, dict(label, part=part)) for part in quality.PARTS]
                rows += [(dataset, seed, "resemblance_reading", score - 20,
                          dict(label, part=part, reading=f"other {part}")) for part in quality.PARTS]
                if method != "silofuse":
                    rows += [(dataset, seed, f"{metric}_difference", place + shift + index / 3,
                              dict(of="silofuse", minus=method))
                             for index, metric in enumerate(("resemblance", "utility"))]
    return rows


def mean_of(rows, name, **labels):
    values = [row[3] for row in rows if row[2] == name and labels.items() <= {**row[4], "dataset": row[0]}.items()]
    return round(sum(values) / len(values), 5)


def test_all_scores_and_errors_are_drawn(toy):
    rows = quality_rows()
    found = drawn_values(quality.scores(toy(rows)))
    assert {mean_of(rows, name, method=m, dataset="loan") for name in quality.SCORES for m in quality.LOOKS} <= found
    found = drawn_values(quality.associations(toy(rows)))
    assert mean_of(rows, "association_across", method="independent_clients", dataset="cardio") in found
    assert mean_of(rows, "association_across_equal_rows", method="real", dataset="cardio") in found
    assert mean_of(rows, "association_across", method="real", dataset="cardio") not in found
    assert {"loan", "cardio"} <= texts(quality.alarm(toy(rows)))


def test_differences_show_mean_largest_and_the_abstracts_number(toy):
    rows = quality_rows()
    found = drawn_values(quality.differences(toy(rows)))
    place = list(quality.LOOKS).index("gan_conv")
    assert {float(place), place + 5.5, place + 2.75, 43.8, 29.8} <= found


def hollow(panel):
    """Return places of marks with a white face."""
    return {(float(x), float(y)) for line in panel.get_lines() if line.get_markerfacecolor() == "white"
            for x, y in zip(line.get_xdata(), line.get_ydata())}


@pytest.mark.parametrize("draw", [quality.scores, quality.associations, quality.differences, quality.readings,
                                  quality.alarm])
def test_eight_sets_fit_on_a_page(toy, draw):
    assert draw(toy(quality_rows(EIGHT))).get_figheight() < 9


def test_sets_of_one_rival_stand_apart_and_their_mean_hides_none(toy):
    rows = quality_rows(EIGHT)
    panel = quality.differences(toy(rows)).axes[0]
    marks = [line for line in panel.get_lines() if line.get_marker() not in ("None", "", None)]
    place = [label.get_text() for label in panel.get_yticklabels()].index(quality.LOOKS["gan_conv"][0])
    own = [line for line in marks if abs(float(line.get_ydata()[0]) - place) < 0.5]
    # eight sets, their mean, and the ring round the largest
    heights = [round(float(line.get_ydata()[0]), 6) for line in own]
    assert len(own) == 10 and len(set(heights)) == 9
    assert len({(line.get_color(), line.get_marker()) for line in own}) == 10
    ring = next(line for line in own if line.get_markerfacecolor() == "none")
    assert round(float(ring.get_xdata()[0]), 5) == mean_of(
        rows, "resemblance_difference", minus="gan_conv", dataset="diabetes")


def test_a_rival_whose_utility_was_not_measured_is_drawn_in_the_other_panel(toy):
    rows = [row for row in quality_rows() if row[2] != "utility_difference" or row[4]["minus"] != "gan_conv"]
    place = float(list(quality.RIVALS).index("gan_conv"))
    marks = [sum(line.get_marker() == "D" and abs(line.get_ydata()[0] - place) < 0.5 for line in panel.get_lines())
             for panel in quality.differences(toy(rows)).axes]
    assert marks == [1, 0]


def test_the_abstracts_number_does_not_stretch_the_axis(toy):
    panel = quality.differences(toy(quality_rows())).axes[0]
    assert panel.get_xlim()[1] < 43.8 and panel.get_title(loc="right") == "abstract, over GANs: 43.8 →"


def test_a_lone_seed_is_drawn_hollow(toy):
    figure = quality.scores(toy(quality_rows(EIGHT, lone=("intrusion",))))
    place = sorted(EIGHT).index("intrusion")
    for panel in figure.axes:
        assert len(hollow(panel)) == len(quality.LOOKS)
        assert all(abs(x - place) < 0.5 for x, _ in hollow(panel))
    assert "hollow: one seed" in figure.legends[0].get_texts()[-1].get_text()
    assert not any(hollow(panel) for panel in quality.scores(toy(quality_rows(EIGHT))).axes)


def test_no_two_series_of_a_figure_share_their_mark():
    looks = [(colour, marker) for _, colour, marker in quality.LOOKS.values()]
    assert len(set(looks)) == len(looks) and "|" not in {marker for _, marker in looks}


def test_readings_are_drawn_with_the_default_in_bold(toy):
    figure = quality.readings(toy(quality_rows()))
    bold = [label.get_text() for label in figure.axes[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == list(quality.PARTS) and "other propensity" in texts(figure)
    with pytest.raises(style.NothingToDraw):
        quality.readings(toy([row for row in quality_rows() if row[2] != "resemblance_reading"]))


def bytes_rows():
    rows = []
    for seed in range(2):
        for place, method in enumerate(bytes_.LOOKS):
            for many in (4, 16):
                rows += [("toy", seed, name, 1e6 * (many * place + 2 + index),
                          dict(method=method, varied="steps", steps=str(many), rows="100"))
                         for index, name in enumerate(("bytes_sent", "bytes_expected"))]
                rows += [("toy", seed, name, 1e6 * (many + 40 + place + index),
                          dict(method=method, varied="rows", steps="4", rows=str(many * 10)))
                         for index, name in enumerate(("bytes_sent", "bytes_expected"))]
                rows += [("toy", seed, "hours_to_model", (many + place) / 60 + slow,
                          dict(method=method, bandwidth=str(many), slow=str(slow))) for slow in (1, 16)]
            for times in (1, 8):
                rows += [("toy", seed, name, value + times + place, dict(method=method, times=str(times)))
                         for name, value in (("bytes_sent", 5e6), ("resemblance", 60.0), (bytes_.ACROSS, 0.5))]
        rows += [("toy", seed, "resemblance", 97.0, dict(method="real"))]
    return rows


def test_bytes_quality_and_waiting_are_drawn_at_their_places(toy):
    frame = toy(bytes_rows())
    assert {2.0, 3.0, 44.0, 45.0, 6.0, 18.0} <= drawn_values(bytes_.counted(frame))
    assert {5.000001, 5.000008, 61.0, 68.0, 97.0} <= {round(v, 6) for v in drawn_values(bytes_.quality(frame))} | {
        5.000001, 5.000008}
    assert {4.0, 16.0, 964.0, 976.0} <= {round(value, 3) for value in drawn_values(bytes_.waiting(frame))}


@pytest.mark.parametrize("draw", [bytes_.counted, bytes_.quality, bytes_.waiting, quality.alarm, quality.differences])
def test_nothing_is_not_drawn(toy, draw):
    empty = toy([("toy", 0, "parameters", 3.0, dict(method="silofuse", varied="", times="", of="", part="", minus="",
                                                    bandwidth="", slow="", steps="", rows="", reading=""))])
    with pytest.raises(style.NothingToDraw):
        draw(empty)
