"""Any columns of a row given any others, what is in neither integrated out: one network answers all such questions."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._draws import split
from .._types import Condition, Key, Point, Rows, Scalar
from ..bijections import Moved
from ..distributions import AbstractDistribution, Transformed
from ..integrate import Integrator, SolveInfo
from ..objectives import AbstractObjective, Batch
from ._cells import Cells
from ._codes import Codes
from ._frame import MixedFrame
from ._known import Known
from ._mixed import loss_of_cells, nothing_solved
from ._mixture import Beside

# Of the questions in training, so many ask for all that a row has; of the others so many leave nothing out, and so many
# give nothing: marginals are the hardest to learn.
_ALL, _NOTHING_OUT, _NOTHING_GIVEN = 1 / 3, 0.4, 0.3


class Question(NamedTuple):
    """A row, zeros where it has no number, and which of its numbers are asked for, and which are given.

    In training a row is of a fold, 0 or 1: what was fitted to that fold says nothing of it; -1 is none.
    """

    row: Point
    asked: Bool[Array, " numbers"]
    given: Bool[Array, " numbers"]
    fold: Scalar | float = -1.0


class Subsets(AbstractDistribution):
    """``log p(a | b)`` of any numbers `a` of a row given any others `b`, what is in neither integrated out.

    A row is one of a `Mixed`. A point has NaN for each number that is not asked for, a condition NaN for each that is
    not given; what both have is given. ``log p(a | b) = log P(codes of a | b) + log P(whole numbers of a | those, b) +
    log p(continuous of a | those, b)``, each by one network that is told which numbers there are (Strauss and Oliva,
    Arbitrary conditional distributions with energy, 2021; here the continuous part is a flow, which moves what is asked
    for alone). For each `b` it is normalized over `a`. Answers to different questions need not agree with each other:
    ``log p(a, b) - log p(b)`` is not ``log p(a | b)`` to the last digit.

    Parameters
    ----------
    codes, cells, core
        As of `Mixed`, all of them under conditions: codes of a mask and `width` numbers, whole numbers and continuous
        ones of what `told_sizes` says.
    switches
        As of `Mixed`.
    columns
        Which column of the table each number of a row belongs to: those of one column are asked for together.
    beside
        The mixture of Gaussians beside the flow of the continuous numbers; whole numbers, `cells`, are then counted by
        an `ExpectedOfAny` of the same mixture. None is the flow alone.
    width
        Units of what the parts are told of each other.
    key
        Key for the initial weights.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    switches: tuple[int | None, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)
    codes: Codes | None
    cells: Cells | None
    core: Transformed | None
    beside: Beside | None
    of_given: Known
    of_codes: Known
    of_all: Known

    def __init__(
        self,
        codes: Codes | None,
        cells: Cells | None,
        core: Transformed | None,
        switches: tuple[int | None, ...],
        columns: tuple[int, ...],
        *,
        beside: Beside | None = None,
        width: int = 64,
        key: Key,
    ):
        sizes = [0 if part is None else part.shape[0] for part in (codes, cells, core)]
        self.shape = self.cond_shape = (sum(sizes),)
        self.codes, self.cells, self.core, self.columns = codes, cells, core, tuple(columns)
        self.beside = beside
        self.switches = tuple(switches)
        levels = [] if codes is None else list(codes.levels)
        numbers = 3 * (sizes[1] + sizes[2])
        made = [Known(levels, numbers, width, key=k) for k in split(key, 3)]
        self.of_given, self.of_codes, self.of_all = made

    @property
    def needs_condition(self) -> bool:
        """Return False: without a condition nothing is given."""
        return False

    @property
    def _sizes(self) -> tuple[int, int]:
        """How many codes, and how many whole numbers a row begins with."""
        return tuple(0 if part is None else part.shape[0] for part in (self.codes, self.cells))  # pyright: ignore[reportReturnType]

    def question(self, x: Point, condition: Condition) -> Question:
        """Return what a point and a condition ask for."""
        condition = jnp.full(x.shape, jnp.nan, x.dtype) if condition is None else jnp.asarray(condition, x.dtype)
        given = ~jnp.isnan(condition)
        asked = ~jnp.isnan(x) & ~given
        return Question(jnp.where(given, condition, jnp.where(asked, x, 0.0)), asked, given)

    def parts(self, row: Array) -> tuple[Array, Array, Array]:
        """Return what belongs to codes, to whole numbers and to continuous numbers of a row."""
        num, more = self._sizes
        return row[:num], row[num : num + more], row[num + more :]

    def _are_on(self, row: Point) -> Bool[Array, " numbers"]:
        """Return which numbers there are: all but those that a code switches off, where it is known."""
        num = self._sizes[0]
        is_on = [jnp.ones((), bool)] * num + [jnp.ones((), bool) if j is None else row[j] == 0 for j in self.switches]
        return jnp.stack(is_on) if is_on else jnp.ones(0, bool)

    def _told(self, network: Known, row: Point, known: Array, asked: Array) -> tuple[Array, Float[Array, " width"]]:
        """Return the numbers that are known, with flags that say which, and what a network makes of all that is."""
        codes, numbers, points = self.parts(row)
        are_known, among, mask = (flags.astype(row.dtype) for flags in self.parts(known))
        counted = numbers if self.cells is None else self.cells.known(numbers, among)
        values = jnp.concatenate([counted, mask * points, among, mask])
        which = jnp.concatenate(self.parts(asked)[1:]).astype(row.dtype)
        return values, network(codes, are_known, jnp.concatenate([values, which]))

    def _behind(self, network: Known, q: Question, num: int) -> tuple[Array, Float[Array, " told"]]:
        """Return which numbers are asked for, and what they are told: what is given, and the first so many."""
        asked = q.asked & self._are_on(q.row)
        return asked.astype(q.row.dtype), jnp.concatenate(self._told(network, q.row, self._known(q, num), asked))

    def _known(self, q: Question, num: int) -> Bool[Array, " numbers"]:
        """Return what is known: what is given, and the first so many."""
        return (q.given | (q.asked & (jnp.arange(q.row.size) < num))) & self._are_on(q.row)

    def _before(self, q: Question, known: Array) -> tuple[Array, Array]:
        """Return what known codes say of the mixture's components, and its numbers: places, and continuous ones."""
        codes, numbers, points = self.parts(q.row)
        places = numbers if self.cells is None else self.cells.grid.places(numbers)
        logs = cast(Beside, self.beside).mixture.logs(codes, self.parts(known)[0].astype(q.row.dtype), q.fold)
        return logs, jnp.concatenate([places, points])

    def _of_mixture(self, q: Question) -> tuple[Array, Array, Array, Array]:
        """Return what the mixture is asked of the continuous numbers."""
        num, first = self._sizes[0], sum(self._sizes)
        known = self._known(q, first)
        asked = q.asked & self._are_on(q.row) & (jnp.arange(q.row.size) >= first)
        return (*self._before(q, known), known[num:], asked[num:])

    def _log_prob_beside(self, q: Question) -> Scalar:
        """Return the log-density that the mixture has of the continuous numbers."""
        logs, values, known, asked = self._of_mixture(q)
        law = cast(Beside, self.beside).mixture.laws(logs, values, known, asked)
        return jnp.sum(jnp.where(asked, law.log_density(values), 0.0))

    def _sample_beside(self, key: Key, q: Question) -> Point:
        """Draw the continuous numbers from the mixture."""
        logs, values, known, asked = self._of_mixture(q)
        u = jax.random.normal(key, values.shape, values.dtype)
        return cast(Beside, self.beside).mixture.draw(logs, values, known, asked, u)[self._sizes[1] :]

    def of_codes_condition(self, q: Question) -> Float[Array, " told"]:
        """Return the condition of the codes: which are asked for, and what is given."""
        hidden = self._told(self.of_given, q.row, q.given & self._are_on(q.row), q.asked)[1]
        return jnp.concatenate([self.parts(q.asked)[0].astype(q.row.dtype), hidden])

    def of_cells_condition(self, q: Question) -> tuple[Point, Float[Array, " told"]]:
        """Return which whole numbers are asked for, and their condition: what is given, and the codes."""
        asked, told = self._behind(self.of_codes, q, self._sizes[0])
        if self.beside is None:
            nothing = jnp.zeros(cast(Cells, self.cells).expected.told, told.dtype)
            return self.parts(asked)[1], jnp.concatenate([nothing, told])
        known = self._known(q, self._sizes[0])
        logs, values = self._before(q, known)
        flags = known[self._sizes[0] :].astype(q.row.dtype)
        return self.parts(asked)[1], jnp.concatenate([logs, flags * values, flags, told])

    def of_core_condition(self, q: Question) -> Float[Array, " told"]:
        """Return the condition of the continuous numbers: which are asked for, and all else that is known."""
        asked, told = self._behind(self.of_all, q, sum(self._sizes))
        return jnp.concatenate([self.parts(asked)[2], told])

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return self._log_prob_and_report(x, condition, key)[0]

    def _log_prob_and_report(self, x: Point, condition: Condition, key: Key | None) -> tuple[Scalar, Moved]:
        q = self.question(x, condition)
        codes, numbers, points = self.parts(q.row)
        total, info = jnp.zeros((), x.dtype), nothing_solved()
        if self.codes is not None:
            total = total + self.codes._log_prob(codes, self.of_codes_condition(q), None)
        if self.cells is not None:
            mask, told = self.of_cells_condition(q)
            log_prob, found = self.cells._log_prob_and_info(numbers, told, mask)
            total, info = total + log_prob, info + found
        moved = Moved(points, jnp.zeros((), x.dtype), info=info)
        if self.core is not None:
            told = self.of_core_condition(q)
            mask = told[: len(points)]
            log_prob, found = self.core._log_prob_and_report(mask * points, told, key)
            if self.beside is not None:
                share = jnp.asarray(self.beside.share, x.dtype)
                log_prob = jnp.logaddexp(log_prob + jnp.log(share), self._log_prob_beside(q) + jnp.log1p(-share))
            # Where nothing moves, what is left is the solver's rounding.
            total, moved = total + jnp.where(jnp.any(mask > 0), log_prob, 0.0), moved.then(found)
        return total, moved

    def _likelihood_of(self, x: Point, condition: Condition, log_prob: Scalar, report: Moved) -> Scalar:
        """Return how likely the continuous numbers are, given the others."""
        if self.core is None:
            return log_prob
        q = self.question(x, condition)
        return self.core._likelihood_of(self.parts(q.row)[2], self.of_core_condition(q), log_prob, report)

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self._sample_and_report(key, condition)[0]

    def _sample_and_report(self, key: Key, condition: Condition) -> tuple[Point, SolveInfo, Scalar]:
        """Draw all that is not given, and leave the rest as it is."""
        code_key, cell_key, side_key, draw_key, key = jax.random.split(key, 5)
        nothing = jnp.zeros(self.shape)
        q = self.question(nothing, condition)
        (num, more), info, base_log_prob = self._sizes, nothing_solved(), jnp.zeros(())
        if self.codes is not None:
            drawn = self.codes._sample(code_key, self.of_codes_condition(q))
            q = self._taken(q, drawn, 0)
        if self.cells is not None:
            mask, told = self.of_cells_condition(q)
            drawn, found = self.cells._sample_and_info(cell_key, told, mask)
            q, info = self._taken(q, drawn, num), info + found
        if self.core is not None:
            drawn, found, base_log_prob = self.core._sample_and_report(key, self.of_core_condition(q))
            if self.beside is not None:
                is_flow = jax.random.bernoulli(side_key, jnp.asarray(self.beside.share, drawn.dtype))
                drawn = jnp.where(is_flow, drawn, self._sample_beside(draw_key, q))
            q, info = self._taken(q, drawn, num + more), info + found
        return q.row, info, base_log_prob

    def _taken(self, q: Question, drawn: Point, start: int) -> Question:
        """Return a question with what was drawn, from a place of the row on, where it was asked for."""
        row = jax.lax.dynamic_update_slice(q.row, drawn.astype(q.row.dtype), (start,))
        return q._replace(row=jnp.where(q.asked, row, q.row))

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition, None)

    def without_gaps(self, gaps: Sequence[int]) -> "Subsets":
        """Return the distribution in which these codes are never at their last level, which stands for a gap."""
        if self.codes is None or not gaps:
            return self
        logs = list(self.codes.shares.logs)
        for j in gaps:
            logs[j] = np.where(np.arange(len(logs[j])) == len(logs[j]) - 1, -np.inf, logs[j])
        return eqx.tree_at(lambda subsets: subsets.codes.shares.logs, self, tuple(logs))

    def tellers(self) -> list:
        """Return what tells parts of a row of others."""
        of_cells = None if self.cells is None else self.cells.encoder
        return [self.codes, self.of_given, self.of_codes, self.of_all, of_cells]

    def solved_by(self, integrator: Integrator) -> "Subsets":
        """Return the distribution with another integrator of the continuous numbers; whole numbers keep theirs."""
        if self.core is None:
            return self
        return eqx.tree_at(lambda subsets: subsets.core, self, self.core.solved_by(integrator))

    def solved_part(self, num: int, seed: int) -> tuple[Transformed | None, np.ndarray]:
        """Return the flow of the continuous numbers, and so many of its conditions, as training draws them."""
        key, sample_key = jax.random.split(jax.random.key(seed))
        rows = self.sample(sample_key, (num,))
        asked, given = draw_questions(key, jnp.ones(rows.shape, bool), self.columns, _ALL)
        return self.core, np.asarray(
            jax.vmap(self.of_core_condition)(Question(rows, asked, given, jnp.full(num, -1.0)))
        )


def draw_questions(
    key: Key, known: Bool[Array, "rows numbers"], columns: tuple[int, ...], share: float
) -> tuple[Bool[Array, "rows numbers"], Bool[Array, "rows numbers"]]:
    """Draw which numbers of each row are asked for, and which are given, among those that it has.

    Parameters
    ----------
    key
        Key.
    known
        Which numbers each row has.
    columns
        The column of each number.
    share
        Share of the rows of which all is asked for.
    """
    num, keys = known.shape[0], jax.random.split(key, 5)
    # Shares of the columns that are asked for, given and left out: any are as likely as others.
    shares = jax.random.exponential(keys[0], (3, num))
    gives = jax.random.uniform(keys[1], (num,)) >= _NOTHING_GIVEN
    leaves_out = jax.random.uniform(keys[2], (num,)) >= _NOTHING_OUT
    shares = shares * jnp.stack([jnp.ones(num, bool), gives, leaves_out]).astype(shares.dtype)
    ends = jnp.cumsum(shares, axis=0) / jnp.sum(shares, axis=0)
    draws = jax.random.uniform(keys[3], (num, max(columns, default=0) + 1))[:, np.asarray(columns, int)]
    is_all = jax.random.uniform(keys[4], (num, 1)) < share
    asked = is_all | (draws < ends[0][:, None])
    given = ~asked & (draws < ends[1][:, None])
    return asked & known, given & known


class Questions(NamedTuple):
    """Points of rows, what each is conditioned on, and what their log-probabilities are changed by: of some columns."""

    points: np.ndarray
    condition: np.ndarray
    change: np.ndarray


def draw_validation(frame: MixedFrame, rows: Rows, seed: int, share: float) -> Questions:
    """Draw a question for each row of a table, always the same ones."""
    every = tuple(range(rows.shape[1]))
    known = jnp.ones(rows.shape, bool)
    asked, given = map(np.asarray, draw_questions(jax.random.key(seed), known, every, share))
    points, owners = frame.encode(rows)[0], list(frame.owners)
    masked = lambda chosen: np.where(chosen[:, owners], points, np.nan)
    return Questions(masked(asked), masked(given), frame.encode(np.where(asked, rows, np.nan))[1])


class SubsetsObjective(AbstractObjective):
    """An objective of `Subsets`: of each row another question, codes by likelihood, whole numbers by flow matching.

    Numbers that a row lacks, NaN, are never asked for and never given: nothing is learned of them.

    Parameters
    ----------
    objective
        What is made small of the continuous numbers.
    share
        Share of the rows of which all that they have is asked for.
    """

    objective: AbstractObjective
    share: float = eqx.field(default=_ALL, static=True)

    def __call__(self, flow: Subsets, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the sum of the losses, and what is worth watching of the last."""
        mask_key, noise_key, cell_key, key = jax.random.split(key, 4)
        known = ~jnp.isnan(batch.x)
        asked, given = draw_questions(mask_key, known, flow.columns, self.share)
        fold = jnp.full(len(batch.x), -1.0) if batch.condition is None else batch.condition[:, 0]
        q = Question(jnp.where(known, batch.x, 0.0), asked, given, fold)
        codes, numbers, points = jax.vmap(flow.parts)(q.row)
        total, watched = jnp.zeros(()), {"evaluations": jnp.ones(())}
        if flow.codes is not None:
            total = total - jnp.mean(flow.codes.log_prob(codes, jax.vmap(flow.of_codes_condition)(q)))
        if flow.cells is not None:
            mask, told = jax.vmap(flow.of_cells_condition)(q)
            total = total + loss_of_cells(cast(Cells, flow.cells), numbers, told, mask, noise_key, cell_key)
        if flow.core is not None:
            told = jax.vmap(flow.of_core_condition)(q)
            loss, watched = self.objective(flow.core, Batch(told[:, : points.shape[1]] * points, told), key=key)
            total = total + loss
        return total, watched


def told_size(cells: int, continuous: int, width: int) -> int:
    """Return of how many numbers whole and continuous numbers are told."""
    return 2 * (cells + continuous) + width
