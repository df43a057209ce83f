"""Black-box membership with known answers: copies, fresh rows, a copy moved as a whole (privacy.md, 4 and 5)."""

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks import membership_blackbox as attack
from feddiff.evaluation.membership import auc
from feddiff.seeds import numpy_generator

N = 250


def population(rows, *names, missing=0.0):
    """Return correlated numbers, two categories that follow from them, and a yes-or-no."""
    draw, load = numpy_generator(1, "rows", *names), numpy_generator(1, "loadings").standard_normal((3, 6))
    x = draw.standard_normal((rows, 3)) @ load + 0.3 * draw.standard_normal((rows, 6))
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(6)])
    frame["x5"] = np.exp(frame["x5"])
    frame["size"] = np.where(x[:, 0] > 0.5, "large", np.where(x[:, 0] > -0.5, "middle", "small"))
    frame["place"] = np.char.add("p", draw.integers(100, size=rows).astype(str))
    frame["sold"] = draw.random(rows) < 0.3
    if missing:
        frame["x1"] = frame["x1"].mask(draw.random(rows) < missing)
    return frame


@pytest.fixture(scope="module")
def sides():
    return [population(N, name) for name in ("members", "others", "reference", "fresh")]


def areas(members, others, reference, synthetic, **options):
    tables = attack.compare(pd.concat([members, others], ignore_index=True), synthetic, reference, **options)
    return {name: auc(*np.split(scores, 2)) for name, scores in attack.all_scores(tables, seed=0).items()}


def test_a_copy_of_the_training_rows_gives_every_member_away(sides):
    members, others, reference, _ = sides
    found = areas(members, others, reference, members)
    assert found.pop("closest") == 1
    # The fifth neighbour hardly sees one copy; ten rows around a record blur what its own copy says.
    assert found.pop("domias_neighbours") > 0.5 and found.pop("gen_lra") > 0.8
    assert all(value > 0.95 for value in found.values()), found


def test_fresh_rows_are_chance(sides):
    games = [areas(*sides[:3], sides[3])]
    games += [areas(*(population(N, name, game) for name in ("m", "o", "r", "f"))) for game in range(2)]
    for name in games[0]:
        assert 0.45 < np.mean([game[name] for game in games]) < 0.55, name


def test_permuted_membership_is_chance(sides):
    members, others, reference, _ = sides
    tables = attack.compare(pd.concat([members, others], ignore_index=True), members, reference)
    for scores in (attack.closest(tables), attack.influence(tables), attack.density_ratio(tables)):
        dealt = [auc(*np.split(numpy_generator(game, "dealt").permutation(scores), 2)) for game in range(60)]
        assert abs(np.mean(dealt) - 0.5) < 0.02


def test_a_copy_moved_as_a_whole_is_found_once_moved_back():
    # The toy of privacy.md, section 4, with the same band: distance .508, after removing the move 1.000.
    draw = numpy_generator(0, "toy")
    loadings = draw.standard_normal((4, 10)) / 2
    x = draw.standard_normal((3 * 600, 4)) @ loadings + 0.3 * draw.standard_normal((3 * 600, 10))
    parts = [pd.DataFrame(part).rename(columns=str) for part in np.split((x - x[:600].mean(0)) / x[:600].std(0), 3)]
    members, others, reference = parts
    both = pd.concat([members, others], ignore_index=True)
    plain, back = (attack.compare(both, members + 1.0, reference, aligned=aligned) for aligned in (False, True))
    assert 0.44 < auc(*np.split(attack.closest(plain), 2)) < 0.56
    assert auc(*np.split(attack.closest(back), 2)) > 0.99
    assert auc(*np.split(attack.density_ratio(back), 2)) > 0.9


def test_distances_are_what_they_are_said_to_be():
    records = pd.DataFrame({"a": [0.0, 4.0], "c": ["x", "y"], "w": [f"v{j}" for j in range(2)]})
    synthetic = pd.DataFrame({"a": [0.0, 2.0, 2.0], "c": ["x", "x", "y"], "w": ["v0", "v0", "v5"]})
    reference = pd.DataFrame({"a": [-2.0, 2.0] * 40, "c": ["x"] * 80, "w": [f"v{j}" for j in range(80)]})
    tables = attack.compare(records, synthetic, reference)
    # The reference's standard deviation is 2; the wide column w counts 1 where it differs.
    assert tables.to_synthetic == pytest.approx(np.array([[0, 1, 3], [6, 3, 2]]))
    assert attack.closest(tables) == pytest.approx([0, -(2**0.5)])
    assert attack.closer(tables) == pytest.approx([2**0.5 - 2**0.5 + np.sqrt(tables.to_reference[0].min()),
                                                   np.sqrt(tables.to_reference[1].min()) - 2**0.5])
    assert attack.ball(tables, radius=1.0) == pytest.approx([2 / 3, 0]) and tables.to_synthetic[0, 0] == 0


def test_densities_agree_with_the_closed_form():
    # Two Gaussians N(1, 1) and N(0, 1): the log ratio is x - 1/2, whatever kernel of small width is used.
    draw = numpy_generator(0, "densities")
    synthetic, reference = (pd.DataFrame({"x": draw.normal(mean, 1, 2000)}) for mean in (1, 0))
    records = pd.DataFrame({"x": [-0.5, 0.0, 0.5, 1.0]})
    tables = attack.compare(records, synthetic, reference)
    wide = attack.Compared(tables.to_synthetic, tables.to_reference, tables.within, 0.2, tables.rows)
    assert attack.density_ratio(wide) == pytest.approx(records["x"].to_numpy() - 0.5, abs=0.15)
    assert attack.density_ratio(tables, density="neighbours", neighbours=100) == pytest.approx(
        records["x"].to_numpy() - 0.5, abs=0.3
    )


def test_missing_values_and_other_rows_orders_do_no_harm():
    members, others, reference = (population(80, name, missing=0.2) for name in ("members", "others", "reference"))
    both = pd.concat([members, others], ignore_index=True)
    tables = attack.compare(both, members, reference)
    assert (attack.closest(tables)[:80] == 0).all() and (attack.closest(tables)[80:] < 0).all()
    again = attack.compare(both, members.sample(frac=1, random_state=0), reference[::-1])
    for scores in (attack.closest, attack.density_ratio, attack.influence, attack.ball):
        assert scores(again) == pytest.approx(scores(tables))


@pytest.mark.parametrize(("call", "words"), [
    (lambda tables: attack.density_ratio(tables, density="flow"), "density"),
    (lambda tables: attack.density_ratio(tables, density="neighbours", neighbours=0), "neighbours"),
    (lambda tables: attack.influence(tables, neighbours=0), "neighbours"),
    (lambda tables: attack.ball(tables, radius=-1.0), "radius"),
])
def test_bad_input_is_named(sides, call, words):
    small = [side.iloc[:20] for side in sides]
    tables = attack.compare(small[0], small[1], small[2])
    with pytest.raises(ValueError, match=words):
        call(tables)


def test_a_table_that_nothing_predicts_is_named():
    flat = pd.DataFrame({"a": [1.0, 1.0], "b": ["x", "x"]})
    with pytest.raises(ValueError, match="no column"):
        attack.prediction_errors(attack.compare(flat, flat, flat), seed=0)
