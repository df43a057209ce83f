"""The anonymity games: exact counts on toy tables, known answers, termination, and what they must refuse."""

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks import anonymity, attribute_inference, linkability, predicates, singling_out
from feddiff.attacks.games import Counts, judge
from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, mixed_rows, nearest_rows
from feddiff.seeds import numpy_generator

KINDS = {"age": "integer", "job": "categorical"}


def draw(name="anonymity"):
    return numpy_generator(0, name)


def people(rows, name, missing=0.0):
    """Return rows of one population: two dependent numbers, a code, a text and a truth value."""
    generator = draw(name)
    income = generator.normal(30, 10, rows).round(3)
    frame = pd.DataFrame({
        "income": income,
        "rent": (income / 3 + generator.normal(0, 2, rows)).round(3),
        "age": generator.integers(18, 90, rows),
        "postcode": generator.integers(1000, 9999, rows),
        "job": generator.choice(["nurse", "cook", "smith", "clerk"], rows, p=[0.4, 0.3, 0.2, 0.1]),
        "owner": generator.random(rows) < income / 60,
    })
    for column in ("rent", "job"):
        frame[column] = frame[column].mask(generator.random(rows) < missing)
    return frame


PEOPLE_KINDS = {
    "income": "numeric", "rent": "numeric", "age": "integer", "postcode": "categorical", "job": "categorical",
    "owner": "boolean",
}
TOY = pd.DataFrame({"age": [20, 30, 40, 50], "job": ["a", "a", "b", "c"]})
OTHER = pd.DataFrame({"age": [20, 20, 50, 60], "job": ["b", "a", "c", "c"]})


def test_univariate_counts_by_hand():
    # Of TOY: age = 20, 30, 40, 50, <= 20, >= 50, job = b, c. On OTHER: 20 fits two rows, 30 and 40 none, 50 one;
    # <= 20 and >= 50 fit two each; b fits one, c two. So 2 of 8 succeed, all 8 on TOY itself.
    result = anonymity.singling_out(TOY, TOY, OTHER, generator=draw(), columns=1)
    assert (result.counts.attacks, result.counts.successes, result.counts.control_successes) == (8, 8, 2)
    assert result.game == "singling-out-univariate"
    swapped = anonymity.singling_out(OTHER, TOY, TOY, generator=draw(), columns=1)
    assert (swapped.counts.attacks, swapped.counts.successes, swapped.counts.control_successes) == (8, 2, 8)
    assert swapped.risk == 0


def test_coded_categories_have_no_extremes_and_one_missing_value_is_described():
    frame = pd.DataFrame({"code": [1.0, 2, 2, 3, np.nan], "row": list("vwxyz")})
    found = {}
    for kind in ("categorical", "numeric"):
        rows = mixed_rows(frame, frame, frame, {"code": kind, "row": "categorical"})
        queries = singling_out.univariate(rows, draw(), 100)
        here = queries.columns[:, 0] == 0
        found[kind] = sorted(zip(queries.low[here, 0].tolist(), queries.high[here, 0].tolist()))
    assert found["categorical"] == [(-1, -1), (0, 0), (2, 2)]
    # = 1 and <= 1, = 3 and >= 3 differ on other tables, though not on this one.
    assert found["numeric"] == [(-1, -1), (0, 0), (0, 0), (2, 2), (2, 2)]


def test_multivariate_takes_numbers_towards_the_extreme():
    # Median age 35: "at most" for 20 and 30, "at least" for 40 and 50. Of the four rows: (<= 20, a) and (<= 30, a)
    # fit 1 and 2 rows, (>= 40, b) and (>= 50, c) one each.
    rows = mixed_rows(TOY, TOY, OTHER, KINDS)
    found = singling_out.multivariate(rows, draw(), 100, 2, 500)
    # Ages of both tables: 20 30 40 50 60.
    written = {tuple(map(tuple, (low, high))) for low, high in zip(found.low.tolist(), found.high.tolist())}
    assert written == {((0, 0), (0, 0)), ((2, 1), (4, 1)), ((3, 2), (4, 2))}
    counts = singling_out.play(rows, generator=draw(), attacks=100, columns=2, max_attempts=500)
    # On OTHER: (<= 20, a) one; (>= 40, b) none; (>= 50, c) two.
    assert (counts.attacks, counts.successes, counts.control_successes) == (3, 3, 1)


def brute_force(found, codes):
    counts = []
    for query in range(len(found)):
        fits = np.ones(codes.shape[1], dtype=bool)
        for column, low, high, negated in zip(
            found.columns[query], found.low[query], found.high[query], found.negated[query]
        ):
            inside = (codes[column] >= low) & (codes[column] <= high)
            fits &= (~inside & (codes[column] >= 0)) if negated else inside
        counts.append(fits.sum())
    return np.array(counts)


@pytest.mark.parametrize("rows", [7, 64, 1024, 2500])
def test_counting_on_bits_equals_counting_one_by_one(rows):
    tables = [people(rows, f"{rows} {side}", missing=0.1) for side in range(3)]
    shared = mixed_rows(*tables, PEOPLE_KINDS)
    found = singling_out.blind(shared, draw(), 300, 3)
    assert found.negated.any() and (found.low == predicates.EMPTY).any() and (found.low == predicates.MISSING).any()
    for side in (ORIGINAL, SYNTHETIC, CONTROL):
        counts = predicates.RowSets(shared.codes[side], int(shared.levels.max())).count(found)
        assert np.array_equal(counts, brute_force(found, shared.codes[side]))


def test_linkability_by_hand():
    # Views age | job. Synthetic (20 a) (40 b): of TOY, 20 -> row 0, a -> row 0: linked; 30 is as near to either;
    # 40 -> 1, b -> 1: linked; 50 -> 1, c is equally far from both.
    synthetic = pd.DataFrame({"age": [20, 40, 100], "job": ["a", "b", "z"]})
    original = pd.DataFrame({"age": [21, 39, 41], "job": ["a", "b", "a"]})
    control = pd.DataFrame({"age": [99, 98], "job": ["a", "b"]})
    result = anonymity.linkability(original, synthetic, control, generator=draw(), views=(["age"], ["job"]))
    counts = result.counts
    assert (counts.attacks, counts.successes, counts.control_attacks, counts.control_successes) == (3, 2, 2, 0)
    both = anonymity.linkability(
        original, synthetic, control, generator=draw(), views=(["age"], ["job"]), neighbours=3
    )
    assert (both.counts.successes, both.counts.control_successes, both.counts.baseline_successes) == (3, 2, 3)
    assert both.too_weak


def test_blind_linking_chance_is_exact():
    chance = [linkability._blind_chance(n, k) for n, k in ((4, 1), (5, 2), (6, 3), (5, 3))]
    # 1 - C(n - k, k) / C(n, k)
    assert chance == pytest.approx([1 / 4, 1 - 3 / 10, 1 - 1 / 20, 1.0])


def test_inference_by_hand():
    synthetic = pd.DataFrame({"age": [20, 40, 60], "job": ["a", "b", "c"]})
    original = pd.DataFrame({"age": [21, 39, 58], "job": ["a", "b", "a"]})
    control = pd.DataFrame({"age": [25, 59, 41], "job": ["c", "c", "c"]})
    settings = {"generator": draw(), "kinds": KINDS}
    job = anonymity.attribute_inference(original, synthetic, control, secrets="job", **settings).counts
    assert (job.attacks, job.successes, job.control_successes) == (3, 2, 1)
    # Guesses 20, 40 and 20 for 21, 39 and 58: 1 of 20 and 1 of 40 are within 5 %. Control: 60 for all, 59 within.
    age = anonymity.attribute_inference(original, synthetic, control, secrets="age", **settings).counts
    assert (age.successes, age.control_successes) == (2, 1)
    strict = anonymity.attribute_inference(
        original, synthetic, control, secrets="age", tolerance=0.04, **settings
    ).counts
    assert strict.successes == 1


def test_negative_secrets_need_a_close_guess():
    frame = pd.DataFrame({"balance": [-100.0, -200.0, -300.0], "key": [0.0, 1.0, 2.0]})
    shifted = frame.assign(balance=[-200.0, -300.0, -100.0])
    counts = anonymity.attribute_inference(frame, shifted, frame, secrets=["balance"], generator=draw()).counts
    assert counts.successes == 0


def test_distance_by_hand_with_missing_values():
    original = pd.DataFrame({"x": [0.0, np.nan], "c": ["u", None]})
    synthetic = pd.DataFrame({"x": [10.0, np.nan, 4.0], "c": ["u", "v", None]})
    rows = mixed_rows(original, synthetic, original)
    # From (0, u): 1 + 0, 1 + 1, .4 + 1. From (-, -): 1 + 1, 0 + 1, 1 + 0: the tie goes to the first.
    everything = np.arange(2)
    near = nearest_rows(rows, ORIGINAL, everything, everything, 3)
    assert near.tolist() == [[0, 2, 1], [1, 2, 0]]
    assert nearest_rows(rows, ORIGINAL, everything, everything)[:, 0].tolist() == [0, 1]


def test_wide_categories_are_compared_like_narrow_ones():
    wide = pd.DataFrame({"word": [f"w{place}" for place in range(200)], "x": np.linspace(0, 1, 200)})
    order = draw().permutation(200)
    rows = mixed_rows(wide, wide.iloc[order], wide)
    near = nearest_rows(rows, ORIGINAL, np.arange(200), np.array([0]))[:, 0]
    assert np.array_equal(order[near], np.arange(200))


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_copy_has_risk_one_in_every_game(missing):
    original, control = people(300, "original", missing), people(300, "control", missing)
    copy = original.sample(frac=1, random_state=1)[original.columns[::-1]]
    table = anonymity.attack_risk(original, copy, control, generator=draw(), kinds=PEOPLE_KINDS, attacks=300)
    assert list(table["game"]) == [*anonymity.GAMES, "mean"]
    assert (table["high"] > 0.99).all() and (table["risk"][[0, 1, 3]] > 0.9).all() and table["risk"][2] > 0.8
    assert not table["too_weak"].any()


def test_an_independent_draw_has_risk_zero():
    found = 0
    for seed in range(12):
        original, synthetic, control = (people(300, f"{seed} {side}", 0.05) for side in ("a", "b", "c"))
        table = anonymity.attack_risk(original, synthetic, control, generator=draw(str(seed)), kinds=PEOPLE_KINDS)
        found += (table["low"] > 0).to_numpy()
        assert (table["risk"] < 0.15).all()
    # One end of a 95 % interval errs in 2.5 % of games; predicates on one row are not independent, so a little more.
    assert (found <= 2).all() and found[:4].sum() <= 4


def test_noise_hides_from_singling_out_but_not_from_inference():
    original, control = (people(400, side).drop(columns="postcode") for side in ("original", "control"))
    noise = draw("noise").normal(0, 0.01, (400, 2))
    noised = original.assign(income=original["income"] + noise[:, 0], rent=original["rent"] + noise[:, 1])
    table = anonymity.attack_risk(original, noised, control, generator=draw(), kinds=PEOPLE_KINDS).set_index("game")
    assert table.loc["singling-out-univariate", "risk"] < 0.1
    assert table.loc["attribute-inference", "low"] > 0.5


def test_an_attack_no_better_than_guessing_is_called_weak():
    assert judge("any", Counts(100, 10, 100, 10, 100, 10)).too_weak
    assert not judge("any", Counts(100, 11, 100, 10, 100, 10)).too_weak
    assert judge("any", Counts(0, 0, 0, 0, 0, 0)).too_weak
    # The shares decide, not the counts: 3 of 10 beats 20 of 100.
    assert not judge("any", Counts(10, 3, 10, 0, 100, 20)).too_weak


def test_few_predicates_end_the_search_and_are_counted():
    frame = pd.DataFrame({"a": ["x"] * 9 + ["y"], "b": ["u", "v"] * 5, "c": ["p"] * 10})
    result = anonymity.singling_out(frame, frame, frame, generator=draw(), attacks=400, max_attempts=5000)
    # Distinct rows: x u p, x v p, y v p: each is one predicate.
    assert result.attacks == 3
    # a = y and b = u fit one distinct row each.
    assert anonymity.singling_out(frame, frame, frame, generator=draw(), columns=1).attacks == 2
    grid = pd.DataFrame({"a": ["x", "x", "y", "y"], "b": ["u", "v", "u", "v"]})
    none = anonymity.singling_out(grid, grid, grid, generator=draw(), columns=1)
    assert (none.attacks, none.risk, none.low, none.high, none.too_weak) == (0, 0.0, 0.0, 1.0, True)


def test_rows_fewer_than_attacks_are_attacked_once():
    original, synthetic, control = (people(rows, str(rows)) for rows in (50, 60, 30))
    for game in (anonymity.linkability, anonymity.attribute_inference):
        counts = game(original, synthetic, control, generator=draw(), kinds=PEOPLE_KINDS).counts
        assert (counts.attacks, counts.control_attacks, counts.baseline_attacks) == (50, 30, 50)


def test_a_control_of_another_size_is_brought_to_the_size_of_the_original():
    generator = draw()
    # 40 predicates with known chances to fit a row; what would be seen in 500 rows against 2000 or 200 control rows.
    weights = generator.random(4000) / 300
    at_500 = np.mean(500 * weights * (1 - weights) ** 499)
    for rows, within in ((2000, 0.02), (200, 0.06)):
        attacks, successes = singling_out.at_size(generator.binomial(rows, weights), rows, 500)
        assert successes / attacks == pytest.approx(at_500, abs=within)
    seen = np.mean(generator.binomial(200, weights) == 1)
    assert abs(seen - at_500) > 0.06
    assert singling_out.at_size(np.array([0, 1, 1, 3]), 10, 10) == (4.0, 2.0)
    # Exactly: one of 2 drawn from 4 where 1 (2) of 4 fit: 1/2 and 2/3.
    assert singling_out.at_size(np.array([1, 2]), 4, 2)[1] == pytest.approx(1 / 2 + 2 / 3)


def test_stratified_predicates_come_evenly_from_the_columns():
    frame = people(300, "strata")
    rows = mixed_rows(frame, frame, frame, PEOPLE_KINDS)
    plain = np.bincount(singling_out.univariate(rows, draw(), 12).columns[:, 0], minlength=6)
    even = np.bincount(singling_out.univariate(rows, draw(), 12, stratify=True).columns[:, 0], minlength=6)
    available = np.bincount(singling_out.univariate(rows, draw(), 10**6).columns[:, 0], minlength=6)
    assert even.sum() == plain.sum() == 12
    assert (even == np.minimum(available, 3)).all() and plain[2] < 3


def test_same_generator_same_table_and_no_input_is_changed():
    tables = [people(120, side, 0.1) for side in "abc"]
    before = [table.copy(deep=True) for table in tables]
    first, second = (anonymity.attack_risk(*tables, generator=draw(), kinds=PEOPLE_KINDS) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    for table, copy in zip(tables, before):
        pd.testing.assert_frame_equal(table, copy)
    part = anonymity.attack_risk(*tables, generator=draw(), kinds=PEOPLE_KINDS, games=("linkability",))
    pd.testing.assert_series_equal(part.iloc[0], first.iloc[2], check_names=False)
    assert first["attacks"].iloc[-1] == first["attacks"].iloc[:-1].sum()
    assert first["risk"].iloc[-1] == pytest.approx(first["risk"].iloc[:-1].mean())


def test_text_that_spells_the_codes_is_the_same_category():
    original, control = people(100, "a"), people(100, "b")
    spelled = original.assign(postcode=original["postcode"].astype(str))
    found = [
        anonymity.singling_out(original, table, control, generator=draw(), columns=1, kinds=PEOPLE_KINDS).counts
        for table in (original, spelled)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("change", "message"), [
    ({"generator": 3}, "generator must be a numpy.random.Generator"),
    ({"attacks": 0}, "attacks must be an integer >= 1, got 0"),
    ({"attacks": 2.5}, "attacks must be an integer >= 1, got 2.5"),
    ({"confidence": 95}, r"confidence must lie in \(0, 1\), got 95"),
    ({"games": ("linking",)}, "games must be distinct names of"),
    ({"games": ()}, "games must be distinct names of"),
    ({"synthetic": TOY.drop(columns="job")}, "synthetic table lacks"),
    ({"control": TOY.rename(columns={"job": "work"})}, "control table lacks"),
    ({"original": TOY.iloc[:0]}, "the original table is empty"),
    ({"original": TOY.to_numpy()}, "original table must be a pandas DataFrame"),
    ({"kinds": {"age": "integer"}}, "kinds names no kind for the columns"),
    ({"synthetic": TOY.assign(age=np.inf)}, "column 'age' of the synthetic table holds 4 infinite"),
    ({"synthetic": TOY.assign(age="old")}, "column 'age' of the synthetic table is compared as a number"),
])
def test_bad_input_is_named(change, message):
    given = {"original": TOY, "synthetic": TOY, "control": OTHER, "generator": draw()} | change
    tables = [given.pop(side) for side in ("original", "synthetic", "control")]
    with pytest.raises((ValueError, TypeError), match=message):
        anonymity.attack_risk(*tables, **given)


@pytest.mark.parametrize(("game", "change", "message"), [
    ("singling_out", {"columns": 3}, "columns must be an integer >= 1 and <= 2, got 3"),
    ("singling_out", {"max_attempts": 0, "columns": 2}, "max_attempts must be an integer >= 1"),
    ("singling_out", {"columns": 2, "stratify": True}, "stratify applies to the univariate game"),
    ("linkability", {"views": (["age"], ["age", "job"])}, "views must be disjoint, both name"),
    ("linkability", {"views": (["age"], ["wage"])}, r"views\[1\] must be distinct columns"),
    ("linkability", {"views": "age"}, "views must be two lists of columns"),
    ("linkability", {"neighbours": 5}, "neighbours must be an integer >= 1 and <= 4, got 5"),
    ("attribute_inference", {"secrets": ["wage"]}, "secrets must be distinct columns"),
    ("attribute_inference", {"secrets": []}, "secrets must be distinct columns"),
    ("attribute_inference", {"tolerance": -1}, "tolerance must be a finite number >= 0"),
])
def test_bad_settings_are_named(game, change, message):
    with pytest.raises(ValueError, match=message):
        getattr(anonymity, game)(TOY, TOY, OTHER, generator=draw(), **change)


def test_a_single_column_can_only_be_singled_out():
    column = TOY[["age"]]
    for game in (anonymity.linkability, anonymity.attribute_inference, anonymity.attack_risk):
        with pytest.raises(ValueError, match="one column"):
            game(column, column, column, generator=draw())
    table = anonymity.attack_risk(column, column, column, generator=draw(), games=anonymity.GAMES[0])
    assert table["attacks"].tolist() == [6, 6]


def test_inference_shares_the_attacks_between_the_secrets():
    original, control = people(60, "a"), people(60, "b")
    rows = mixed_rows(original, original, control, PEOPLE_KINDS)
    counts = attribute_inference.play(rows, generator=draw(), attacks=60, secrets=np.arange(6), tolerance=0.0)
    assert counts.attacks == 60 and counts.successes >= 58
