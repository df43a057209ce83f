"""Which stage of SiloFuse fails: autoencoders without a diffusion model, and a diffusion model without autoencoders."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch

from feddiff.data.codec import Encoded, TableCodec
from feddiff.diffusion.latent_diffusion import LatentDiffusion
from feddiff.evaluation.utility import utility
from feddiff.experiments import cache, records
from feddiff.experiments.silofuse_judge import JUDGE_ROWS
from feddiff.experiments.silofuse_study import DATA_CODE, Setting
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import VARIANCES, SiloFuseConfig

NAME = "perfect autoencoder"


def decoded(model: SiloFuseRun, *, seed: int) -> pd.DataFrame:
    """Return what the decoders make of the REAL latents: every error is the autoencoders'."""
    parts = [client.decode(model.latents[client.name], seed=seed) for client in model.clients]
    return pd.concat(parts, axis=1)[model.columns]


@dataclass(frozen=True, eq=False)
class PerfectAutoencoder:
    """SiloFuse's diffusion model on the encoded columns themselves: every error is the diffusion model's.

    Numbers as the silos' codecs encode them, standardised, and categories one-hot, centred, with variance 1 in the
    mean of their places; a category is decoded as the largest of its places, so nothing is lost on the way.
    """

    codec: TableCodec
    model: LatentDiffusion
    shift: torch.Tensor
    scale: torch.Tensor
    config: SiloFuseConfig
    columns: list[str]

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows."""
        walk = dict(steps=self.config.sample_steps, known_noise=VARIANCES[self.config.variance])
        z = self.model.sample(rows, torch_generator(seed, "sampling", NAME), **walk)
        return self.codec.decode(_narrow(z * self.scale + self.shift, self.codec))[self.columns]


def perfect_autoencoder(setting: Setting, config: SiloFuseConfig, *, progress: bool = True) -> PerfectAutoencoder:
    """Return the diffusion model of `config` trained on the encoded columns, from the cache where it is."""
    config, table = replace(config, seed=setting.seed), setting.train
    codec = TableCodec.fit(table.frame, table.kinds, numerics=config.numerics, provenance="client")
    x = _wide(codec.encode(table.frame, numpy_generator(config.seed, "ranks", NAME)), codec)
    shift, scale = x.mean(dim=0), _scale(x, codec)
    model = LatentDiffusion(
        x.shape[1], width=config.dm_width, blocks=config.dm_blocks, T=config.T, schedule=config.schedule,
        prediction=config.prediction, dropout=config.dropout, generator=torch_generator(config.seed, "init", NAME),
    )

    def state() -> dict:
        model.fit((x - shift) / scale, config.diffusion_training(0), seed=config.seed, name=NAME, progress=progress)
        return {"weights": {key: value.detach().clone() for key, value in model.state_dict().items()}}

    entry = cache.cached("silofuse-perfect", asdict(config), f"{setting.identity} perfect", state,
                         code=["feddiff.diffusion.latent_diffusion", "feddiff.data.codec", __name__, *DATA_CODE])
    model.load_state_dict(entry.state["weights"])
    model.eval()
    return PerfectAutoencoder(codec, model, shift, scale, config, setting.columns)


def partitioned(
    run: records.Run, setting: Setting, frame: pd.DataFrame, *, max_rows: int = JUDGE_ROWS, **labels
) -> dict[str, float]:
    """Record task_auc: the target predicted from its own silo's columns alone ("own") and from all ("all").

    Models are trained on `frame` and tested on held-out rows. "own" is what a silo can do with an output that stays
    partitioned; a silo with no other column than the target has nothing to predict from, and .5.
    """
    target, found = setting.train.target, {}
    own = next(part for part in setting.parts if target in part)
    for seen_from, names in (("own", own), ("all", setting.columns)):
        found[seen_from] = 0.5
        if len(names) > 1:
            kinds = {name: setting.train.kinds[name] for name in names}
            told = utility(frame[names], setting.test.frame[names], target=target, kinds=kinds, seed=setting.seed,
                           max_rows=max_rows)
            found[seen_from] = float(told["roc_auc"].iloc[0])
        run.metric("task_auc", found[seen_from], seen_from=seen_from, **labels)
    return found


def _wide(encoded: Encoded, codec: TableCodec) -> torch.Tensor:
    blocks = [np.eye(level, dtype=np.float32)[codes] for level, codes in zip(codec.levels, encoded.codes.T)]
    return torch.from_numpy(np.concatenate([encoded.numbers, *blocks], axis=1))


def _scale(x: torch.Tensor, codec: TableCodec) -> torch.Tensor:
    """Return the scale of each place: one for all places of a category, else a rare level's 1 would be far out."""
    numbers, *blocks = x.var(dim=0, correction=0).split([len(codec.number_columns), *codec.levels])
    variance = torch.cat([numbers, *[block.mean().expand(len(block)) for block in blocks]])
    return torch.where(variance > 0, variance, 1.0).sqrt()


def _narrow(x: torch.Tensor, codec: TableCodec) -> Encoded:
    numbers, *blocks = x.split([len(codec.number_columns), *codec.levels], dim=1)
    codes = np.stack([block.argmax(dim=1).numpy() for block in blocks], axis=1) if blocks else np.zeros(
        (len(x), 0), dtype=np.int64)
    return Encoded(codes, numbers.numpy())
