"""Fields with closed-form solutions, registries of constructors, and the checkers that tests share.

A checker raises AssertionError where the part it is given is wrong. The tests run it on the real parts,
`test_planted_bugs.py` on broken ones: there it must raise.
"""

import functools
import importlib.util
import math
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import linalg

from liouville import evaluation
from liouville._types import partition
from liouville.bijections import CNF, Chain, GaussianMargins, GaussianRadius, Invert, Standardize, Whiten
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.flows import FlowSpec, MixedSpec
from liouville.integrate import Integrator
from liouville.mixed import Column, Mixed, MixedFrame, Subsets, fit_mixed, mixture_of
from liouville.papers import Galerkin, Hypernetwork, Planar, PlanarField, Potential, Radial, Residual, TrainedTime
from liouville.vector_fields import MLP, AbstractVectorField, ConcatSquash, Preconditioned


class LinearField(AbstractVectorField):
    """``A x``, whose flow over time T is ``expm(T A)``, with log-determinant ``T trace(A)``."""

    matrix: Array

    @property
    def shape(self):
        return self.matrix.shape[:1]

    @property
    def cond_shape(self):
        return None

    def __call__(self, t, x, condition=None):
        return self.matrix @ x


class TanhField(AbstractVectorField):
    """A nonlinear field that depends on time; `rate` scales time, so that one compilation serves all step sizes."""

    matrix: Array
    rate: Array | float = 1.0

    @property
    def shape(self):
        return self.matrix.shape[:1]

    @property
    def cond_shape(self):
        return None

    def __call__(self, t, x, condition=None):
        return self.rate * (jnp.tanh(self.matrix @ x) + jnp.sin(3 * self.rate * t))


class ShiftField(AbstractVectorField):
    """The condition itself: the flow over unit time adds it."""

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def cond_shape(self):
        return self.shape

    def __call__(self, t, x, condition=None):
        return condition + 0 * x


def randomize(field: AbstractVectorField, seed: int, scale: float = 0.25) -> AbstractVectorField:
    """Give random weights to what starts at zero, such as an output layer: there most tests would be blind."""
    if isinstance(field, Preconditioned):
        return Preconditioned(randomize(field.rest, seed, scale))
    if not isinstance(field, MLP):
        rng = np.random.default_rng(seed)
        draw = lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)
        asleep = lambda leaf: eqx.is_inexact_array(leaf) and not np.any(leaf)
        return jax.tree.map(lambda leaf: draw(leaf) if asleep(leaf) else leaf, field)
    weight = scale * np.random.default_rng(seed).normal(size=field.outer.weight.shape)
    weight = jnp.asarray(weight, field.outer.weight.dtype)
    return eqx.tree_at(lambda f: (f.outer.weight, f.outer.bias), field, (weight, weight[:, 0]))


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page of the repository that are in one language."""
    text = (Path(__file__).parents[1] / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


SKELETONS = ("vector_fields._plain", "bijections._arcsinh")


@functools.cache
def skeleton(name: str) -> ModuleType:
    """Return a part that CONTRIBUTING.md shows, as the module of the package that it is to be."""
    code = dict(zip(SKELETONS, blocks("CONTRIBUTING.md", "python"), strict=True))[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(f"liouville.{name}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


FIELDS: dict[str, Callable] = {
    "contributing": lambda shape, **kwargs: skeleton("vector_fields._plain").Plain(shape, width=8, depth=1, **kwargs),
    "mlp": lambda shape, **kwargs: MLP(shape, width=8, depth=1, **kwargs),
    "concat_squash_0": lambda shape, **kwargs: ConcatSquash(shape, depth=0, **kwargs),
    "concat_squash_2": lambda shape, **kwargs: ConcatSquash(shape, width=8, depth=2, **kwargs),
    "galerkin": lambda shape, **kwargs: Galerkin(shape, width=8, depth=1, terms=4, **kwargs),
    "hypernetwork": lambda shape, **kwargs: Hypernetwork(shape, width=8, depth=1, hyper_width=3, **kwargs),
    "planar": lambda shape, **kwargs: PlanarField(shape, width=8, **kwargs),
    "potential_0": lambda shape, **kwargs: Potential(shape, width=8, depth=0, **kwargs),
    "potential_3": lambda shape, **kwargs: Potential(shape, width=8, depth=3, **kwargs),
    "preconditioned": lambda shape, **kwargs: Preconditioned(MLP(shape, width=8, depth=1, **kwargs)),
    "trained_time": lambda shape, **kwargs: TrainedTime(
        PlanarField(shape, width=8, form="layers", **kwargs), end_time=0.7
    ),
    **{
        f"{conditioning}_1": lambda shape, c=conditioning, **kwargs: ConcatSquash(
            shape, width=8, depth=1, conditioning=c, **kwargs
        )
        for conditioning in ("blend", "concat", "hyper", "squash")
    },
}


@functools.cache
def make_field(name: str, shape=(3,), cond_shape=None) -> AbstractVectorField:
    """Return a field of the registry, its weights random throughout, and of float32 whichever test asks first."""
    with jax.enable_x64(False):
        return randomize(FIELDS[name](shape, cond_shape=cond_shape, key=jax.random.key(0)), seed=1)


def random_cnf(size: int, *, integrator: Integrator | None = None, scale: float = 0.25) -> CNF:
    """Return a flow of a preconditioned MLP with random weights."""
    field = Preconditioned(MLP((size,), width=8, depth=1, key=jax.random.key(3)))
    integrator = Integrator.constant(20) if integrator is None else integrator
    return CNF(randomize(field, 4, scale), integrator=integrator)


def odd_table(rows: int = 400, size: int = 3, seed: int = 0) -> np.ndarray:
    """Return a table with heavy tails, correlations, and columns of unlike scale."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(size) + 0.5 * np.tri(size, k=-1)
    return rng.standard_t(4, size=(rows, size)) @ mixing * 10.0 ** np.arange(size) + 3.0


def _fit(cls, rows=None):
    rows = odd_table() if rows is None else rows
    return cls.fit(rows, np.ones(len(rows)))


def _chain() -> Chain:
    rows = odd_table()
    standardize = _fit(Standardize, rows)
    rows = standardize.inverse(rows)
    margins = _fit(GaussianMargins, rows)
    rows = margins.inverse(rows)
    return Chain([_fit(GaussianRadius, _fit(Whiten, rows).inverse(rows)), _fit(Whiten, rows), margins, standardize])


CLOSED_FORMS: dict[str, Callable] = {
    "standardize": lambda: _fit(Standardize),
    "whiten": lambda: _fit(Whiten),
    "gaussian_margins": lambda: _fit(GaussianMargins),
    "gaussian_radius": lambda: _fit(GaussianRadius),
    "contributing": lambda: _fit(skeleton("bijections._arcsinh").Arcsinh),
    "chain": _chain,
    "invert": lambda: Invert(_chain()),
}
# Forward mode compiles in a third of the time, and is as good an oracle.
FORWARD = Integrator.constant(60, adjoint=diffrax.ForwardMode())
BIJECTIONS: dict[str, Callable] = {**CLOSED_FORMS, "cnf": lambda: random_cnf(3, integrator=FORWARD)}


def _discrete_chain(shape) -> Chain:
    return Chain([DISCRETE[name](shape) for name in ("planar", "radial", "residual")])


# Strong layers: at their initial weights they hardly bend, and tests would be blind.
DISCRETE: dict[str, Callable] = {
    "planar": lambda shape: eqx.tree_at(
        lambda layer: layer.direction,
        Planar(shape, key=jax.random.key(0)),
        jnp.linspace(-2.0, 1.5, math.prod(shape)).reshape(shape),
    ),
    "radial": lambda shape: eqx.tree_at(
        lambda layer: layer.strength, Radial(shape, key=jax.random.key(1)), jnp.asarray(-1.0)
    ),
    "residual": lambda shape: Residual(shape, width=16, key=jax.random.key(2)),
    "discrete_chain": _discrete_chain,
}


def check_log_det(bijection, points, atol: float) -> None:
    """Both maps undo each other, and their log-determinants are those of the autodiff Jacobians."""

    def there_and_back(z):
        x, up = bijection.transform_and_log_det(z)
        back, down = bijection.inverse_and_log_det(x)
        return x, back, up, down, jax.jacfwd(bijection.transform)(z), jax.jacfwd(bijection.inverse)(x)

    x, back, up, down, jacobian, inverse_jacobian = eqx.filter_jit(jax.vmap(there_and_back))(points)
    np.testing.assert_allclose(back, points, atol=atol, rtol=atol)
    np.testing.assert_allclose(up, np.linalg.slogdet(jacobian)[1], atol=atol)
    np.testing.assert_allclose(down, np.linalg.slogdet(inverse_jacobian)[1], atol=atol)
    # A map that is no map at all would pass what is above.
    assert np.all(np.isfinite(x)) and np.ptp(x) > 0


MATRIX = np.array([[0.3, -1.1, 0.2], [0.9, 0.4, 0.1], [-0.2, 0.5, -0.2]])


def check_linear_flow(cnf_type: type[CNF], atol: float = 1e-6, integrator: Integrator | None = None) -> None:
    """The flow of a linear field is the matrix exponential, from base to data and back."""
    integrator = Integrator.constant(40) if integrator is None else integrator
    cnf = cnf_type(LinearField(jnp.asarray(MATRIX)), integrator=integrator)
    z = jnp.array([0.5, -1.0, 2.0])

    @eqx.filter_jit
    def both(cnf, z):
        return cnf.transform_and_log_det(z), cnf.inverse_and_log_det(z)

    (x, log_det), (base, base_log_det) = both(cnf, z)
    np.testing.assert_allclose(x, linalg.expm(MATRIX) @ z, atol=atol)
    np.testing.assert_allclose(base, linalg.expm(-MATRIX) @ z, atol=atol)
    np.testing.assert_allclose(log_det, np.trace(MATRIX), atol=atol)
    np.testing.assert_allclose(base_log_det, -np.trace(MATRIX), atol=atol)


def check_hutchinson(divergence, num_probes: int, num_keys: int = 20_000) -> None:
    """The mean is the trace; the variance is the closed form's share of one in `num_probes`."""
    x = jnp.array([0.2, -0.4, 1.0])
    keys = jax.random.split(jax.random.key(5), num_keys)
    draw = lambda key: divergence(lambda x: jnp.asarray(MATRIX) @ x, x, divergence.init(x, key))[1]
    values = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
    std_error = values.std() / np.sqrt(num_keys)
    assert abs(values.mean() - np.trace(MATRIX)) < 5 * std_error
    # Variance of e' J e, in the symmetric part S of J: 2 |S|^2 for normal probes, without S's diagonal for signs.
    symmetric = (MATRIX + MATRIX.T) / 2
    if divergence.noise == "rademacher":
        symmetric = symmetric - np.diag(np.diag(symmetric))
    expected = 2 * np.sum(symmetric**2) / num_probes
    variance_error = np.std((values - values.mean()) ** 2) / np.sqrt(num_keys)
    assert abs(values.var() - expected) < 5 * variance_error


def check_condition(flow_of: Callable[[CNF], Transformed]) -> None:
    """A flow that shifts by its condition has the shifted normal density, and samples around its condition."""
    flow = flow_of(CNF(ShiftField((1,)), integrator=Integrator.constant(4, diffrax.Euler())))
    x, condition = jnp.array([[0.3], [0.3], [-1.0]]), jnp.array([[0.0], [2.0], [-5.0]])
    log_prob, samples = eqx.filter_jit(
        lambda flow: (flow.log_prob(x, condition), flow.sample(jax.random.key(0), (400,), jnp.array([7.0])))
    )(flow)
    expected = -0.5 * np.asarray(x - condition)[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob, expected, atol=1e-5)
    assert abs(np.mean(samples) - 7.0) < 5 / np.sqrt(400)


def check_mass(flow: Transformed, centre: float, scale: float, atol: float = 1e-3) -> None:
    """A density on the line integrates to 1, in the units of the data."""
    grid = np.linspace(centre - 12 * scale, centre + 12 * scale, 1201)
    log_prob = eqx.filter_jit(lambda flow, x: flow.log_prob(x))(flow, grid[:, None])
    np.testing.assert_allclose(np.trapezoid(np.exp(np.asarray(log_prob)), grid), 1.0, atol=atol)


def scaled_flow(standardize_type: type[Standardize]) -> Transformed:
    """Return a random flow behind a change of units."""
    bijection = Chain([random_cnf(1), standardize_type([1e3], [50.0])])
    return Transformed(Normal.standard((1,)), bijection)


def mixed_density(frame_type: type[MixedFrame] = MixedFrame, change: Callable[[Mixed], Mixed] = lambda m: m) -> Density:
    """Return the density, not trained, of rows of a level, a count, and an amount that is zero for some.

    Untrained, it knows shares, means and spreads.
    """
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(3, 600, p=MIXED_SHARES), rng.poisson(2, 600), 5 * rng.lognormal(size=600)], axis=1)
    rows[rng.random(600) < 0.4, 2] = 0.0
    columns = (Column("code", 3), Column("whole", lowest=0.0), Column("continuous", atoms=(0.0,), edges=(0.0, np.inf)))
    frame, points = fit_mixed("standardize", rows, np.ones(600), columns)
    spec = MixedSpec.fit(FlowSpec(1, width=8, depth=1), frame, points, np.ones(600))
    return Density(change(spec(jax.random.key(0))), frame_type(frame.columns, frame.margins, frame.joint))


MIXED_SHARES = (0.5, 0.3, 0.2)


def check_mixed(density: Density) -> None:
    """Raise where masses and densities of `mixed_density` do not sum to 1, or levels have not their shares."""
    amounts = np.r_[0.0, np.exp(np.linspace(-6, 9, 500))]
    grid = np.array([(k, c, y) for k in range(3) for c in range(14) for y in amounts])
    prob = np.exp(evaluation.score(density, grid)[0]).reshape(3, 14, -1)
    of_level = prob[..., 0].sum(1) + np.trapezoid(prob[..., 1:] * amounts[1:], np.log(amounts[1:])).sum(1)
    assert abs(of_level.sum() - 1) < 3e-3, of_level.sum()
    assert np.abs(of_level - MIXED_SHARES).max() < 0.06, of_level
    # A count that has no end is somewhere with certainty, however low.
    alone = density.core.cells
    told = jnp.zeros(alone.cond_shape)
    masses = np.exp(alone.log_prob(jnp.arange(40.0)[:, None], told))
    assert abs(masses.sum() - 1) < 3e-3, masses.sum()


def subsets(change: Callable[[Subsets], Subsets] = lambda m: m) -> Subsets:
    """Return any columns given any others of rows of a level, a count and two amounts, of random weights."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(3, 400), rng.poisson(2, 400), *rng.normal(size=(2, 400))], axis=1)
    columns = (Column("code", 3), Column("whole", lowest=0.0), Column("continuous"), Column("continuous"))
    frame, points = fit_mixed("standardize", rows, np.ones(400), columns, by_column=True)
    mixture = mixture_of(frame, points, np.ones(400), np.arange(400) % 2)
    spec = MixedSpec.fit(FlowSpec(2, width=8, depth=1), frame, points, np.ones(400), True, mixture)
    free, rest = partition(spec(jax.random.key(0)))
    leaves, tree = jax.tree.flatten(free)
    noise = [0.2 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
    flow = eqx.combine(jax.tree.unflatten(tree, [a + b for a, b in zip(leaves, noise, strict=True)]), rest)
    return change(eqx.tree_at(lambda flow: flow.beside.share, flow, np.asarray(0.4)))


# What is asked for, and what is given, of a level, a count and two amounts.
QUESTIONS = (
    ((0,), (2, 3)),
    ((1,), (0, 3)),
    ((2,), (0, 1, 3)),
    ((3,), ()),
    ((0, 1), (2,)),
    ((2, 3), ()),
    ((0, 3), (1,)),
)


def check_subsets(flow: Subsets) -> None:
    """Raise where probabilities of some columns given others do not sum and integrate to 1."""
    line = np.linspace(-12, 12, 161)
    values, weights = (np.arange(3.0), np.arange(40.0), line, line), (1.0, 1.0, line[1] - line[0], line[1] - line[0])
    row = np.array([2.0, 3.0, 0.7, -0.4])
    for asked, given in QUESTIONS:
        grid = np.stack(np.meshgrid(*(values[j] for j in asked), indexing="ij"), -1).reshape(-1, len(asked))
        points, condition = np.full((len(grid), 4), np.nan), np.full((len(grid), 4), np.nan)
        points[:, asked], condition[:, given] = grid, row[list(given)]
        mass = np.exp(evaluation.score(flow, points, condition)[0]).sum() * np.prod([weights[j] for j in asked])
        assert abs(mass - 1) < 2e-3, (asked, given, mass)
