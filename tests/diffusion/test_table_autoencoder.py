"""The autoencoder of table rows: its likelihood by the definition, what it learns, its variants, what it refuses."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.codec import TableCodec
from feddiff.diffusion import table_autoencoder
from feddiff.diffusion.descent import Descent
from feddiff.diffusion.table_autoencoder import TableAutoencoder, fit_autoencoder, latents, reconstruction
from feddiff.seeds import numpy_generator, torch_generator

QUICK = Descent(steps=60, batch=64, lr=3e-3, warmup=5)
LONGER = Descent(steps=250, batch=64, lr=5e-3, warmup=20, ema=0.99)


def rows(n=400, seed=0):
    """Two codes (3 and 2 levels) and two numbers that depend on the first code."""
    rng = numpy_generator(seed, "rows")
    codes = np.column_stack([rng.integers(0, 3, n), rng.integers(0, 2, n)])
    x = rng.normal(size=n)
    return codes, np.column_stack([x, codes[:, 0] - 1 + 0.1 * x]).astype(np.float32)


def model(levels=(3, 2), numbers=2, seed=0, **options):
    options = {"latent": 4, "hidden": 32} | options
    return TableAutoencoder(levels, numbers, generator=torch_generator(seed, "init"), **options)


def fitted(config=QUICK, data=None, seed=0, name="ae", **options):
    codes, numbers = data or rows()
    net = model(**options)
    return net, fit_autoencoder(net, codes, numbers, config, seed=seed, name=name, progress=False)


def tensors(n=400):
    codes, numbers = rows(n)
    return torch.as_tensor(codes), torch.as_tensor(numbers)


def test_the_loss_is_the_negative_log_likelihood_of_its_heads():
    net, (codes, numbers) = model(), tensors(50)
    logits, mean, log_variance = net.decode(net.encode(codes, numbers))
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    categories = [torch.distributions.Categorical(logits=block) for block in logits.split((3, 2), dim=1)]
    columns = [c.log_prob(codes[:, j]) for j, c in enumerate(categories)] + list(normal.log_prob(numbers).unbind(1))
    expected = -torch.stack(columns, dim=1)
    torch.testing.assert_close(net.loss_per_column(net.encode(codes, numbers), codes, numbers), expected)
    torch.testing.assert_close(net.loss_per_record(codes, numbers), expected.sum(dim=1))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_weighs_the_gradient_of_numbers_and_leaves_the_value(balance):
    net, plain, (codes, numbers) = model(balance=balance), model(balance=0.0), tensors(50)
    z = net.encode(codes, numbers).detach()
    losses = [m.loss_per_column(z, codes, numbers) for m in (net, plain)]
    torch.testing.assert_close(*losses)
    variance = net.decode(z)[2].detach().exp()
    grads = [torch.autograd.grad(loss[:, 3].sum(), m.decoder[-1].bias)[0] for loss, m in zip(losses, (net, plain))]
    _, mean, log_variance = plain.decode(z)
    slope = (mean.detach() - numbers)[:, 1] / log_variance.detach()[:, 1].exp()  # of the likelihood in its mean
    assert grads[1][6] == pytest.approx(float(slope.sum()), rel=1e-4)
    assert grads[0][6] == pytest.approx(float((slope * variance[:, 1] ** balance).sum()), rel=1e-4)
    assert grads[0][:5].abs().max() == 0


def test_standardisation_changes_latents_and_nothing_else():
    net, (codes, numbers) = model(), tensors(50)
    before, loss = net.decode(net.encode(codes, numbers)), net.loss_per_record(codes, numbers)
    plain = net.encode(codes, numbers)
    net.shift.fill_(0.7), net.scale.fill_(3.0)
    torch.testing.assert_close(net.encode(codes, numbers), (plain - 0.7) / 3)
    torch.testing.assert_close(net.decode(net.encode(codes, numbers)), before)
    torch.testing.assert_close(net.loss_per_record(codes, numbers), loss)


def test_it_learns_to_give_rows_back_and_standardises_its_latents():
    (codes, numbers), net = rows(), model()
    untrained = reconstruction(net, codes, numbers)
    fit = fit_autoencoder(net, codes, numbers, LONGER, seed=0, progress=False)
    scores = reconstruction(net, codes, numbers)
    assert scores.shape == (4,) and scores.min() > 0.98 > 0.9 > untrained.min()
    z = latents(net, codes, numbers)
    assert z.shape == (400, 4) and z.dtype == torch.float32 and not z.requires_grad
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    other = model(seed=9)
    other.load_state_dict(fit.state)
    assert torch.equal(latents(other, codes, numbers), z)


def test_reconstruction_is_accuracy_and_r2():
    (codes, numbers), net = rows(), fitted()[0]
    found, mean = net.draw(latents(net, codes, numbers), torch.Generator())
    for j in range(2):
        assert reconstruction(net, codes, numbers)[j] == pytest.approx((found[:, j].numpy() == codes[:, j]).mean())
        error = ((mean[:, j].numpy() - numbers[:, j]) ** 2).mean()
        expected = 1 - error / numbers[:, j].astype(np.float64).var()
        assert reconstruction(net, codes, numbers)[2 + j] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("variant", table_autoencoder.VARIANTS)
def test_every_variant_is_a_function_of_its_seed(variant):
    before = torch.random.get_rng_state()
    (one, fit), (two, again), (other, _) = (
        fitted(variant=variant), fitted(variant=variant), fitted(variant=variant, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    assert all(torch.equal(a, b) for a, b in zip(fit.state.values(), again.state.values(), strict=True))
    assert fit.history.equals(again.history) and fit.history["loss"].is_monotonic_decreasing
    assert not torch.equal(latents(one, *rows()), latents(other, *rows()))
    assert torch.equal(latents(one, *rows()), latents(two, *rows()))


def test_the_vae_draws_and_pays_for_its_latent():
    net, (codes, numbers) = model(variant="vae", beta=0.5), tensors(4000)
    free = model(variant="vae", beta=0.0)
    raw = net.encoder(torch.cat([*(t(c) for t, c in zip(net.embeddings, codes.unbind(1))), numbers], dim=1))
    mean, log_variance = raw.split(4, dim=1)
    normal = torch.distributions.Normal(mean, (table_autoencoder._bounded(log_variance) / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    losses = [m.loss_per_record(codes, numbers, generator=torch_generator(0, "d")) for m in (net, free)]
    torch.testing.assert_close(losses[0] - losses[1], 0.5 * kl, atol=1e-4, rtol=1e-4)
    assert torch.equal(net.encode(codes, numbers), mean)
    again = free.loss_per_record(codes, numbers, generator=torch_generator(1, "d"))
    assert not torch.equal(losses[1], again)


def test_the_denoising_variant_is_scored_on_clean_rows():
    net, (codes, numbers) = model(variant="denoising", noise=0.3), tensors(20_000)
    shown = net._corrupted(codes, numbers, torch_generator(0, "d"))
    # A redrawn code is the old one in 1 of `levels` cases; standard errors are below .004.
    changed = (shown[0] != codes).double().mean(dim=0)
    assert changed[0] == pytest.approx(0.3 * 2 / 3, abs=0.015) and changed[1] == pytest.approx(0.15, abs=0.015)
    noise = (shown[1] - numbers).double()
    assert noise.std(dim=0).tolist() == pytest.approx([0.3, 0.3], abs=0.01)
    assert noise.mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.01)
    expected = net.loss_per_column(net.encode(*shown), codes, numbers).sum(dim=1)
    torch.testing.assert_close(net.loss_per_record(codes, numbers, generator=torch_generator(0, "d")), expected)
    with pytest.raises(ValueError, match="'denoising' draws in training"):
        net.loss_per_record(codes, numbers)


def test_draws_follow_the_heads():
    net = model()
    z = torch.randn(1, 4, generator=torch_generator(0, "z")).expand(20_000, 4)
    logits, mean, log_variance = net.decode(z[:1])
    codes, numbers = net.draw(z, torch_generator(0, "draw"), categories="sample", numbers="sample")
    for j, block in enumerate(logits.split((3, 2), dim=1)):
        share = torch.bincount(codes[:, j], minlength=block.shape[1]) / 20_000
        assert share.tolist() == pytest.approx(block.softmax(1)[0].tolist(), abs=0.015)
    assert numbers.mean(0).tolist() == pytest.approx(mean[0].tolist(), abs=0.03)
    assert numbers.std(0).tolist() == pytest.approx((log_variance / 2).exp()[0].tolist(), rel=0.03)
    codes, numbers = net.draw(z[:3000], torch_generator(0, "draw"))
    assert codes.dtype == torch.int64 and numbers.dtype == torch.float32
    assert (codes == torch.stack([b.argmax() for b in logits.split((3, 2), dim=1)])).all()
    torch.testing.assert_close(numbers, mean.expand(3000, 2))
    for wrong in ({"categories": "best"}, {"numbers": "mode"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            net.draw(z, torch_generator(0), **wrong)


@pytest.mark.parametrize(("levels", "numbers"), [((3, 2), 0), ((), 2), ((1,), 0)])
def test_tables_of_codes_or_of_numbers_alone(levels, numbers):
    codes, values = rows()
    data = codes[:, : len(levels)] if levels != (1,) else np.zeros((400, 1), dtype=np.int64), values[:, :numbers]
    net = fitted(data=data, levels=levels, numbers=numbers)[0]
    codes, values = net.draw(latents(net, *data), torch_generator(0), categories="sample", numbers="sample")
    assert codes.shape == (400, len(levels)) and values.shape == (400, numbers)
    assert reconstruction(net, *data).shape == (len(levels) + numbers,)


def test_a_constant_column_is_given_back():
    codes, numbers = rows()
    frame = pd.DataFrame({"kind": "only", "level": codes[:, 1].astype(str), "fixed": 7.5, "x": numbers[:, 0]})
    kinds = {"kind": "categorical", "level": "categorical", "fixed": "numeric", "x": "numeric"}
    for numerics in ("quantile", "quantile-ties", "standard"):
        codec = TableCodec.fit(frame, kinds, numerics=numerics)
        encoded = codec.encode(frame, numpy_generator(0))
        net, _ = fitted(QUICK, (encoded.codes, encoded.numbers), levels=codec.levels)
        assert reconstruction(net, encoded.codes, encoded.numbers)[0] == 1
        z = latents(net, encoded.codes, encoded.numbers)
        drawn = net.draw(z, torch_generator(0))
        back = codec.decode(type(encoded)(drawn[0].numpy(), drawn[1].numpy()))
        assert back["kind"].eq("only").all() and back["fixed"].eq(7.5).all() and z.isfinite().all()


def test_a_table_of_one_constant_has_a_constant_latent_of_scale_one():
    data = np.zeros((100, 1), dtype=np.int64), np.full((100, 1), 2.0, dtype=np.float32)
    net, _ = fitted(LONGER, data, levels=(1,), numbers=1)
    assert torch.equal(net.scale, torch.ones(4)) and latents(net, *data).abs().max() < 1e-4
    assert reconstruction(net, *data).tolist() == [1, 1]
    untrained = model(levels=(1,), numbers=1)
    assert reconstruction(untrained, *data).tolist() == [1, 0]


def test_blank_numbers_come_back_and_an_empty_column_is_refused_by_name():
    codes, numbers = rows()
    frame = pd.DataFrame({"x": np.where(codes[:, 1] == 1, np.nan, numbers[:, 0]), "level": codes[:, 0].astype(str)})
    kinds = {"x": "numeric", "level": "categorical"}
    codec = TableCodec.fit(frame, kinds, numerics="quantile-ties")
    encoded = codec.encode(frame, numpy_generator(0))
    assert codec.code_columns == ("x is missing", "level")
    net, _ = fitted(LONGER, (encoded.codes, encoded.numbers), levels=codec.levels, numbers=1)
    drawn = net.draw(latents(net, encoded.codes, encoded.numbers), torch_generator(0))
    back = codec.decode(type(encoded)(drawn[0].numpy(), drawn[1].numpy()))
    assert (back["x"].isna() == frame["x"].isna()).mean() > 0.99
    with pytest.raises(ValueError, match="'x': every value is missing"):
        TableCodec.fit(frame.assign(x=np.nan), kinds)


def test_a_category_unseen_in_training_is_an_error_or_the_codecs_other():
    frame = pd.DataFrame({"level": ["a", "b"] * 50, "x": np.arange(100.0)})
    later, kinds = frame.assign(level=["a", "new"] * 50), {"level": "categorical", "x": "numeric"}
    with pytest.raises(ValueError, match="'level': the value 'new' was not present"):
        TableCodec.fit(frame, kinds).encode(later)
    codec = TableCodec.fit(frame, kinds, unseen="other")
    train, encoded = codec.encode(frame), codec.encode(later)
    net, _ = fitted(data=(train.codes, train.numbers), levels=codec.levels, numbers=1)
    assert latents(net, encoded.codes, encoded.numbers).isfinite().all()
    codes = encoded.codes.copy()
    codes[3, 0] = 3
    with pytest.raises(ValueError, match=r"'code 0': codes must lie in 0..2, got 0..3.*unseen='other'"):
        latents(net, codes, encoded.numbers)


def test_a_blank_in_the_numbers_is_refused_before_training():
    codes, numbers = rows()
    numbers[7, 1] = np.nan
    with pytest.raises(ValueError, match="'ap_hi': 1 values are not finite, the first in row 7"):
        fit_autoencoder(model(), codes, numbers, QUICK, seed=0, columns=["a", "b", "x", "ap_hi"], progress=False)


def test_a_loss_that_is_not_finite_stops_at_once_with_step_and_column():
    codes, numbers = rows()
    names = ["a", "b", "x", "wide"]
    net = model()
    with torch.no_grad():
        net.decoder[-1].bias[5 + 1] = math.nan  # the mean of the second number
    with pytest.raises(FloatingPointError, match=r"bank: the loss is not finite at step 1, in column 'wide'; lower"):
        fit_autoencoder(net, codes, numbers, QUICK, seed=0, name="bank", columns=names, progress=False)
    steps = []
    net = model()

    class Poisoned(Descent):
        def lr_at(self, step):
            steps.append(step)
            return math.nan if step == 6 else super().lr_at(step)

    with pytest.raises(FloatingPointError, match=r"at step 8, in column 'a' and 3 more of 4"):
        fit_autoencoder(net, codes, numbers, Poisoned(steps=60, batch=64), seed=0, columns=names, progress=False)
    assert steps[-1] == 7


@pytest.mark.parametrize(("change", "message"), [
    ({"codes": np.zeros((400, 3), dtype=np.int64)}, r"codes must be int64 \(n, 2\)"),
    ({"codes": np.zeros((400, 2), dtype=np.int32)}, r"codes must be int64"),
    ({"numbers": np.zeros((400, 2))}, r"numbers must be float32 \(400, 2\)"),
    ({"numbers": np.zeros((399, 2), dtype=np.float32)}, r"numbers must be float32 \(400, 2\)"),
    ({"columns": ["a"]}, "columns must name 2 code and 2 number columns"),
    ({"config": Descent(steps=1, balanced=True)}, "balanced"),
])
def test_rows_that_do_not_fit_are_refused(change, message):
    codes, numbers = rows()
    given = {"codes": codes, "numbers": numbers, "config": QUICK, "columns": None} | change
    config = given.pop("config")
    with pytest.raises(ValueError, match=message):
        fit_autoencoder(model(), config=config, seed=0, progress=False, **given)


@pytest.mark.parametrize(("options", "message"), [
    ({"variant": "sparse"}, "variant must be"), ({"latent": 0}, "latent must be"), ({"hidden": 0}, "hidden must be"),
    ({"levels": (), "numbers": 0}, "a row needs a column"), ({"levels": (0,)}, "a column a level"),
    ({"balance": 2.0}, "balance must lie"), ({"noise": 1.0}, "noise must lie"), ({"beta": -1.0}, "beta"),
    ({"embedding": 0}, "embedding must be"),
])
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        model(**options)


WIDE = """
import resource, numpy as np, torch
torch.set_num_threads(1)
from feddiff.diffusion.descent import Descent
from feddiff.diffusion.table_autoencoder import TableAutoencoder, fit_autoencoder, latents, reconstruction
from feddiff.seeds import torch_generator
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, n = peak(), 90_000
codes = (np.arange(n) % 3000)[:, None]
numbers = np.zeros((n, 1), dtype=np.float32)
net = TableAutoencoder((3000,), 1, latent=2, hidden=16, generator=torch_generator(0))
assert net.embeddings[0].weight.shape == (3000, 16)
fit_autoencoder(net, codes, numbers, Descent(steps=3, batch=512), seed=0, progress=False)
reconstruction(net, codes, numbers)
net.draw(latents(net, codes, numbers)[:2_000], torch_generator(1), categories="sample", numbers="sample")
print(before, peak())
"""


def test_a_column_of_3000_levels_stays_under_two_gibibytes():
    # One-hot, or logits of all rows kept at once, would be 90,000 x 3,000 floats: 1 GiB on top of torch itself.
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    before, after = (int(kibibytes) * 1024 for kibibytes in done.stdout.split())
    assert after < 2 * 2**30 and after - before < 0.75 * 2**30
