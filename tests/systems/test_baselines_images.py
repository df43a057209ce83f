"""Baselines on pictures: equal budgets, what each is trained on, what each spends and states, bad input."""

import math
from dataclasses import replace

import pytest
import torch

from feddiff.federation.client import flat_weights
from feddiff.privacy import accounting
from feddiff.seeds import torch_generator
from feddiff.systems import baselines_images as baselines
from feddiff.systems import pfdm
from feddiff.systems.baselines_images import RoundsConfig
from feddiff.systems.image_clients import ImageClient
from feddiff.systems.image_denoisers import Denoiser, denoiser
from feddiff.systems.image_federation import ImageMember, NoisyMember

CONFIG = pfdm.cvpr(
    C=4.0, T=50, beta_1=0.002, beta_T=0.3, t0=20, images=32, batch=8, warmup=1, ema=0.5, network="tiny"
)
ROUNDS = RoundsConfig(R=2, B=8, ema=0.5, move_norm=1e-3)


def pictures(n, classes=3, stream="pictures"):
    labels = torch.arange(n) % classes
    return torch.rand(n, 1, 8, 8, generator=torch_generator(0, stream)) * 2 - 1, labels


def clients():
    return [pictures(30, stream="one"), pictures(21, stream="two")]


def build(name, config=CONFIG, rounds=ROUNDS, members=None):
    members = clients() if members is None else members
    return {
        "centralised": lambda: baselines.centralised(members, config, progress=False),
        "local": lambda: baselines.local_only(members, config, progress=False),
        "fedavg": lambda: baselines.fedavg(members, config, rounds, progress=False),
        "dp local": lambda: baselines.dp_sgd(members, config, rounds, epsilon=5.0, federated=False, progress=False),
        "dp federated": lambda: baselines.dp_sgd(members, config, rounds, epsilon=5.0, federated=True, progress=False),
        "fedavg dp": lambda: baselines.fedavg_dp(members, config, rounds, epsilon=5.0, progress=False),
    }[name]()


NAMES = ("centralised", "local", "fedavg", "dp local", "dp federated", "fedavg dp")


@pytest.fixture(scope="module")
def trained():
    """Every baseline, trained once."""
    return {name: build(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_samples_repeat_with_the_seed_and_every_model_had_the_same_budget(trained, name):
    model = trained[name]
    x = model.sample([0, 1, 2], seed=1, client=1, steps=3)
    assert x.shape == (3, 1, 8, 8) and x.dtype == torch.float32 and float(x.abs().max()) <= 1
    assert torch.equal(x, model.sample([0, 1, 2], seed=1, client="client-1", steps=3))
    assert not torch.equal(x, model.sample([0, 1, 2], seed=2, client=1, steps=3))
    assert set(model.budget.values()) == {32}
    assert set(model.history["model"]) == set(model.budget) and model.history["loss"].map(math.isfinite).all()


@pytest.mark.parametrize("name", NAMES)
def test_saved_state_gives_back_the_baseline(trained, name):
    model = trained[name]
    again = baselines.from_state(model.to_state(), clients(), CONFIG)
    assert torch.equal(again.sample([0, 2], seed=3, client=0, steps=3), model.sample([0, 2], seed=3, client=0, steps=3))
    assert (again.privacy, again.budget, again.nbytes, again.name) == (
        model.privacy, model.budget, model.nbytes, model.name
    )
    assert again.history.equals(model.history)


@pytest.mark.parametrize("name", ["local", "dp federated", "fedavg dp"])
def test_training_repeats_with_the_seed_and_another_seed_differs(trained, name):
    def weights(model):
        return torch.cat([flat_weights(part.network) for part in model.models.values()])

    assert torch.equal(weights(build(name)), weights(trained[name]))
    assert not torch.equal(weights(build(name, replace(CONFIG, seed=1))), weights(trained[name]))


@pytest.mark.parametrize(("name", "epsilon", "unit"), [
    ("centralised", math.inf, "image"), ("local", math.inf, "image"), ("fedavg", math.inf, "image"),
    ("dp local", 5.0, "image"), ("dp federated", 5.0, "image"), ("fedavg dp", 5.0, "client"),
])
def test_statements_name_unit_and_meet_their_target(trained, name, epsilon, unit):
    statement = trained[name].privacy
    assert statement["unit"] == unit and set(statement["clients"]) == {"client-0", "client-1"}
    if epsilon == math.inf:
        assert statement["epsilon"] == math.inf
    else:
        assert 0.98 * epsilon < statement["epsilon"] <= epsilon
        assert any("history" in what for what in statement["outside"])


def test_each_client_of_dp_sgd_is_calibrated_on_its_own_rate_and_the_whole_horizon(trained):
    for name, steps in (("dp federated", 2), ("dp local", 4)):
        for client, rows in (("client-0", 30), ("client-1", 21)):
            event = trained[name].privacy["clients"][client]["events"][0]
            assert (event["sample_rate"], event["steps"]) == (8 / rows, steps)
            spent = accounting.epsilon(sample_rate=8 / rows, noise_multiplier=event["noise"], steps=steps, delta=1e-5)
            assert 4.9 < spent <= 5.0
    assert len(trained["dp local"].privacy["clients"]["client-0"]["events"]) == 1


def test_noised_moves_compose_over_rounds_with_twice_the_bound_as_sensitivity(trained):
    statement = trained["fedavg dp"].privacy
    event = statement["clients"]["client-0"]["events"][0]
    assert statement["adjacency"] == "replace-one" and (event["sample_rate"], event["steps"]) == (1.0, 2)
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=event["noise"] / (2 * math.sqrt(2)), delta=1e-5)
    assert statement["epsilon"] == pytest.approx(exact, rel=1e-9) and statement["model"].startswith("local")


def member(kind=ImageMember, rounds=ROUNDS, config=CONFIG, **options):
    client = ImageClient(*pictures(30), name="client-0")
    model = denoiser("fedavg", config, (1, 8, 8), 3)
    return kind(model, client, rounds, total_steps=4, **options)


def test_a_noised_move_is_the_clipped_move_plus_fresh_noise_of_the_stated_size():
    plain = member()
    start = flat_weights(plain.network)
    move = plain.update(start, 1)[0] - start
    bound = float(move.norm()) / 2
    noisy = member(NoisyMember, move_norm=bound, move_noise=0.5)
    first = noisy.update(start, 1)[0] - start - move / 2
    assert float(first.std()) == pytest.approx(0.5 * bound, rel=0.02)
    assert abs(float(first.mean())) < 4 * 0.5 * bound / math.sqrt(len(first))
    loose = member(NoisyMember, move_norm=10 * bound, move_noise=0.0)
    assert torch.equal(loose.update(start, 1)[0], start + (move + start - start))
    assert member(NoisyMember, move_norm=bound, move_noise=0.0).update(start, 1)[1]["clipped"] == 1.0


def test_noise_multiplicity_draws_K_times_a_picture_and_one_gradient_a_picture():
    drawn = []
    for K in (1, 4):
        party = member(rounds=replace(ROUNDS, K=K), noise_multiplier=0.0)
        seen = []
        party.network.register_forward_pre_hook(
            lambda module, args, options, seen=seen: seen.append((len(args[0]), args[1])), with_kwargs=True
        )
        loss = party.draws(torch.arange(10), party.generators["draws"])
        report = party.step.gradient(loss, 10)
        assert report.norms.shape == (10,) and [n for n, _ in seen] == [10 * K]
        assert seen[0][1].max() < 50
        drawn.append(float(report.losses.var()))
    # averaging over draws makes the loss of a picture less random
    assert drawn[1] < 0.6 * drawn[0]


def test_private_gradients_do_not_depend_on_microbatches():
    def updated(microbatch):
        party = member(rounds=replace(ROUNDS, K=2, microbatch=microbatch), noise_multiplier=1.0)
        return party.update(flat_weights(party.network), 2)[0]

    assert torch.allclose(updated(None), updated(3), atol=1e-5)


def test_fedavg_averages_by_pictures_and_counts_bytes_both_ways(trained):
    model = trained["fedavg"]
    parameters = sum(p.numel() for p in model.models["shared"].network.parameters())
    assert 8 * 4 * parameters < model.nbytes < 8 * 4 * parameters + 8 * 1000
    assert list(model.history["round"]) == [0, 1] and trained["local"].nbytes == 0
    # one round: the mean of what the clients send, weighted by their pictures
    one = replace(ROUNDS, R=1, B=16, ema=0.0)
    shared = baselines.fedavg(clients(), CONFIG, one, progress=False).models["shared"]
    assert one.horizon(32, 2) == (1, 1)
    start = denoiser("fedavg", CONFIG, (1, 8, 8), 3)
    sent = []
    for k, (images, labels) in enumerate(clients()):
        party = ImageMember(baselines._copy(start), ImageClient(images, labels, f"client-{k}"), one, total_steps=1)
        sent.append(party.update(flat_weights(start.network), 1)[0])
    expected = (30 * sent[0] + 21 * sent[1]) / 51
    assert torch.allclose(flat_weights(shared.network), expected, atol=1e-6)
    assert not torch.allclose(sent[0], sent[1], atol=1e-6)


@pytest.mark.parametrize(("images", "clients_", "rounds", "expected"), [
    (60_000, 2, RoundsConfig(R=50, B=64), (53, 9)), (32, 2, RoundsConfig(R=2, B=8), (2, 1)),
    (100, 1, RoundsConfig(R=50, B=64), (2, 1)), (60_000, 128, RoundsConfig(R=10, B=64), (8, 1)),
])
def test_rounds_spend_the_budget_whatever_their_number(images, clients_, rounds, expected):
    horizon = rounds.horizon(images, clients_)
    assert horizon == expected
    seen = horizon[0] * horizon[1] * rounds.B * clients_
    assert images <= seen < images + rounds.B * clients_ * max(horizon[1], 1) + rounds.B * clients_


def test_local_only_has_pfdm_parts_where_asked_and_balanced_batches(monkeypatch):
    given = []
    monkeypatch.setattr(
        Denoiser, "fit", lambda self, x, y, training, **options: given.append((self, training, options["augment"]))
    )
    for options in ({}, {"balanced": True}, {"clip_mixing": True}, {"local_range": "t0"}):
        given.clear()
        model = baselines.local_only(clients(), CONFIG, progress=False, **options)
        assert [part.name for part, _, _ in given] == ["client-0", "client-1"]
        for part, training, augment in given:
            assert training.balanced == options.get("balanced", False)
            assert (augment is not None) == part.flag == options.get("clip_mixing", False)
            assert training.hi == part.hi == (20 if "local_range" in options else 50)
            assert training.steps * training.batch == 32
        asked = []
        given[0][0].network.register_forward_pre_hook(lambda module, args: asked.append(int(args[1][0])))
        model.sample([0], seed=0, client=0, steps=None)
        assert asked == list(range(given[0][0].hi - 1, -1, -1))


def test_centralised_sees_the_pictures_of_all_clients(monkeypatch):
    given = []
    monkeypatch.setattr(Denoiser, "fit", lambda self, x, y, training, **options: given.append((x, y)))
    baselines.centralised(clients(), replace(CONFIG, values="[0, 1]"), progress=False)
    x = torch.cat([client[0] for client in clients()])
    assert torch.equal(given[0][0], (x + 1) / 2) and len(given[0][1]) == 51


def test_values_in_zero_one_come_back_as_pictures(monkeypatch):
    monkeypatch.setattr(Denoiser, "fit", lambda self, *args, **options: None)
    model = baselines.centralised(clients(), replace(CONFIG, values="[0, 1]"), progress=False)
    assert float(model.sample([0] * 20, seed=0, steps=3).min()) >= -1


def test_bad_input_is_refused(trained):
    with pytest.raises(ValueError, match="has a model for each client: say which"):
        trained["local"].sample([0], seed=0)
    with pytest.raises(ValueError, match="no client 5"):
        trained["fedavg"].sample([0], seed=0, client=5)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        trained["centralised"].sample([3], seed=0)
    with pytest.raises(ValueError, match="clip_mixing is 0"):
        baselines.local_only(clients(), replace(CONFIG, clip_mixing=0.0), clip_mixing=True)
    with pytest.raises(ValueError, match="local_range must be one of"):
        baselines.local_only(clients(), CONFIG, local_range="all")
    for name in ("fedavg", "dp local"):
        with pytest.raises(ValueError, match="client-1 has 21 (rows|pictures), fewer than the batch"):
            build(name, rounds=replace(ROUNDS, B=25))
    with pytest.raises(ValueError, match="no client has a picture of class 1"):
        build("centralised", members=[(pictures(6)[0], torch.tensor([0, 2] * 3))])
    for change, match in ((dict(R=0), "R must be"), (dict(K=0), "K must be"), (dict(C=math.inf), "C must be"),
                          (dict(move_norm=0.0), "move_norm must be")):
        with pytest.raises(ValueError, match=match):
            RoundsConfig(**change)
