"""Training of an image denoiser: what is drawn, what is learnt, what a resumed run equals, what is refused."""

import dataclasses
import math

import pytest
import torch
from sklearn.datasets import load_digits

from feddiff.diffusion import checkpoint as checkpoints
from feddiff.diffusion import training
from feddiff.diffusion.descent import WINDOW, Batches, Descent
from feddiff.diffusion.ema import EMA
from feddiff.diffusion.image_loss import loss_per_record
from feddiff.diffusion.schedules import cosine, linear
from feddiff.diffusion.training import FitConfig, fit
from feddiff.diffusion.unet import UNet
from feddiff.seeds import torch_generator

SCHEDULE = linear(100, scale_betas=True)
QUICK = FitConfig(steps=30, batch=8, warmup=3)


def network(seed=0, **options):
    options = {"widths": (8,), "patch": 2, "groups": 4, "condition_dim": 16, "classes": 10} | options
    return UNet(1, 8, schedule=SCHEDULE, generator=torch_generator(seed, "init"), **options)


def digits(n=200):
    bunch = load_digits()
    images = torch.from_numpy(bunch.images[:n]).float().unsqueeze(1) / 8 - 1
    return images, torch.from_numpy(bunch.target[:n]).long()


def train(config=QUICK, seed=0, model=None, pictures=None, **options):
    images, labels = pictures or digits()
    return fit(model or network(), images, labels, config, SCHEDULE, seed=seed, progress=False, **options)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state.values(), two.state.values(), strict=True))


def flagging(x, generator):
    chosen = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), 0.5 * x, x), chosen


def test_same_seed_same_bits_and_no_global_generator():
    before, (images, labels) = torch.random.get_rng_state(), digits()
    kept = images.clone()
    one, two, other, named = train(), train(), train(seed=1), train(name="second")
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    assert same(one, two) and one.history.equals(two.history)
    assert not same(one, other) and not same(one, named)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("case", "stop"),
    [
        ({}, 26),
        (dict(config=dict(balanced=True, bf16=True)), 7),
        (dict(network=dict(flag=True, dropout=0.2), augment=flagging), 7),
        (dict(config=dict(ema=0.0, channels_last=False, weight="eps", gradient_clip=0.5)), 7),
    ],
    ids=["plain", "balanced bf16", "flag and dropout", "no average"],
)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, case, stop):
    config = dataclasses.replace(QUICK, **case.get("config", {}))
    options = {"augment": case["augment"]} if "augment" in case else {}
    build = lambda: network(**case.get("network", {}))
    whole = train(config, model=build(), **options)

    class Stopped(Exception):
        pass

    kept = checkpoints.save

    def save_and_stop(path, state, fingerprint):
        kept(path, state, fingerprint)
        if state["step"] == stop:
            raise Stopped

    options |= {"checkpoint": tmp_path / "run.pt", "checkpoint_every": stop}
    monkeypatch.setattr(checkpoints, "save", save_and_stop)
    with pytest.raises(Stopped):
        train(config, model=build(), **options)
    monkeypatch.setattr(checkpoints, "save", kept)
    resumed = train(config, model=build(), **options)
    assert same(whole, resumed) and whole.history.equals(resumed.history)
    again = train(config, model=build(), **options)
    assert same(whole, again), "a finished checkpoint gives the finished training back"
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_checkpoints_of_other_trainings_and_broken_files_are_refused(tmp_path):
    file, (images, labels) = tmp_path / "run.pt", digits()
    train(checkpoint=file)
    others = [
        dict(seed=1), dict(name="other"), dict(config=dataclasses.replace(QUICK, lr=1e-4)),
        dict(model=network(widths=(12,))), dict(pictures=(images * 0.9, labels)), dict(pictures=(images, 9 - labels)),
    ]
    for other in others:
        with pytest.raises(ValueError, match="checkpoint of another training"):
            train(checkpoint=file, **other)
    file.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint.*delete it"):
        train(checkpoint=file)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        train(checkpoint=tmp_path / "new.pt", checkpoint_every=0)


def test_the_network_ends_with_the_average_and_the_state_describes_it():
    model = network(dropout=0.1)
    fitted = train(model=model)
    assert not model.training and all(torch.equal(model.state_dict()[k], v) for k, v in fitted.state.items())
    assert all(v.is_contiguous() and v.device.type == "cpu" for v in fitted.state.values())
    fresh = network(dropout=0.1)
    fresh.load_state_dict(fitted.state)
    x, t, y = torch.ones(2, 1, 8, 8), torch.tensor([3]), torch.tensor([0, 1])
    assert torch.allclose(fresh.eval()(x, t, y), model(x, t, y), atol=1e-5)
    assert fitted.images_seen == 240 and fitted.seconds > 0


def test_average_is_the_warmed_up_mean_of_the_weights_after_each_step(monkeypatch):
    seen, update = [], EMA.update
    monkeypatch.setattr(EMA, "update", lambda self, vector: (seen.append(vector.clone()), update(self, vector))[1])
    model = network()
    train(dataclasses.replace(QUICK, ema=0.5), model=model)
    average = seen[0]
    for n, vector in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * vector
    assert len(seen) == 30
    assert torch.allclose(torch.cat([p.detach().flatten() for p in model.parameters()]), average, atol=1e-6)


def test_training_lowers_the_loss_of_held_out_draws_under_both_weights():
    (images, labels), g = digits(400), torch_generator(0, "held-out")
    # At the first steps x_t hides its noise behind the picture: nothing to learn there in so short a training.
    t, noise = torch.randint(20, 100, (400, 1), generator=g), torch.randn(400, 1, 1, 8, 8, generator=g)
    for weight in ("eps", "v"):
        model = network()
        with torch.no_grad():
            losses = lambda: loss_per_record(model, images, labels, t, noise, SCHEDULE, weight="v")
            before = float(losses().mean())
        history = train(FitConfig(steps=100, batch=32, warmup=10, weight=weight, ema=0.9), model=model).history
        assert float(losses().detach().mean()) < 0.7 * before
        assert history.loss.iloc[-1] < history.loss.iloc[0]


def test_history_has_a_row_for_each_window_and_the_rest():
    assert train().history.step.tolist() == [WINDOW, 30]


def spy(monkeypatch):
    """Record what reaches the loss."""
    seen, inner = [], training.loss_per_record

    def watched(model, x0, labels, t, noise, schedule, **options):
        seen.append((x0.clone(), labels.clone(), t.clone(), noise.clone(), options))
        return inner(model, x0, labels, t, noise, schedule, **options)

    monkeypatch.setattr(training, "loss_per_record", watched)
    return seen


def test_steps_are_drawn_from_the_range_only_and_all_of_it(monkeypatch):
    seen = spy(monkeypatch)
    train(dataclasses.replace(QUICK, lo=4, hi=9))
    assert torch.cat([t for _, _, t, _, _ in seen]).unique().tolist() == [4, 5, 6, 7, 8]
    seen.clear()
    train(dataclasses.replace(QUICK, batch=64))
    drawn = torch.cat([t for _, _, t, _, _ in seen]).flatten()
    assert drawn.min() == 0 and drawn.max() == 99
    # chi-square of 1,920 uniform draws over 100 cells: mean 99, standard deviation 14.
    counts = torch.bincount(drawn, minlength=100).double()
    assert abs(float(((counts - 19.2) ** 2 / 19.2).sum()) - 99) < 4 * 14.07


def test_noise_is_fresh_and_standard_and_the_loss_gets_weight_and_flag(monkeypatch):
    seen = spy(monkeypatch)
    train(dataclasses.replace(QUICK, weight="eps"), model=network(flag=True), augment=flagging)
    noise = torch.stack([entry[3] for entry in seen])
    assert len(noise.flatten(1).unique(dim=0)) == 30
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / math.sqrt(n) and abs(float(noise.var()) - 1) < 4 * math.sqrt(2 / n)
    images, _ = digits()
    for x0, _, _, _, options in seen:
        assert options["weight"] == "eps"
        whole = torch.where(options["flag"].view(-1, 1, 1, 1), 2 * x0, x0)
        assert bool((whole[:, None] == images[None]).flatten(2).all(2).any(1).all())
    share = torch.cat([entry[4]["flag"] for entry in seen]).float().mean()
    assert abs(float(share) - 0.5) < 4 * 0.5 / math.sqrt(240)


def test_pictures_keep_their_labels(monkeypatch):
    seen, (images, labels) = spy(monkeypatch), digits()
    train()
    for x0, y, *_ in seen:
        where = (x0[:, None] == images[None]).flatten(2).all(2).float().argmax(1)
        assert torch.equal(labels[where], y)


def test_epochs_show_every_picture_once_in_a_new_order():
    batches = Batches(torch.zeros(10, dtype=torch.int64), 4, False, 0, "fit")
    rows = torch.cat([batches.rows_of(step) for step in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert not torch.equal(rows[:10], rows[10:])
    other = Batches(torch.zeros(10, dtype=torch.int64), 4, False, 0, "fit")
    assert torch.equal(other.rows_of(3), rows[12:16]), "a batch depends on seed and step alone"
    larger = Batches(torch.zeros(3, dtype=torch.int64), 8, False, 0, "fit").rows_of(0)
    assert torch.bincount(larger[:6], minlength=3).tolist() == [2, 2, 2]


def test_balanced_batches_give_every_class_the_same_share_and_every_member_a_chance():
    labels = torch.tensor([0] * 90 + [2] * 9 + [5])
    batches = Batches(labels, 10, True, 0, "fit")
    rows = torch.stack([batches.rows_of(step) for step in range(600)])
    for batch in rows[:20]:
        assert sorted(torch.bincount(labels[batch], minlength=6)[[0, 2, 5]].tolist()) == [3, 3, 4]
    counts = torch.bincount(rows.flatten(), minlength=100).double()
    assert [float(counts[labels == k].sum()) for k in (0, 2, 5)] == pytest.approx([2000] * 3, abs=120)
    # within a class uniform: chi-square over 90 members, mean 89, standard deviation 13.3
    first = counts[:90]
    assert abs(float(((first - first.mean()) ** 2 / first.mean()).sum()) - 89) < 4 * 13.4


def test_learning_rate_rises_falls_along_a_cosine_and_stops_at_the_floor():
    config = Descent(steps=1100, warmup=100, lr=1e-3, floor=0.05)
    assert config.lr_at(0) == pytest.approx(1e-3 / 101) and config.lr_at(100) == pytest.approx(1e-3)
    assert config.lr_at(600) == pytest.approx(1e-3 * (0.05 + 0.95 / 2))
    assert config.lr_at(1100) == pytest.approx(5e-5)
    assert all(config.lr_at(s) < config.lr_at(s + 1) for s in range(100))
    assert all(config.lr_at(s) > config.lr_at(s + 1) for s in range(100, 1099))


def test_bf16_is_for_wide_networks_unless_it_is_said():
    cpu = torch.device("cpu")
    assert not QUICK.in_bf16(32, cpu) and QUICK.in_bf16(48, cpu)
    assert dataclasses.replace(QUICK, bf16=True).in_bf16(8, cpu)
    assert not dataclasses.replace(QUICK, bf16=False).in_bf16(128, cpu)
    assert not same(train(), train(dataclasses.replace(QUICK, bf16=True)))


def test_a_loss_that_is_not_finite_stops_the_training_with_advice():
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 2; lower lr"):
        train(dataclasses.replace(QUICK, lr=1e30, warmup=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(pictures=lambda x, y: (x.double(), y)), r"images must be float32 \(n, 1, 8, 8\).*float64"),
        (dict(pictures=lambda x, y: (x[..., :7], y)), r"images must be float32 \(n, 1, 8, 8\).*\(200, 1, 8, 7\)"),
        (dict(pictures=lambda x, y: (x[:0], y[:0])), "with n >= 1"),
        (dict(pictures=lambda x, y: (x, y[:-1])), r"labels must be int64 \(200,\)"),
        (dict(pictures=lambda x, y: (x, y.float())), "labels must be int64.*float32"),
        (dict(pictures=lambda x, y: (x, y + 1)), r"labels must lie in 0\.\.9.*got 1\.\.10"),
        (dict(pictures=lambda x, y: (x.index_fill(0, torch.tensor(3), math.nan), y)), "1 pictures.*first is picture 3"),
        (dict(config=dict(lo=5, hi=5)), "0 <= lo < hi <= T=100"),
        (dict(config=dict(hi=101)), r"0 <= lo < hi <= T=100, got \[0, 101\)"),
        (dict(schedule=cosine(100)), "built for another schedule"),
    ],
)
def test_pictures_labels_and_ranges_that_do_not_fit_are_refused_before_training(changes, message):
    images, labels = changes.get("pictures", lambda x, y: (x, y))(*digits())
    config = dataclasses.replace(QUICK, **changes.get("config", {}))
    with pytest.raises(ValueError, match=message):
        fit(network(), images, labels, config, changes.get("schedule", SCHEDULE), seed=0, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(steps=0), "steps must be an integer >= 1"),
        (dict(batch=2.0), "batch must be an integer >= 1, got 2.0"),
        (dict(warmup=-1), "warmup must be an integer >= 0"),
        (dict(lr=0.0), "lr must be > 0"),
        (dict(gradient_clip=0), "gradient_clip must be > 0"),
        (dict(floor=1.5), r"floor is a share of lr in \[0, 1\]"),
        (dict(ema=1.0), r"ema must lie in \[0, 1\)"),
        (dict(weight_decay=-0.1), "weight_decay must be >= 0"),
        (dict(weight="min-snr"), "weight must be one of.*'min-snr'"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(QUICK, **changes)


@pytest.mark.gpu
def test_a_gpu_trains_to_the_same_loss_as_the_cpu():
    config = FitConfig(steps=150, batch=32, warmup=10, ema=0.9)
    cpu, gpu = (train(config, device=device).history.loss.iloc[-1] for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=0.25)
