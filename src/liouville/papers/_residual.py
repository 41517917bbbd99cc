"""The residual block: a network added to the identity, kept so flat that the sum can be undone."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float, Int

from .._activations import activate, check_activation
from .._draws import split
from .._types import Condition, Key, Point, Scalar
from ..bijections import AbstractBijection, Moved, map_parts
from ..distributions import Transformed
from ..divergences import Hutchinson
from ..integrate import SolveInfo
from ..objectives import AbstractObjective, AbstractObjectiveOf, Batch
from ._discrete import solver_info

# The steepest slope of each activation that has one above 1.
STEEPEST = {"gelu": 1.13, "silu": 1.1}
NUM_SQUARINGS = 5

Tree = TypeVar("Tree")
Layers: TypeAlias = tuple[tuple[Float[Array, "out in"], Float[Array, " out"]], ...]


class PowerSeries(eqx.Module):
    """``log det(I + J)`` as the series ``tr J - tr J^2 / 2 + tr J^3 / 3 - ...``, cut short or at random.

    Cut after `num_terms` terms it is biased by at most `bound` (Behrmann and others, Invertible residual
    networks, 2019, theorem 3). With `stop` it goes on, and after each further term ends with this
    probability; dividing the terms by the chance that they are reached makes the estimate unbiased (Chen and others,
    Residual flows, 2019, theorem 1). Its variance is finite where ``lipschitz^2 < 1 - stop``, for certain.

    The gradient is that of the Neumann series (equation 8 there): with a trace over all entries it is the exact
    gradient of the truncated sum, else an unbiased estimate of it, in memory that does not grow with the terms. It
    is there for first derivatives: second ones come out wrong.

    Parameters
    ----------
    num_terms
        Number of terms that are always there.
    stop
        Probability to end after each term beyond them; None ends with them.
    num_probes
        Number of random sign vectors that estimate the traces (Hutchinson, 1990); None takes all entries instead,
        exactly.

    Raises
    ------
    ValueError
        Where a number has no meaning.

    Examples
    --------
    >>> print(f"{PowerSeries(num_terms=10).bound(size=2, lipschitz=0.5):.5f}")
    0.00018
    """

    num_terms: int = eqx.field(default=10, static=True)
    stop: float | None = eqx.field(default=None, static=True)
    num_probes: int | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if self.num_terms < 1 or (self.num_probes is not None and self.num_probes < 1):
            raise ValueError(f"Expected num_terms and num_probes of at least 1, got {self}; try PowerSeries().")
        if self.stop is not None and not 0 < self.stop < 1:
            raise ValueError(f"Expected a probability between 0 and 1 for stop, got {self.stop}; try 0.1.")

    @property
    def is_random(self) -> bool:
        """Return True where a key is needed."""
        return self.stop is not None or self.num_probes is not None

    def bound(self, size: int, lipschitz: float) -> float:
        """Return the most that the terms beyond `num_terms` add up to, in nats, in `size` dimensions."""
        rest = self.num_terms + 1
        return size * lipschitz**rest / (rest * (1 - lipschitz))

    def __call__(
        self, fn: Callable[[Layers, Point], Point], layers: Layers, z: Point, key: Key | None
    ) -> tuple[Scalar, Scalar]:
        """Return the log-determinant of ``z + fn(layers, z)``, in nats, and its squared standard error.

        The error is 0 where nothing is random and NaN for a single draw, which says nothing of it.

        Raises
        ------
        ValueError
            Where something is random and `key` is None.
        """
        if self.is_random and key is None:
            raise ValueError("Expected a key for the random series, got None; try key=jax.random.key(0).")
        key = jax.random.key(0) if key is None else key
        probe_key, stop_key = jax.random.split(key)
        if self.num_probes is None:
            probes = jnp.eye(z.size, dtype=z.dtype).reshape(z.size, *z.shape)
            last = self._last_term(stop_key)
            terms = jax.vmap(lambda probe: self._estimate(fn, layers, z, probe, last))(probes)
            return jnp.sum(terms), jnp.asarray(0.0 if self.stop is None else math.nan, z.dtype)
        probes = Hutchinson(noise="rademacher", num_probes=self.num_probes).init(z, probe_key)
        last = jax.vmap(self._last_term)(jax.random.split(stop_key, self.num_probes))
        terms = jax.vmap(lambda probe, last: self._estimate(fn, layers, z, probe, last))(probes, last)
        # One value has no variance: 0 / 0.
        spread = jnp.sum((terms - jnp.mean(terms)) ** 2) / jnp.asarray(self.num_probes - 1, z.dtype)
        return jnp.mean(terms), spread / self.num_probes

    def _last_term(self, key: Key) -> Int[Array, ""]:
        more = 0 if self.stop is None else jax.random.geometric(key, self.stop) - 1
        return jnp.asarray(self.num_terms + more)

    def _estimate(self, fn: Callable, layers: Layers, z: Point, probe: Point, last: Int[Array, ""]) -> Scalar:
        still_layers, still_z = jax.lax.stop_gradient((layers, z))
        _, pull = jax.vjp(partial(fn, still_layers), still_z)
        reach = 1.0 if self.stop is None else 1 - self.stop

        def add_term(k: Int[Array, ""], carry: tuple[Point, Scalar, Point]) -> tuple[Point, Scalar, Point]:
            row, total, neumann = carry
            weight = jnp.where(k % 2 == 1, 1.0, -1.0) / reach ** jnp.maximum(k - self.num_terms, 0)
            neumann = neumann + weight * row
            (row,) = pull(row)
            return row, total + weight / k * jnp.sum(row * probe), neumann

        start = (probe, jnp.zeros((), z.dtype), jnp.zeros_like(probe))
        _, total, neumann = jax.lax.fori_loop(1, last + 1, add_term, start)
        # d log det(I + J) = tr((I + J)^-1 dJ): this adds 0 to the value and that to the gradient.
        _, moved = jax.jvp(partial(fn, layers), (z,), (probe,))
        slope = jnp.sum(neumann * moved)
        return total + slope - jax.lax.stop_gradient(slope)


class Residual(AbstractBijection):
    """``x = z + g(z)`` with a network `g` whose Lipschitz constant is below 1 (i-ResNet, 2019; residual flow, 2019).

    Each weight matrix is divided by what its spectral norm exceeds its share of `lipschitz` by. The norm
    is bounded from above (`spectral_bound`), not iterated from below: so the constraint holds at every step of
    training, and nothing has to be remembered between steps. The inverse is the fixed point of ``z = x - g(z)``
    (Behrmann and others, 2019, algorithm 1), unique, found to rounding, and checked.

    Parameters
    ----------
    shape
        Shape of one point.
    width, depth
        Units of the hidden layers, and number of hidden layers.
    activation
        Name of the activation, divided by its steepest slope; ``"silu"`` makes it the paper's LipSwish.
    lipschitz
        Bound of the Lipschitz constant of `g`, below 1. One block stretches lengths by ``1 - lipschitz`` to
        ``1 + lipschitz``: chain several.
    series
        How the log-determinant is estimated; None computes it exactly from the Jacobian, at the cost of as many
        products with it as there are entries.
    max_steps
        Cap on the steps of the inverse.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where `lipschitz` is not between 0 and 1, or the activation is not known.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> block = Residual((2,), width=8, key=jax.random.key(0))
    >>> x, log_det = block.transform_and_log_det(jnp.ones(2))
    >>> print(jnp.allclose(block.inverse(x), 1.0, atol=1e-4))
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    lipschitz: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    series: PowerSeries | None
    layers: Layers

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        activation: str = "silu",
        lipschitz: float = 0.9,
        series: PowerSeries | None = None,
        max_steps: int = 1000,
        key: Key,
    ):
        if not 0 < lipschitz < 1:
            raise ValueError(f"Expected a lipschitz constant between 0 and 1, got {lipschitz}; try 0.9.")
        self.shape, self.cond_shape = tuple(shape), None
        self.activation, self.lipschitz = check_activation(activation), lipschitz
        self.series, self.max_steps = series, max_steps
        sizes = [math.prod(shape), *[width] * depth, math.prod(shape)]
        draw = lambda key, i: jax.random.normal(key, (sizes[i + 1], sizes[i])) / math.sqrt(sizes[i])
        keys = split(key, depth + 1)
        self.layers = tuple((draw(keys[i], i), jnp.zeros(sizes[i + 1])) for i in range(depth + 1))

    def flat_layers(self) -> Layers:
        """Return weights and biases with each spectral norm at most its share of `lipschitz`."""
        share = self.lipschitz ** (1 / len(self.layers))
        return tuple((weight / jnp.maximum(1.0, spectral_bound(weight) / share), bias) for weight, bias in self.layers)

    def branch(self, layers: Layers, z: Point) -> Point:
        """Return ``g(z)`` by the `layers` that `flat_layers` made."""
        steepest = STEEPEST.get(self.activation, 1.0)
        h = jnp.ravel(z)
        for weight, bias in layers[:-1]:
            h = activate(self.activation, weight @ h + bias) / steepest
        weight, bias = layers[-1]
        return (weight @ h + bias).reshape(self.shape)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``z + g(z)`` and its log-determinant: exact, or as `series` estimates it, with its variance."""
        layers = self.flat_layers()
        log_det, variance = self._log_det(layers, z, key) if density else (None, 0.0)
        return Moved(z + self.branch(layers, z), log_det, variance)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return the preimage, to rounding, and minus its log-determinant; NaN where the iteration did not settle."""
        layers = self.flat_layers()
        z, info = self._solve(layers, x)
        if not density:
            return Moved(z, None, info=info)
        log_det, variance = self._log_det(layers, z, key)
        return Moved(z, -log_det, variance, info=info)

    def _log_det(self, layers: Layers, z: Point, key: Key | None) -> tuple[Scalar, Scalar]:
        if self.series is not None:
            return self.series(self.branch, layers, z, key)
        jacobian = jax.jacfwd(partial(self.branch, layers))(z).reshape(z.size, z.size)
        return jnp.linalg.slogdet(jnp.eye(z.size, dtype=z.dtype) + jacobian)[1], jnp.zeros((), z.dtype)

    def _solve(self, layers: Layers, x: Point) -> tuple[Point, SolveInfo]:
        # The last step's length bounds the distance that is left, up to lipschitz / (1 - lipschitz). Terms as large as
        # the largest entry may cancel in the others, so their rounding is of its size.
        tolerance = 16 * float(jnp.finfo(x.dtype).eps)
        size = tolerance * (1 + jax.lax.stop_gradient(jnp.max(jnp.abs(x))))
        solution = optimistix.fixed_point(
            lambda z, args: args[1] - self.branch(args[0], z),
            optimistix.FixedPointIteration(rtol=tolerance, atol=size),  # pyright: ignore[reportArgumentType]
            x,
            (layers, x),
            max_steps=self.max_steps,
            throw=False,
        )
        arrived = (solution.result == optimistix.RESULTS.successful) & jnp.all(jnp.isfinite(solution.value))
        return jnp.where(arrived, solution.value, jnp.nan), solver_info(x, arrived, solution.stats["num_steps"])


def spectral_bound(weight: Float[Array, "out in"]) -> Scalar:
    """Return an upper bound of the largest singular value: the Schatten norm of order 64.

    It is at most ``n^(1/64)`` times too large for `n` singular values that are all alike (7% for 64 of them), and
    close to exact where one is the largest. Unlike power iteration it is never too small, and unlike the
    largest singular value it is smooth. It takes five products of the smaller Gram matrix with itself.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(spectral_bound(jnp.diag(jnp.array([3.0, 1.0]))).round(4))
    3.0
    """
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    log_factor = jnp.zeros((), weight.dtype)
    for _ in range(NUM_SQUARINGS):
        # Unscaled, powers leave the range of float32.
        trace = jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
        gram, log_factor = gram / trace, log_factor + jnp.log(trace)
        gram, log_factor = gram @ gram, 2 * log_factor
    return jnp.exp((log_factor + jnp.log(jnp.trace(gram))) / 2 ** (NUM_SQUARINGS + 1))


class WithSeries(AbstractObjectiveOf):
    """An objective on the flow whose residual blocks estimate their log-determinants by a series.

    Train with a random series; the flow itself keeps its own, None as a rule, by which it is evaluated exactly.

    Parameters
    ----------
    objective
        What is made small, for example `liouville.objectives.MaximumLikelihood`.
    series
        How every `Residual` block estimates its log-determinant in training.

    Examples
    --------
    >>> from liouville.objectives import MaximumLikelihood
    >>> WithSeries(MaximumLikelihood(), PowerSeries(2, stop=0.15)).series.num_terms
    2
    """

    objective: AbstractObjective
    series: PowerSeries

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the objective of the flow as it is trained."""
        return self.objective(with_series(flow, self.series), batch, key=key)


def with_series(tree: Tree, series: PowerSeries | None) -> Tree:
    """Return a flow, or any part of one, whose residual blocks estimate log-determinants another way."""
    swap = lambda node: eqx.tree_at(lambda b: b.series, node, series, is_leaf=lambda n: n is None)
    return map_parts(Residual, swap, tree)
