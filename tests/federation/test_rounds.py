"""Clients and rounds on a linear model, where every equality has a naive reference."""

import copy
import math

import pytest
import torch
from torch import nn

from feddiff.diffusion import checkpoint
from feddiff.federation.client import Client, LocalTraining, flat_weights, load_flat_weights
from feddiff.federation.rounds import Federation, participation
from feddiff.federation.strategies import Server, Strategy
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.seeds import torch_generator

ROWS, DIM = 60, 4


def problem(seed=0, rows=ROWS):
    g = torch_generator(seed, "problem")
    x = torch.randn(rows, DIM, generator=g)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.1 * torch.randn(rows, 1, generator=g)


def network():
    model = nn.Linear(DIM, 1)
    load_flat_weights(model, torch.linspace(-0.5, 0.5, DIM + 1))
    return model


def client(x, y, *, name="client-0", noise_multiplier=None, max_steps=None, seed=0, **training):
    model = network()
    options = {"batch_size": len(x), "total_steps": 20, "lr": 0.05, "lr_schedule": "constant", "optimiser": "sgd"}
    options.update(training)

    def draws(batch, generator):
        shift = 0.01 * torch.randn(len(batch), 1, generator=generator) if options["batch_size"] < len(x) else 0 * y[batch]
        return lambda rows: ((model(x[batch[rows]]) - y[batch[rows]] - shift[rows]) ** 2).sum(1)

    return Client(
        name=name, rows=len(x), network=model, draws=draws, training=LocalTraining(**options),
        noise_multiplier=noise_multiplier, max_steps=max_steps, seed=seed,
    )


def federation(clients, strategy=None, ledger=None):
    return Federation(clients=clients, server=Server(strategy or Strategy(), flat_weights(network())), ledger=ledger)


def centralised(x, y, steps, lr=0.05):
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        ((model(x) - y) ** 2).sum(1).mean().backward()
        optimiser.step()
    return flat_weights(model)


def test_one_client_with_full_batches_is_centralised_training():
    x, y = problem()
    fed = federation([client(x, y)])
    fed.run(participation(1, 4, 1.0, 0), 5, progress=False)
    assert torch.allclose(fed.weights(), centralised(x, y, 20), atol=1e-6)


def test_equal_clients_with_full_batches_and_one_step_a_round_are_centralised_training():
    x, y = problem()
    parts = [slice(k, None, 4) for k in range(4)]
    fed = federation([client(x[i], y[i], name=f"client-{k}") for k, i in enumerate(parts)])
    fed.run(participation(4, 6, 1.0, 0), 1, progress=False)
    assert torch.allclose(fed.weights(), centralised(x, y, 6), atol=1e-6)


def test_unequal_clients_are_weighted_by_rows_and_several_local_steps_drift():
    x, y = problem()
    parts = [slice(0, 10), slice(10, None)]
    members = [client(x[i], y[i], name=f"client-{k}") for k, i in enumerate(parts)]
    fed = federation(members)
    fed.run(participation(2, 6, 1.0, 0), 1, progress=False)
    assert torch.allclose(fed.weights(), centralised(x, y, 6), atol=1e-6)
    drifting = federation([client(x[i], y[i], name=f"client-{k}") for k, i in enumerate(parts)])
    drifting.run(participation(2, 1, 1.0, 0), 6, progress=False)
    assert not torch.allclose(drifting.weights(), centralised(x, y, 6), atol=1e-4)


def test_private_training_without_noise_and_clipping_is_plain_training():
    x, y = problem()
    plain = federation([client(x, y, batch_size=12, optimiser="adam")])
    private = federation([client(x, y, batch_size=12, optimiser="adam", noise_multiplier=0.0, clip_norm=math.inf)])
    for fed in (plain, private):
        fed.run(participation(1, 5, 1.0, 0), 4, progress=False)
    assert torch.allclose(plain.weights(), private.weights(), atol=1e-6)
    noisy = federation([client(x, y, batch_size=12, optimiser="adam", noise_multiplier=1.0, clip_norm=1.0)])
    noisy.run(participation(1, 5, 1.0, 0), 4, progress=False)
    assert not torch.allclose(plain.weights(), noisy.weights(), atol=1e-2)


def _private_members(x, y, noise=0.8):
    halves = [slice(0, 24), slice(24, None)]
    return [
        client(x[i], y[i], name=f"client-{k}", batch_size=6, optimiser="adam", noise_multiplier=noise, clip_norm=1.0)
        for k, i in enumerate(halves)
    ]


def _private(x, y):
    ledger = PrivacyLedger(clients=["client-0", "client-1"], delta=1e-5)
    return federation(_private_members(x, y), Strategy(name="FedAdam"), ledger)


def test_resumed_run_equals_the_uninterrupted_one_and_keeps_the_ledger(tmp_path):
    x, y = problem()
    schedule = participation(2, 8, 0.5, 3)
    whole = _private(x, y)
    whole.run(schedule, 3, progress=False)
    first = _private(x, y)
    first.run(schedule[:3], 3, progress=False)
    checkpoint.save(tmp_path / "run.pt", first.state(), "abc")
    second = _private(x, y)
    second.load(checkpoint.load(tmp_path / "run.pt", "abc"))
    second.run(schedule, 3, progress=False)
    assert torch.equal(second.weights(), whole.weights())
    assert second.history == whole.history and second.ledger == whole.ledger
    assert second.channel.nbytes() == whole.channel.nbytes()


def test_checkpoint_of_another_run_or_a_torn_file_is_refused(tmp_path):
    x, y = problem()
    path = tmp_path / "run.pt"
    checkpoint.save(path, _private(x, y).state(), "abc")
    with pytest.raises(ValueError, match="another training"):
        checkpoint.load(path, "abd")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load(path, "abc")
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_ledger_counts_every_local_step_at_the_clients_own_rate_even_on_empty_batches():
    x, y = problem()
    ledger = PrivacyLedger(clients=["client-0", "client-1"], delta=1e-5)
    members = _private_members(x, y)
    for member in members:
        member.sample_rate = 1e-12  # every batch is empty; the steps must count all the same
    fed = federation(members, ledger=ledger)
    before = fed.server.weights.clone()
    fed.run(participation(2, 4, 1.0, 0), 5, progress=False)
    assert [event.steps for event in ledger.events("client-0")] == [20]
    assert not torch.allclose(fed.server.weights, before), "an empty batch must still take a noise step"
    assert all(row["loss"] == 0 for row in fed.history)


def test_sample_rate_is_b_over_the_clients_own_rows():
    x, y = problem()
    assert [m.sample_rate for m in _private_members(x, y)] == [6 / 24, 6 / 36]


def test_training_stops_at_the_budget_and_says_so():
    x, y = problem()
    members = [client(x, y, noise_multiplier=1.0, clip_norm=1.0, max_steps=7)]
    ledger = PrivacyLedger(clients=["client-0"], delta=1e-5)
    fed = federation(members, ledger=ledger)
    fed.run(participation(1, 10, 1.0, 0), 3, progress=False)
    assert members[0].steps_taken == 7 and fed.round == 3 and "budget spent after round 3 of 10" in fed.stopped
    assert sum(event.steps for event in ledger.events("client-0")) == 7


def test_training_without_dp_is_epsilon_infinity_in_the_ledger():
    x, y = problem()
    ledger = PrivacyLedger(clients=["client-0"], delta=1e-5)
    federation([client(x, y)], ledger=ledger).run(participation(1, 1, 1.0, 0), 1, progress=False)
    assert ledger.epsilon() == math.inf


def test_fedprox_pulls_towards_the_global_weights():
    x, y = problem()
    moves = []
    for mu in (0.0, 1.0, 5.0):
        strategy = Strategy(name="FedProx", proximal=mu) if mu else Strategy()
        fed = federation([client(x, y, proximal=mu)], strategy)
        fed.run(participation(1, 1, 1.0, 0), 10, progress=False)
        moves.append(fed.history[0]["move_norm"])
    assert moves[0] > moves[1] > moves[2]


def test_reset_forgets_the_moments_and_keep_does_not():
    x, y = problem()
    weights = {}
    for policy in ("keep", "reset"):
        fed = federation([client(x, y, optimiser="adam", optimiser_state=policy)])
        fed.run(participation(1, 3, 1.0, 0), 2, progress=False)
        weights[policy] = fed.weights()
    assert not torch.allclose(weights["keep"], weights["reset"], atol=1e-4)


def test_cosine_schedule_ends_at_zero_and_starts_at_lr():
    training = LocalTraining(batch_size=4, total_steps=100, lr=0.2)
    assert training.lr_at(0) == 0.2 and training.lr_at(50) == pytest.approx(0.1) and training.lr_at(100) < 1e-12


def test_non_finite_loss_stops_and_names_the_client_and_step():
    x, y = problem()
    y = y.clone()
    y[0] = math.nan
    fed = federation([client(x, y)])
    with pytest.raises(FloatingPointError, match="client-0: non-finite loss at its local step 0"):
        fed.run(participation(1, 1, 1.0, 0), 1, progress=False)


def test_bytes_are_two_messages_a_participant_and_round():
    x, y = problem()
    fed = federation([client(x, y), client(x, y, name="client-1")])
    fed.run(participation(2, 3, 1.0, 0), 1, progress=False)
    one_way = fed.channel.nbytes(sender="server")
    assert one_way == fed.channel.nbytes(receiver="server") and len(fed.channel.log) == 12
    assert sum(row["bytes"] for row in fed.history) == fed.channel.nbytes() == 2 * one_way


def test_clients_share_no_memory_with_the_server():
    x, y = problem()
    member = client(x, y)
    fed = federation([member])
    fed.run(participation(1, 1, 1.0, 0), 1, progress=False)
    held = fed.server.weights.clone()
    with torch.no_grad():
        for p in member.network.parameters():
            p.add_(100.0)
    assert torch.equal(fed.server.weights, held)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 61}, "client-0 has 60 rows, fewer than the batch size"),
        ({"optimiser": "lion"}, "optimiser must be"),
        ({"optimiser_state": "forget"}, "optimiser_state must be"),
        ({"lr_schedule": "linear"}, "lr_schedule must be"),
    ],
)
def test_bad_local_training_is_refused(options, match):
    x, y = problem()
    with pytest.raises(ValueError, match=match):
        client(x, y, **options)
    with pytest.raises(ValueError, match="trainable parameters"):
        load_flat_weights(copy.deepcopy(network()), torch.zeros(3))
