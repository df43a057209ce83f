"""Association: brute-force oracles, known dependence, what must rank below what, invariances, refusals, speed."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association as scipy_association

from feddiff.evaluation import association as module
from feddiff.evaluation.association import association, association_error, mixed_association, part_of_column

PARTS = [["number", "letter"], ["follows", "group", "flag"]]
KINDS = {"number": "numeric", "letter": "categorical", "follows": "numeric", "group": "categorical", "flag": "boolean"}


def mixed(rows, seed):
    g = np.random.default_rng(seed)
    frame = pd.DataFrame({"number": g.normal(size=rows), "letter": g.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])})
    frame["follows"] = frame["number"] + 0.5 * g.normal(size=rows) + (frame["letter"] == "a")
    frame["group"] = np.where(frame["number"] > 0.3, "high", frame["letter"])
    frame["flag"] = (frame["letter"] == "b") ^ (g.random(rows) < 0.1)
    return frame


def holes(rows, seed):
    frame, g = mixed(rows, seed), np.random.default_rng(seed + 100)
    for name in ("number", "letter", "group"):
        frame.loc[g.random(rows) < 0.1, name] = None
    return frame


def shuffled(frame, seed, together=()):
    """Return the columns permuted apart, those of one group of `together` in the same way."""
    g = np.random.default_rng(seed)
    groups = [list(group) for group in together] or [[name] for name in frame.columns]
    parts = [frame[group].iloc[g.permutation(len(frame))].reset_index(drop=True) for group in groups]
    return pd.concat(parts, axis=1)[list(frame.columns)]


def brute_v(first, second, corrected):
    table = pd.crosstab(first, second).to_numpy(dtype=float)
    rows, (r, c) = table.sum(), table.shape
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / rows
    squared, smaller = ((table - expected) ** 2 / expected).sum() / rows, min(r, c) - 1
    if corrected:
        squared = max(0.0, squared - (r - 1) * (c - 1) / (rows - 1))
        smaller = min(k - (k - 1) ** 2 / (rows - 1) for k in (r, c)) - 1
    return np.sqrt(squared / smaller)


def brute_u(first, second):
    """Theil's U(first | second) from its definition, by loops over the levels."""
    def entropy(values):
        return -sum((values == level).mean() * np.log((values == level).mean()) for level in set(values))

    first, second = np.asarray(first), np.asarray(second)
    given = sum((second == level).mean() * entropy(first[second == level]) for level in set(second))
    return (entropy(first) - given) / entropy(first)


@pytest.mark.parametrize("corrected", [False, True])
def test_cramers_v_by_brute_force_and_by_scipy(corrected):
    frame = holes(500, 0)
    found = association(frame, kinds=KINDS, corrected=corrected)
    cut = frame.assign(**{
        name: pd.cut(frame[name], [-np.inf, *np.nanquantile(frame[name], np.arange(1, 10) / 10), np.inf]).astype(str)
        for name in ("number", "follows")
    }).fillna("missing").astype(str)
    for one in frame:
        for two in frame:
            expected = 1.0 if one == two else brute_v(cut[one], cut[two], corrected)
            assert found.loc[one, two] == pytest.approx(expected, abs=1e-12), (one, two)
    if not corrected:
        table = pd.crosstab(cut["letter"], cut["number"]).to_numpy()
        assert found.loc["letter", "number"] == pytest.approx(scipy_association(table, method="cramer"), abs=1e-12)


def test_mixed_association_by_brute_force():
    frame = holes(400, 1)
    found = mixed_association(frame, kinds=KINDS)
    discrete = frame[["letter", "group", "flag"]]
    filled = discrete.astype(str).where(discrete.notna(), "missing")
    for one in filled:
        for two in filled:
            assert found.loc[one, two] == pytest.approx(brute_u(filled[one], filled[two]), abs=1e-12), (one, two)
        for name in ("number", "follows"):
            known = frame[name].notna()
            values = frame.loc[known, name]
            groups = values.groupby(filled.loc[known, one])
            between = (groups.size() * (groups.mean() - values.mean()) ** 2).sum()
            eta = np.sqrt(between / ((values - values.mean()) ** 2).sum())
            assert found.loc[one, name] == pytest.approx(eta, abs=1e-12)
            assert found.loc[name, one] == found.loc[one, name]
    both = frame["number"].notna()
    expected = np.corrcoef(frame.loc[both, "number"], frame.loc[both, "follows"])[0, 1]
    assert found.loc["number", "follows"] == pytest.approx(expected, abs=1e-12)


def test_theils_u_has_a_direction():
    frame = pd.DataFrame({"fine": list("abcd") * 25, "coarse": list("xxyy") * 25, "other": list("p" * 48 + "q" * 52)})
    found = mixed_association(frame)
    assert found.loc["coarse", "fine"] == pytest.approx(1) and found.loc["fine", "coarse"] == pytest.approx(0.5)
    assert found.loc["other", "coarse"] == pytest.approx(0, abs=1e-9)


def test_a_function_has_association_one_and_a_constant_none():
    g = np.random.default_rng(2)
    frame = pd.DataFrame({"x": g.normal(size=300), "c": g.integers(0, 4, 300)})
    frame["monotone"], frame["copy"], frame["same"] = np.exp(frame["x"]), frame["c"] * 2, 7.0
    kinds = {"x": "numeric", "c": "categorical", "monotone": "numeric", "copy": "categorical", "same": "numeric"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for corrected in (False, True):
            found = association(frame, kinds=kinds, corrected=corrected)
            assert found.loc["x", "monotone"] == pytest.approx(1) and found.loc["c", "copy"] == pytest.approx(1)
            assert (found.loc["same"].drop("same") == 0).all() and (np.diag(found) == 1).all()
        assert (mixed_association(frame, kinds=kinds).loc["same"].drop("same") == 0).all()
        identifiers = pd.DataFrame({"id": [str(i) for i in range(50)], "c": list("ab") * 25})
        assert association(identifiers).loc["id", "c"] == 0
        assert association(identifiers, corrected=False).iloc[0, 1] == 1


def test_the_correction_takes_the_bias_of_many_levels():
    g = np.random.default_rng(3)
    frame = pd.DataFrame({"a": g.integers(0, 10, 400).astype(str), "b": g.integers(0, 10, 400).astype(str)})
    plain, corrected = (association(frame, corrected=flag).loc["a", "b"] for flag in (False, True))
    # Independent: E[chi2] is 81, so the plain V is near sqrt(81 / 400 / 9).
    assert 0.11 < plain < 0.19 and corrected < 0.08


def test_edges_are_those_of_the_reference():
    real = pd.DataFrame({"x": np.arange(100.0), "c": ["a", "b"] * 50})
    far = pd.DataFrame({"x": np.arange(1000.0, 1100.0), "c": ["a"] * 50 + ["b"] * 50})
    assert association(far, corrected=False).loc["x", "c"] == pytest.approx(1)
    assert association(far, reference=real).loc["x", "c"] == 0
    codes, other, levels = module.binned(real, far)
    assert np.bincount(codes[:, 0]).tolist() == [10] * 10 and (other[:, 0] == 9).all() and levels[0] == 11


def test_ties_at_the_minimum_are_a_bin():
    frame = pd.DataFrame({"x": [0.0] * 60 + list(range(1, 41)), "zero": ["yes"] * 60 + ["no"] * 40})
    assert association(frame, corrected=False).loc["x", "zero"] == pytest.approx(1)


def test_errors_rank_copies_held_out_rows_and_independence():
    real, held = mixed(2000, 4), mixed(2000, 5)
    silos, columns = shuffled(real, 6, PARTS), shuffled(real, 7)
    found = {name: association_error(real, frame, parts=PARTS, kinds=KINDS) for name, frame in
             (("copy", real), ("held", held), ("silos", silos), ("columns", columns))}
    assert found["copy"].within == found["copy"].across == found["copy"].overall == 0
    assert found["silos"].within == pytest.approx(0, abs=1e-12)
    truth = association(real, kinds=KINDS)
    pairs = found["silos"].pairs
    strength = np.mean([truth.loc[one, two] for one in PARTS[0] for two in PARTS[1]])
    # Independent parts lose the whole association across, up to chance.
    assert found["silos"].across == pytest.approx(strength, abs=0.02)
    assert found["columns"].across == pytest.approx(strength, abs=0.02)
    assert found["held"].across < 0.03 < 0.1 < found["silos"].across
    assert found["held"].within < 0.03 < 0.1 < found["columns"].within
    assert len(pairs) == 10 and pairs["across"].sum() == 6
    assert pairs["error"].mean() == pytest.approx(found["silos"].overall)
    assert (pairs["error"] == (pairs["real"] - pairs["synthetic"]).abs()).all()
    assert (pairs.loc[pairs["across"], "part_1"] != pairs.loc[pairs["across"], "part_2"]).all()


def test_association_separates_where_contingency_similarity_does_not():
    # The trap of settings.md: weak dependence, many cells, and a held-out sample of fewer rows.
    from feddiff.evaluation.fidelity import pair_trends_quantile

    def weak(rows, seed):
        g = np.random.default_rng(seed)
        x = g.normal(size=rows)
        return pd.DataFrame({"a": x, "b": 0.25 * x + g.normal(size=rows), "c": 0.25 * x + g.normal(size=rows)})

    real, held, parts = weak(4000, 8), weak(1000, 9), [["a"], ["b"], ["c"]]
    independent = shuffled(real, 10)
    assert pair_trends_quantile(real, independent) > pair_trends_quantile(real, held)
    errors = [association_error(real, frame, parts=parts).across for frame in (held, independent)]
    assert 1.5 * errors[0] < errors[1]


def test_order_of_rows_columns_and_types_do_not_matter_and_inputs_stay():
    real, synthetic = holes(300, 11), holes(250, 12)
    before = real.copy(), synthetic.copy()
    one = association_error(real, synthetic, parts=PARTS, kinds=KINDS)
    other = association_error(real.sample(frac=1, random_state=1), synthetic.iloc[::-1, ::-1], parts=PARTS[::-1],
                              kinds=KINDS)
    assert one.within == pytest.approx(other.within, abs=1e-12) and one.across == pytest.approx(other.across, abs=1e-12)
    pd.testing.assert_frame_equal(real, before[0])
    pd.testing.assert_frame_equal(synthetic, before[1])
    coded = real.assign(flag=real["flag"].astype(int))
    assert association_error(coded, real.assign(flag=real["flag"].astype(int).astype(str)), parts=PARTS,
                             kinds=KINDS | {"flag": "categorical"}).overall == 0


def test_counting_in_chunks_changes_nothing(monkeypatch):
    frame = holes(500, 13)
    whole = association(frame, kinds=KINDS)
    monkeypatch.setattr(module, "CHUNK", 77)
    pd.testing.assert_frame_equal(association(frame, kinds=KINDS), whole)


def test_one_part_and_one_column_a_part_leave_a_side_undefined():
    real, other = mixed(100, 14), mixed(100, 15)
    assert np.isnan(association_error(real, other, parts=[list(real.columns)], kinds=KINDS).across)
    assert np.isnan(association_error(real, other, parts=[[name] for name in real], kinds=KINDS).within)


@pytest.mark.parametrize(("parts", "named"), [
    ([["number", "letter"], ["follows", "group"]], r"\['flag'\] are in no part"),
    ([*PARTS, ["flag"]], r"\['flag'\] in two"),
    ([*PARTS, ["ghost"]], r"\['ghost'\] are no columns"),
    (["number", "letter"], "list of lists"),
])
def test_parts_must_hold_every_column_once(parts, named):
    with pytest.raises(ValueError, match=named):
        part_of_column(mixed(20, 16), parts)


def test_bad_tables_are_refused():
    frame = mixed(30, 17)
    with pytest.raises(ValueError, match="bins must be"):
        association(frame, bins=1)
    with pytest.raises(ValueError, match="same columns"):
        association_error(frame, frame.drop(columns="flag"), parts=PARTS)
    with pytest.raises(ValueError, match="at least two columns"):
        association_error(frame[["flag"]], frame[["flag"]], parts=[["flag"]])
    with pytest.raises(ValueError, match="infinite"):
        association(frame.assign(number=np.inf))


def test_fifty_five_columns_of_twenty_thousand_rows_take_seconds():
    g = np.random.default_rng(18)
    frame = pd.DataFrame({f"c{i}": g.integers(0, 2, 20_000) if i < 44 else g.normal(size=20_000) for i in range(55)})
    kinds = {name: "categorical" if i < 44 else "numeric" for i, name in enumerate(frame)}
    start = time.process_time()
    association(frame, kinds=kinds)
    assert time.process_time() - start < 5
