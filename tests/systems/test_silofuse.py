"""SiloFuse end to end on small tables: who sees what, what is sent, what comes back, and in which order."""

import gc
import types
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.silos import Silo
from feddiff.diffusion.latent_diffusion import LatentDiffusion
from feddiff.diffusion.table_autoencoder import TableAutoencoder, fit_autoencoder, latents
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import silofuse
from feddiff.systems.silofuse_config import crossover, distributed_nbytes, stacked_nbytes
from feddiff.systems.silofuse_parties import COORDINATOR, Coordinator, SiloClient

KINDS = {"years": "integer", "bracket": "categorical", "member": "boolean", "height": "numeric", "score": "numeric"}
PARTS = (["years", "bracket"], ["member"], ["height", "score"])
TINY = dict(ae_steps=12, ae_batch=32, dm_width=16, dm_blocks=1, dm_steps=12, dm_batch=32, T=24, sample_steps=5)
CONFIG = silofuse.SiloFuseConfig(hidden=16, alarm=-1e9, **TINY)
FRAMING = 300


def table(n=120, seed=0):
    g = numpy_generator(seed, "table")
    a = g.normal(size=n)
    return pd.DataFrame({
        "years": np.round(40 + 10 * a).astype(np.int64),
        "bracket": np.where(a > 0.5, "upper", np.where(a < -0.5, "lower", "middle")),
        "member": g.random(n) < 0.5,
        "height": np.round(170 + 8 * g.normal(size=n), 1),
        "score": np.where(g.random(n) < 0.2, np.nan, a),
    })


def silos(frame=None, parts=PARTS, keys=None):
    frame = table() if frame is None else frame
    return [Silo(f"silo {i}", frame[part], {name: KINDS[name] for name in part}, keys) for i, part in enumerate(parts)]


def train(members=None, config=CONFIG, **options):
    return silofuse.train(silos() if members is None else members, config, progress=False, **options)


@pytest.fixture(scope="module")
def run():
    return train()


@pytest.fixture
def untrained(monkeypatch):
    """Trainings that do nothing, for tests of what happens around them."""
    monkeypatch.setattr(SiloClient, "fit", lambda self, **options: setattr(self, "fitted", True))
    monkeypatch.setattr(Coordinator, "fit", lambda self, **options: None)


def test_the_joined_output_has_the_shape_dtypes_and_labels_of_the_table(run):
    real, fake = table(), run.sample(37, seed=1)
    assert list(fake.columns) == list(real.columns) and len(fake) == 37
    assert fake.dtypes.to_dict() == real.dtypes.to_dict()
    assert set(fake["bracket"]) <= {"lower", "middle", "upper"}
    assert fake["years"].between(real["years"].min(), real["years"].max()).all()
    assert (fake["height"] == fake["height"].round(1)).all()
    assert list(fake.index) == list(range(37))
    pd.testing.assert_frame_equal(fake, run.sample(37, seed=1))
    assert not fake.equals(run.sample(37, seed=2))


def test_the_output_stays_partitioned_until_it_is_shared(run):
    parts = run.sample_parts(9, seed=4)
    assert [list(part.columns) for part in parts.values()] == [list(part) for part in PARTS]
    pd.testing.assert_frame_equal(pd.concat(list(parts.values()), axis=1), run.sample(9, seed=4))


def test_columns_come_in_the_order_that_is_asked_for(untrained):
    order = ["score", "bracket", "height", "member", "years"]
    assert list(train(columns=order).sample(3, seed=0).columns) == order
    with pytest.raises(ValueError, match="'age' does not fit"):
        train(columns=["age", *order])
    with pytest.raises(ValueError, match="'score' does not fit"):
        train(columns=["score", *order])


def test_generated_latents_are_those_that_the_silos_decode(run):
    z = run.generated(8, seed=3)
    assert {name: part.shape for name, part in z.items()} == {"silo 0": (8, 2), "silo 1": (8, 1), "silo 2": (8, 2)}
    parts = run.sample_parts(8, seed=3)
    for client in run.clients:
        pd.testing.assert_frame_equal(client.decode(z[client.name], seed=3), parts[client.name])


def reachable(root):
    """Return everything that can be reached from `root` through references, less modules, classes and globals."""
    seen, pending, found = set(), [root], []
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, (types.ModuleType, type)):
            continue
        seen.add(id(thing))
        found.append(thing)
        if isinstance(thing, types.FunctionType):
            pending += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        elif isinstance(thing, np.ndarray):
            pending += [thing.base, *(thing.ravel().tolist() if thing.dtype == object else ())]
        elif isinstance(thing, (pd.DataFrame, pd.Series, pd.Index)):
            pending += [thing.to_numpy(), getattr(thing, "columns", None), getattr(thing, "attrs", None)]
        else:
            pending += gc.get_referents(thing)
        if isinstance(thing, torch.Tensor):
            pending += [thing.grad_fn, thing._base]
    return found


def secrets_within(root, run):
    """Return what `root` holds of the silos: objects, weights, encoded numbers, column names, labels (or copies)."""
    private = (SiloClient, Silo, TableAutoencoder, TableCodec)
    weights = [value for client in run.clients for value in client.model.state_dict().values()]
    weights = [w for w in weights if w.numel() > 3 and w.abs().sum() > 0]
    clean = {round(float(v), 6) for client in run.clients for v in client.numbers.flatten()}
    words = {*KINDS, "lower", "middle", "upper"}
    leaks = []
    for thing in reachable(root):
        if isinstance(thing, private) or (isinstance(thing, str) and thing in words):
            leaks.append(thing)
        if isinstance(thing, torch.Tensor) or (isinstance(thing, np.ndarray) and thing.dtype.kind == "f"):
            values = torch.as_tensor(thing).detach()
            same = any(values.shape == w.shape and torch.equal(values, w.to(values.dtype)) for w in weights)
            shown = {round(float(v), 6) for v in values.flatten()} if values.is_floating_point() else set()
            if same or len(shown & clean) > 20:
                leaks.append(thing)
    return leaks


def test_the_coordinator_holds_latents_and_nothing_else_of_the_silos(run):
    found = reachable(run.coordinator)
    assert any(thing is run.coordinator.model for thing in found)
    assert any(isinstance(thing, np.ndarray) and thing.shape == (120, 2) for thing in found)
    assert secrets_within(run.coordinator, run) == []


@pytest.mark.parametrize("planted", ["client", "model", "weights", "codec", "numbers", "frame", "labels", "closure"])
def test_the_walk_finds_what_is_planted(planted, untrained):
    run = train()
    client = run.clients[2 if planted == "numbers" else 0]
    run.coordinator.extra = {
        "client": lambda: [client], "model": lambda: {"a": client.model}, "closure": lambda: (lambda: client),
        "weights": lambda: client.model.state_dict()["encoder.0.weight"].clone(), "codec": lambda: (client.codec,),
        "numbers": lambda: client.numbers.numpy().copy(), "frame": lambda: table()[["years"]],
        "labels": lambda: table()["bracket"].to_numpy(dtype=object),
    }[planted]()
    assert secrets_within(run.coordinator, run)


def test_one_round_and_one_message_a_silo_and_bytes_as_the_closed_form_says(run):
    kinds = [(m.sender, m.receiver, m.kind, m.round) for m in run.channel.log if m.kind != "latents"]
    assert kinds == [(f"silo {i}", COORDINATOR, "upload", 0) for i in range(3)]
    assert run.rounds == 1 and run.width == 5 and run.rows == 120
    overhead = run.channel.nbytes(kind="upload") - stacked_nbytes(run.rows, run.width)
    assert 0 < overhead <= 3 * FRAMING
    before = run.nbytes
    run.sample(50, seed=0)
    down = [m for m in run.channel.log if m.kind == "latents"][-3:]
    assert [(m.sender, m.receiver) for m in down] == [(COORDINATOR, f"silo {i}") for i in range(3)]
    assert 0 < run.nbytes - before - (stacked_nbytes(0, 5, synthetic=50)) <= 3 * FRAMING


@pytest.mark.parametrize("changes", [dict(ae_steps=1, dm_steps=1), dict(ae_steps=40, dm_steps=90), dict(dm_width=64)])
def test_bytes_do_not_depend_on_training(changes, run, untrained):
    assert train(config=replace(CONFIG, **changes)).nbytes == run.channel.nbytes(kind="upload")


def test_bytes_grow_with_rows_and_width(untrained):
    def sent(rows, **changes):
        return train(silos(table(rows)), replace(CONFIG, **changes)).nbytes

    assert sent(1120) - sent(120) == pytest.approx(4 * 1000 * 5, abs=20)
    assert sent(120, latent=10) - sent(120, latent=2) == pytest.approx(4 * 120 * 8 * 3, abs=20)


def test_closed_forms_of_the_communication():
    # Loan of silofuse.md 7.2: N = 4000 rows of the training part x 13 floats, and 16 B s a joint step
    assert stacked_nbytes(5000, 13) == 260_000 and stacked_nbytes(5000, 13, synthetic=5000) == 520_000
    assert distributed_nbytes(512, 13, 500_000) == 16 * 512 * 13 * 500_000
    assert crossover(5000, 512) == pytest.approx(2.44, abs=0.005)
    at = crossover(5000, 512)
    assert stacked_nbytes(5000, 13) == pytest.approx(distributed_nbytes(512, 13, 1) * at)


def test_a_second_upload_is_refused(run):
    with pytest.raises(RuntimeError, match="silo 0 has uploaded in round 0 already"):
        run.clients[0].upload()
    with pytest.raises(ValueError, match="silo 0 has uploaded in round 0 already"):
        run.coordinator.receive("silo 0", {"z": np.zeros((120, 2), dtype=np.float32)})
    fresh = silofuse.parties(silos(), CONFIG)
    with pytest.raises(RuntimeError, match="not trained"):
        fresh.clients[0].upload()


def test_the_coordinator_refuses_latents_that_do_not_fit():
    coordinator = Coordinator(CONFIG)
    z = np.zeros((4, 2), dtype=np.float32)
    coordinator.receive("silo 0", {"z": z})
    for wrong, what in ((z[:3], "sent 3 rows of latents, the other silos 4"), (z.astype(np.float64), "must be float32"),
                        (np.full_like(z, np.nan), "not finite")):
        with pytest.raises(ValueError, match=what):
            coordinator.receive("silo 1", {"z": wrong})
    with pytest.raises(ValueError, match="no latents yet"):
        Coordinator(CONFIG).fit()


def test_latents_are_standardised_unless_the_configuration_says_no(run):
    for z in run.latents.values():
        assert z.dtype == np.float32
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)
    raw = train(config=replace(CONFIG, standardise=False)).latents["silo 2"]
    assert np.abs(raw.std(axis=0) - 1).max() > 0.05
    z = run.latents["silo 2"]
    for place in range(2):
        assert abs(np.corrcoef(raw[:, place], z[:, place])[0, 1]) > 1 - 1e-4


def test_one_silo_is_latent_diffusion_put_together_by_hand():
    frame, name = table(), "silo 0"
    run = train(silos(frame, [list(KINDS)]))
    codec = TableCodec.fit(frame, KINDS, numerics=CONFIG.numerics)
    rows = codec.encode(frame, numpy_generator(0, "ranks", name))
    model = TableAutoencoder(codec.levels, 3, latent=5, hidden=16, generator=torch_generator(0, "init", name))
    fit_autoencoder(model, rows.codes, rows.numbers, CONFIG.autoencoder_training(0), seed=0, name=name, progress=False)
    z = latents(model, rows.codes, rows.numbers)
    options = dict(width=16, blocks=1, T=24, generator=torch_generator(0, "init", COORDINATOR))
    backbone = LatentDiffusion(5, **options)
    backbone.fit(z, CONFIG.diffusion_training(0), seed=0, name=COORDINATOR, progress=False)
    np.testing.assert_array_equal(run.latents[name], z.numpy())
    drawn = backbone.sample(11, torch_generator(7, "sampling", COORDINATOR), steps=5, known_noise=1.0)
    decoder = torch_generator(7, "sampling", "decoder", name)
    codes, numbers = model.draw(drawn, decoder, categories=CONFIG.categories, numbers=CONFIG.numbers)
    expected = codec.decode(Encoded(codes.numpy(), numbers.numpy()))
    pd.testing.assert_frame_equal(run.sample(11, seed=7), expected)


def test_permuting_the_silos_permutes_the_columns_of_the_output_only(run):
    shuffled = [silos()[i] for i in (2, 0, 1)]
    other, fake = train(shuffled), run.sample(20, seed=5)
    found = other.sample(20, seed=5)
    assert list(found.columns) == [*PARTS[2], *PARTS[0], *PARTS[1]]
    pd.testing.assert_frame_equal(found[list(fake.columns)], fake)
    assert other.nbytes == run.nbytes - run.channel.nbytes(kind="latents") + other.channel.nbytes(kind="latents")


def test_rows_are_aligned_by_key_before_anything_else(run):
    keys, g = np.arange(120) + 1000, np.random.default_rng(0)
    mixed = [one if i == 0 else one.select(g.permutation(120)) for i, one in enumerate(silos(keys=keys))]
    pd.testing.assert_frame_equal(train(mixed).sample(15, seed=2), run.sample(15, seed=2))
    with pytest.raises(ValueError, match="silo 1 lacks 1 keys"):
        train([mixed[0], mixed[1].select(np.arange(119)), mixed[2]])
    with pytest.raises(ValueError, match="silo 1 has 119 rows"):
        train([silos()[0], silos()[1].select(np.arange(119))])
    with pytest.raises(ValueError, match="the name of the other party"):
        train([replace(silos()[0], name=COORDINATOR)])


def test_a_run_survives_its_state(run):
    again = silofuse.from_state(run.to_state(), silos(), CONFIG)
    pd.testing.assert_frame_equal(again.reconstruction(), run.reconstruction())
    for name, z in run.latents.items():
        np.testing.assert_array_equal(again.latents[name], z)
    assert again.channel.log == run.channel.log and again.rounds == 1
    pd.testing.assert_frame_equal(again.sample(20, seed=5), run.sample(20, seed=5))
    assert secrets_within(again.coordinator, again) == []
    pd.testing.assert_frame_equal(again.history, run.history)


def test_reconstruction_names_silo_column_and_kind_and_scores_other_rows(run):
    scores = run.reconstruction()
    assert list(scores.columns) == ["silo", "column", "kind", "score"]
    assert list(zip(scores["silo"], scores["column"], scores["kind"])) == [
        ("silo 0", "bracket", "categorical"), ("silo 0", "years", "numeric"), ("silo 1", "member", "categorical"),
        ("silo 2", "score is missing", "categorical"), ("silo 2", "height", "numeric"), ("silo 2", "score", "numeric"),
    ]
    held_out = run.reconstruction(silos(table(60, seed=1)))
    assert len(held_out) == 6 and not held_out["score"].equals(scores["score"])
    with pytest.raises(ValueError, match="rows of silo 2 are not given"):
        run.reconstruction(silos()[:2])


def test_poor_reconstruction_raises_the_alarm():
    with pytest.warns(UserWarning, match=r"autoencoders reproduce \d of 6 columns below 0.99 .*'years'"):
        train(config=replace(CONFIG, alarm=0.99))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()


def test_a_run_from_a_cache_raises_the_alarm_too(run):
    strict, state = replace(CONFIG, alarm=0.99), run.to_state()
    with pytest.warns(UserWarning, match=r"autoencoders reproduce \d of 6 columns below 0.99 .*'years'"):
        again = silofuse.from_state(state, silos(), strict)
    pd.testing.assert_frame_equal(again.sample(9, seed=0), run.sample(9, seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silofuse.from_state(state, silos(), CONFIG)


def test_a_silo_with_one_constant_column_is_reproduced():
    frame = table().assign(member=True, height=3.5)
    run = train(silos(frame, (["years"], ["member"], ["height"])))
    fake = run.sample(30, seed=0)
    assert fake["member"].all() and (fake["height"] == 3.5).all()
    # a constant category has one level, so its latent is constant and keeps scale 1
    assert np.abs(run.latents["silo 1"]).max() < 1e-4
    assert all(np.isfinite(z).all() for z in run.latents.values())


def test_a_category_that_was_not_in_training():
    unseen = table(40, seed=1).assign(bracket="none of these")
    run = train()
    with pytest.raises(ValueError, match="silo 0: column 'bracket': the value 'none of these'"):
        run.reconstruction(silos(unseen))
    lenient = train(config=replace(CONFIG, unseen="other"))
    assert np.isfinite(lenient.reconstruction(silos(unseen))["score"]).all()
    fake = lenient.sample(40, seed=0)
    assert set(fake["bracket"]) <= {"lower", "middle", "upper", "other"}


def test_columns_that_nothing_can_be_learnt_from_are_refused_by_silo_and_name():
    for value, what in ((np.nan, "silo 2: column 'height': every value is missing"),
                        (np.inf, "silo 2: column 'height': holds infinite values")):
        with pytest.raises(ValueError, match=what):
            train(silos(table().assign(height=value)))


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_silo():
    with pytest.raises(FloatingPointError, match="silo 0: the loss is not finite at step"):
        train(config=replace(CONFIG, ae_lr=1e30))


def test_extra_rounds_are_declared_and_share_the_budget(run):
    config = replace(CONFIG, alternations=2)
    more = train(config=config)
    kinds = [(m.kind, m.round) for m in more.channel.log]
    assert kinds == [*[("upload", 0)] * 3, *[("denoised", 0)] * 3, *[("upload", 1)] * 3, *[("denoised", 1)] * 3,
                     *[("upload", 2)] * 3]
    assert more.rounds == 3 and 0 < more.nbytes - stacked_nbytes(120, 5, rounds=3) <= 15 * FRAMING
    assert [config.autoencoder_training(r).steps for r in range(3)] == [4, 4, 4]
    assert more.history.groupby("model")["step"].sum().to_dict() == {
        "coordinator": 12, "silo 0": 12, "silo 1": 12, "silo 2": 12,
    }
    for z in more.latents.values():
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)
    again = silofuse.from_state(more.to_state(), silos(), config)
    pd.testing.assert_frame_equal(again.sample(9, seed=0), more.sample(9, seed=0))
    assert secrets_within(more.coordinator, more) == []


@pytest.mark.parametrize("changes", [
    dict(variant="vae"), dict(variant="denoising"), dict(prediction="v"), dict(prediction="x0", schedule="linear"),
    dict(categories="mode", numbers="sample"), dict(numerics="standard"), dict(dropout=0.1, latent="budget"),
])
def test_every_option_runs_and_changes_the_output(changes, run):
    fake = train(config=replace(CONFIG, **changes)).sample(30, seed=0)
    assert fake.dtypes.to_dict() == table().dtypes.to_dict() and not fake.equals(run.sample(30, seed=0))


def test_the_coordinator_learns_what_columns_of_different_silos_have_in_common():
    g = numpy_generator(0, "dependent")
    a = g.normal(size=600)
    frame = pd.DataFrame({"height": a, "score": a + 0.2 * g.normal(size=600)})
    config = replace(CONFIG, hidden=32, ae_steps=120, dm_width=64, dm_steps=300, dm_batch=128, T=50,
                     sample_steps=25, alarm=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = train(silos(frame, (["height"], ["score"])), config)
    fake = run.sample(600, seed=0)
    real = np.corrcoef(frame["height"], frame["score"])[0, 1]
    assert np.corrcoef(fake["height"], fake["score"])[0, 1] == pytest.approx(real, abs=0.12)


@pytest.mark.parametrize(("variance", "known_noise"), [("beta", 1.0), ("posterior", 0.0)])
def test_the_variance_of_the_reverse_steps_is_the_one_asked_for(variance, known_noise, run):
    other = silofuse.from_state(run.to_state(), silos(), replace(CONFIG, variance=variance))
    z = run.coordinator.model.sample(
        50, torch_generator(3, "sampling", COORDINATOR), steps=CONFIG.sample_steps, known_noise=known_noise
    )
    drawn = np.concatenate(list(other.generated(50, seed=3).values()), axis=1)
    np.testing.assert_array_equal(drawn, z.numpy())
