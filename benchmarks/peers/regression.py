"""Laws of a number given rows: boosted, of a quantile forest, of a Gaussian process, of a mixture's net, and linear."""

from functools import partial

import numpy as np
import torch
from common import Standardizer
from ngboost import NGBRegressor
from predictions import Gaussians, main_of_predictions, of_quantiles
from quantile_forest import RandomForestQuantileRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LinearRegression

_HELD_OUT = 0.1
_MOST_TREES, _TREES_OF_PATIENCE = 2_000, 50
_TREES, _LEAF, _QUANTILES = 200, 2, 199
_COMPONENTS, _WIDTH, _BATCH = 8, 64, 128
_MOST_EPOCHS, _EPOCHS_OF_PATIENCE = 1_000, 50
# Of a component, in deviations of the target.
_LEAST_SCALE = 1e-3


def normals(loc: np.ndarray, scale) -> Gaussians:
    """Return a normal for each row."""
    return Gaussians(np.ones((len(loc), 1)), loc[:, None], np.broadcast_to(scale, loc.shape)[:, None])


def held_out(num: int, seed: int) -> np.ndarray:
    """Return which rows are held out."""
    return np.random.default_rng(seed).permutation(num) < _HELD_OUT * num


def boosted(train, y, test, seed, trees=500):
    """NGBoost as it comes."""
    model = NGBRegressor(n_estimators=trees, random_state=seed, verbose=False).fit(train, y)
    params = model.pred_dist(test).params
    return normals(params["loc"], params["scale"]).scores, f"its defaults: {trees} trees"


def boosted_with_care(train, y, test, seed):
    """NGBoost with as many trees as rows that are held out ask for; then it is fitted to all rows."""
    held = held_out(len(y), seed)
    model = NGBRegressor(n_estimators=_MOST_TREES, random_state=seed, verbose=False)
    model.fit(train[~held], y[~held], train[held], y[held], early_stopping_rounds=_TREES_OF_PATIENCE)
    # It counts them from 0, and says nothing where it did not stop.
    best = _MOST_TREES if model.best_val_loss_itr is None else model.best_val_loss_itr + 1
    score, _ = boosted(train, y, test, seed, best)
    return score, f"as many of {_MOST_TREES:,} trees as suit a tenth of the rows, refitted"


def quantile_forest(train, y, test, seed):
    """A forest whose leaves keep all rows (Meinshausen, Quantile regression forests, 2006)."""
    model = RandomForestQuantileRegressor(_TREES, min_samples_leaf=_LEAF, max_samples_leaf=None, random_state=seed)
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    values = model.fit(train, y).predict(test, quantiles=levels.tolist())
    said = f"{_TREES} trees, leaves of {_LEAF} rows or more, {_QUANTILES} quantiles"
    return partial(of_quantiles, values), said


def gaussian_process(train, y, test, seed):
    """A Gaussian process with a length for each column, and noise."""
    units = Standardizer(train)
    kernel = ConstantKernel() * RBF(np.ones(train.shape[1])) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed).fit(units(train), y)
    return normals(*model.predict(units(test), return_std=True)).scores, "RBF with a length for each column, noise"


def mixture_net(train, y, test, seed):
    """A net for a mixture of normals (Bishop, Mixture density networks, 1994), stopped early."""
    torch.manual_seed(seed)
    units, of_y, held = Standardizer(train), Standardizer(y), held_out(len(y), seed)
    x, target, new = (torch.as_tensor(rows, dtype=torch.float32) for rows in (units(train), of_y(y), units(test)))
    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], _WIDTH), torch.nn.SiLU(), torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.SiLU(),
        torch.nn.Linear(_WIDTH, 3 * _COMPONENTS),
    )  # fmt: skip

    def law(x):
        weight, loc, scale = net(x).chunk(3, dim=1)
        normal = torch.distributions.Normal(loc, torch.nn.functional.softplus(scale) + _LEAST_SCALE)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=weight), normal)

    fit_early(net, lambda at: -law(x[at]).log_prob(target[at]).mean(), ~held, held)
    with torch.no_grad():
        mixture = law(new)
    parts = mixture.mixture_distribution.probs, mixture.component_distribution.loc, mixture.component_distribution.scale
    weight, loc, scale = (part.double().numpy() for part in parts)
    said = f"{_COMPONENTS} components, 2 layers of {_WIDTH}, Adam 1e-3, stopped by a tenth of the rows"
    return Gaussians(weight, of_y.loc + of_y.scale * loc, of_y.scale * scale).scores, said


def fit_early(net, loss, trained: np.ndarray, held: np.ndarray) -> None:
    """Train a net until held-out rows are no more likely for long, and keep it as it was when they were most."""
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    rows, held = torch.from_numpy(np.flatnonzero(trained)), torch.from_numpy(np.flatnonzero(held))
    lowest, state, since = np.inf, None, 0
    for _ in range(_MOST_EPOCHS):
        for at in rows[torch.randperm(len(rows))].split(_BATCH):
            adam.zero_grad()
            loss(at).backward()
            adam.step()
        with torch.no_grad():
            now = loss(held).item()
        since += 1
        if now < lowest:
            lowest, since = now, 0
            state = {name: value.clone() for name, value in net.state_dict().items()}
        if since == _EPOCHS_OF_PATIENCE:
            break
    net.load_state_dict(state)


def linear(train, y, test, seed):
    """A line through the rows, and one normal about it."""
    model = LinearRegression().fit(train, y)
    variance = np.sum((y - model.predict(train)) ** 2) / (len(y) - train.shape[1] - 1)
    return normals(model.predict(test), np.sqrt(variance)).scores, "least squares, one variance"


METHODS = {
    "NGBoost": boosted,
    "NGBoost, stopped early": boosted_with_care,
    "quantile forest": quantile_forest,
    "Gaussian process": gaussian_process,
    "mixture density network": mixture_net,
    "linear Gaussian": linear,
}

if __name__ == "__main__":
    main_of_predictions(METHODS, ("ngboost", "quantile-forest", "scikit-learn", "torch"))
