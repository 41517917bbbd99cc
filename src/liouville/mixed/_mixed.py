"""A row of codes, whole numbers and continuous numbers: one normalized log-probability."""

import math
from typing import Any, TypeAlias, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Scalar
from ..bijections import Moved
from ..distributions import AbstractDistribution, Transformed
from ..integrate import Integrator, SolveInfo
from ..objectives import AbstractObjective, Batch, FlowMatching
from ..vector_fields import Perceptron, RowFeatures, mask_of
from ._cells import Cells
from ._codes import Codes
from ._expected import Expected
from ._known import GAIN, Known

# What all parts are told of a row that is given, or None.
Hidden: TypeAlias = Float[Array, " width"] | None


class MaskedNormal(AbstractDistribution):
    """Standard normal entries where the mask, with which the condition begins, is 1; zeros, of density 1, elsewhere.

    Parameters
    ----------
    shape, cond_shape
        Shape of one point, and of the condition: both are vectors.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(f"{MaskedNormal((2,), (2,)).log_prob(jnp.zeros(2), jnp.array([1.0, 0.0])):.4f}")
    -0.9189
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return -jnp.sum(mask_of(condition, self.shape) * (x**2 + math.log(2 * math.pi))) / 2

    def _likelihood(self, x: Point, condition: Condition) -> Scalar:
        # Where there are fewer entries all densities are higher: those that are not there count as they do on average.
        missing = jnp.sum(1 - mask_of(condition, self.shape))
        return self._log_prob(x, condition, None) - missing * (1 + math.log(2 * math.pi)) / 2

    def _sample(self, key: Key, condition: Condition) -> Point:
        return mask_of(condition, self.shape) * jax.random.normal(key, self.shape)

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition, None)


def _sum(told: Array, hidden: Hidden) -> Array:
    return told if hidden is None else told + hidden


class Mixed(AbstractDistribution):
    """``log p(row) = log P(codes) + log P(whole numbers | codes) + log p(continuous | codes, whole numbers)``.

    A row is a vector: codes first, then whole numbers, then continuous ones. Counting measure on the first two,
    Lebesgue measure on the third: `exp` of the log-probability sums and integrates to 1. A number may be switched off
    by a code, as one that is in part a few values, zeros for example, is by the code that says which of them: then it
    is 0, and its probability no part of the row's.

    Parameters
    ----------
    codes, cells
        The codes and the whole numbers of a row, the latter told `width` numbers; or None.
    core
        The continuous numbers, under conditions of a mask and `width` numbers; or None.
    switches
        For each whole number and each continuous number the code that switches it off where it is not 0, or None.
    width
        Units of what the parts are told of each other.
    given
        Of a row that all of it is conditioned on, how many levels each code has, and how many numbers there are; the
        codes of this row are then under conditions, too. None is no condition.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where the conditions of the parts are of other shapes.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    switches: tuple[int | None, ...] = eqx.field(static=True)
    codes: Codes | None
    cells: Cells | None
    core: Transformed | None
    of_codes: RowFeatures
    of_all: RowFeatures
    encoder: Perceptron
    of_given: Known | None

    def __init__(
        self,
        codes: Codes | None,
        cells: Cells | None,
        core: Transformed | None,
        switches: tuple[int | None, ...] = (),
        *,
        width: int = 64,
        given: tuple[tuple[int, ...], int] | None = None,
        key: Key,
    ):
        sizes = [0 if part is None else part.shape[0] for part in (codes, cells, core)]
        told = [None if part is None else part.cond_shape for part in (cells, core)]
        if told[0] not in (None, (sizes[1] + width,)) or told[1] not in (None, (sizes[2] + width,)):
            raise ValueError(
                f"Expected conditions of shape {(sizes[1] + width,)} and {(sizes[2] + width,)}, got {told[0]} and "
                f"{told[1]}; try another width."
            )
        self.shape, self.cond_shape = (sum(sizes),), None if given is None else (len(given[0]) + given[1],)
        self.codes, self.cells, self.core = codes, cells, core
        self.switches = tuple(switches) or (None,) * (sizes[1] + sizes[2])
        levels = [] if codes is None else list(codes.levels)
        keys = split(key, 3)
        self.of_codes = RowFeatures(levels, 0, width, key=keys[0])
        self.of_all = RowFeatures(levels, sizes[1], width, key=keys[1], gain=GAIN)
        self.encoder = Perceptron([width, width, width], "silu", key=keys[2], gain=GAIN)
        self.of_given = None
        if given is not None:
            self.of_given = Known([*given[0]], 2 * given[1], width, key=jax.random.fold_in(key, 3), gain=GAIN)

    def parts(self, x: Point) -> tuple[Point, Point, Point]:
        """Return codes, whole numbers and continuous numbers of a row."""
        num = self._num_codes
        more = num + self._num_cells
        return x[:num], x[num:more], x[more:]

    def masks(self, codes: Point) -> tuple[Point, Point]:
        """Return 1 for each whole number and each continuous number that there is, and 0 for the others."""
        one = jnp.ones((), codes.dtype)
        is_on = [one if j is None else (codes[j] == 0).astype(codes.dtype) for j in self.switches]
        is_on = jnp.stack(is_on) if is_on else jnp.zeros(0, codes.dtype)
        return is_on[: self._num_cells], is_on[self._num_cells :]

    def tellers(self) -> list:
        """Return what tells parts of a row of others."""
        of_cells = None if self.cells is None else self.cells.encoder
        return [self.codes, self.of_codes, self.of_all, self.encoder, of_cells, self.of_given]

    @property
    def _num_codes(self) -> int:
        return 0 if self.codes is None else self.codes.shape[0]

    @property
    def _num_cells(self) -> int:
        return 0 if self.cells is None else self.cells.shape[0]

    def told(self, codes: Point, hidden: Hidden = None) -> Float[Array, " told"]:
        """Return what the whole numbers are conditioned on: what codes let expect of them, the codes, what is given."""
        expected = cast(Expected, cast(Cells, self.cells).expected).offset(codes)
        return jnp.concatenate([expected, _sum(self.of_codes(codes, jnp.zeros(0, codes.dtype)), hidden)])

    def context(self, codes: Point, numbers: Point, hidden: Hidden = None) -> Float[Array, " told"]:
        """Return what the continuous numbers are conditioned on: the mask of those that there are, and the others."""
        among, mask = self.masks(codes)
        known = numbers if self.cells is None else self.cells.known(numbers, among)
        of_all = _sum(self.of_all(codes, known), hidden)
        return jnp.concatenate([mask, jax.nn.silu(self.encoder(of_all))])

    def hidden(self, condition: Condition) -> Hidden:
        """Return what is given, as hidden units, or None."""
        return None if self.of_given is None else self.of_given.of_row(jnp.asarray(condition))

    def of_codes_condition(self, hidden: Hidden) -> Condition:
        """Return the condition of the codes: all are asked for, given this; or None."""
        return None if hidden is None else jnp.concatenate([jnp.ones(self._num_codes, hidden.dtype), hidden])

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return self._log_prob_and_report(x, condition, key)[0]

    def _log_prob_and_report(self, x: Point, condition: Condition, key: Key | None) -> tuple[Scalar, Moved]:
        (codes, numbers, points), hidden = self.parts(x), self.hidden(condition)
        total, info = jnp.zeros((), x.dtype), nothing_solved()
        if self.codes is not None:
            total = total + self.codes._log_prob(codes, self.of_codes_condition(hidden), None)
        if self.cells is not None:
            log_prob, found = self.cells._log_prob_and_info(numbers, self.told(codes, hidden), self.masks(codes)[0])
            total, info = total + log_prob, info + found
        moved = Moved(points, jnp.zeros((), x.dtype), info=info)
        if self.core is not None:
            log_prob, found = self.core._log_prob_and_report(points, self.context(codes, numbers, hidden), key)
            total, moved = total + log_prob, moved.then(found)
        return total, moved

    def _likelihood_of(self, x: Point, condition: Condition, log_prob: Scalar, report: Moved) -> Scalar:
        """Return how likely the continuous numbers are, given the others."""
        if self.core is None:
            return log_prob
        codes, numbers, points = self.parts(x)
        context = self.context(codes, numbers, self.hidden(condition))
        return self.core._likelihood_of(points, context, log_prob, report)

    def solved_by(self, integrator: Integrator) -> "Mixed":
        """Return the distribution with another integrator of the continuous numbers; whole numbers keep theirs."""
        if self.core is None:
            return self
        return eqx.tree_at(lambda mixed: mixed.core, self, self.core.solved_by(integrator))

    def solved_part(self, num: int, seed: int) -> tuple[Transformed | None, np.ndarray]:
        """Return the flow of the continuous numbers, and so many of its conditions, as often as they occur."""
        codes, numbers, _ = jax.vmap(self.parts)(self.sample(jax.random.key(seed), (num,)))
        return self.core, np.asarray(jax.vmap(self.context)(codes, numbers))

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self._sample_and_report(key, condition)[0]

    def _sample_and_report(self, key: Key, condition: Condition) -> tuple[Point, SolveInfo, Scalar]:
        code_key, cell_key, key = jax.random.split(key, 3)
        hidden, codes = self.hidden(condition), jnp.zeros(0)
        if self.codes is not None:
            codes = self.codes._sample(code_key, self.of_codes_condition(hidden))
        numbers, points, info, base_log_prob = jnp.zeros(0), jnp.zeros(0), nothing_solved(), jnp.zeros(())
        if self.cells is not None:
            numbers, found = self.cells._sample_and_info(cell_key, self.told(codes, hidden), self.masks(codes)[0])
            info = info + found
        if self.core is not None:
            points, found, base_log_prob = self.core._sample_and_report(key, self.context(codes, numbers, hidden))
            info = info + found
        return jnp.concatenate([codes, numbers, points]), info, base_log_prob

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition, None)


def conditioners(flow: Any) -> Any:
    """Return, in the place of each weight, True for those that tell parts of a row of others, else False."""
    chosen = lambda mixed: [part for part in mixed.tellers() if part is not None]
    trues = [jax.tree.map(lambda _: True, part) for part in chosen(flow)]
    return eqx.tree_at(chosen, jax.tree.map(lambda _: False, flow), trues)


def nothing_solved() -> SolveInfo:
    """Return what no solve says: solved, in no steps."""
    return SolveInfo(*(jnp.zeros((), jnp.int32) for _ in range(4)))


class FactoredObjective(AbstractObjective):
    """An objective of a `Mixed`: that of its continuous part, and beside it the codes' and the whole numbers' own.

    Codes learn by their likelihood, whole numbers by flow matching; the parts share no weights.

    Parameters
    ----------
    objective
        What is made small of the continuous numbers.
    """

    objective: AbstractObjective

    def __call__(self, flow: Mixed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the sum of the losses, and what is worth watching of the last."""
        noise_key, cell_key, key = jax.random.split(key, 3)
        codes, numbers, points = jax.vmap(flow.parts)(batch.x)
        hidden = None if batch.condition is None else jax.vmap(flow.hidden)(batch.condition)
        total, watched = jnp.zeros(()), {"evaluations": jnp.ones(())}
        if flow.codes is not None:
            asked = None if hidden is None else jax.vmap(flow.of_codes_condition)(hidden)
            total = total - jnp.mean(flow.codes.log_prob(codes, asked))
        if (cells := flow.cells) is not None:
            mask, told = jax.vmap(flow.masks)(codes)[0], jax.vmap(flow.told)(codes, hidden)
            total = total + loss_of_cells(cells, numbers, told, mask, noise_key, cell_key)
        if flow.core is not None:
            told = jax.vmap(flow.context)(codes, numbers, hidden)
            loss, watched = self.objective(flow.core, Batch(points, told), key=key)
            total = total + loss
        return total, watched


def loss_of_cells(cells: Cells, numbers: Array, told: Array, mask: Array, noise_key: Key, key: Key) -> Scalar:
    """Return flow matching's loss of whole numbers, of shape ``(rows, columns)``, where the mask is 1."""
    contexts = jax.vmap(cells.contexts)(numbers, told, mask)
    # Noise fills the cells in training alone: the score asks for the mass of a cell.
    off, law = jax.vmap(cells.distances)(numbers, told, mask)
    off = cells.expected.bent(off + cells.noise(numbers, law.spread, key=noise_key), law)
    rows = Batch(off.reshape(-1, 1), contexts.reshape(-1, contexts.shape[-1]))
    errors = FlowMatching().errors(cells.flow, rows, key=key).reshape(mask.shape)
    return jnp.sum(mask * errors**2) / jnp.maximum(jnp.sum(mask), 1.0)
