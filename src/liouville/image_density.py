"""The friendly layer of pictures: their density as an estimator, in bits per dimension."""

import math
import os
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from . import evaluation
from ._defaults import check_count, seed_of
from ._errors import DataError, SolveError
from ._estimator import AbstractFlowEstimator
from ._fitting import Given, Stage
from ._image_defaults import check_parameters, resolve
from ._progress import Watch
from ._splits import PictureSplit, split_pictures
from ._tables import check_weight
from ._targets import check_given, given_rows
from .data import check_pictures, check_pictures_file, read_pictures, write_pictures
from .dequantization import MidPoints
from .metrics import bits_per_dim, likelihood
from .mixed import Columns, GivenRows
from .selection import Candidate, Plan
from .training import Trainer


class BitsPerDim(NamedTuple):
    """How many bits a pixel takes, and how well that is known.

    Attributes
    ----------
    mean, std_error
        Of the pictures: with draws of noise and probes, which are drawn anew for each picture, in it.
    num_pictures, num_draws, num_probes
        How it was measured; no probes is the exact divergence.
    probe_error
        What of the standard error comes from the probes; NaN for one probe, which does not tell.
    evaluations
        Evaluations of the field per picture and draw.
    num_failed
        Pictures whose solve failed; where there are any, the mean is NaN.
    """

    mean: float
    std_error: float
    num_pictures: int
    num_draws: int
    num_probes: int
    probe_error: float
    evaluations: float
    num_failed: int


class ImageDensity(AbstractFlowEstimator):
    """Density of pictures, of all or given a class or attributes, learned as a continuous normalizing flow.

    Pixels are whole numbers: noise fills the gaps between them, and what is measured is a bound of their
    log-probability, in bits per dimension. Pictures stay bytes, and may be mapped from a file.

    Parameters
    ----------
    recipe
        How a paper does it, by name: a key of ``liouville.recipes.IMAGE_RECIPES``. What is None below is the recipe's.
    vector_field
        ``"mlp"``, ``"concat_squash"``, ``"unet"`` or ``"conv"``; None is the recipe's for pictures of this size. The
        likelihood recipes put several flows with squeezes and splits where it is convolutional.
    width, depth
        Size of its network.
    preprocess
        How pixels become numbers: ``"margins"``, ``"logit"`` or ``"center"``
        (`liouville.frames.fit_pictures`).
    levels
        Number of values that a pixel can have, at most 256.
    dequantization
        ``"uniform"`` noise, or ``"variational"``: by a small flow of its own, which a likelihood trains with the rest.
    precision
        ``"float32"``, or ``"bfloat16"`` for the field alone: faster where the hardware has it.
    solver
        As in `FlowDensity`.
    rtol, atol
        Tolerances of the adaptive solvers when pictures are scored and drawn.
    batch_size, learning_rate, weight_decay
        Pictures per training step, peak of its schedule, and decoupled weight decay (AdamW).
    parts
        Parts into which a batch is divided, one after the other, where its memory is too much.
    max_iter
        Number of training steps.
    max_seconds
        Time for fitting, compilation included; instead of `max_iter`, or with it, the first of the two.
    validation_size
        Number of pictures, at most a tenth, that are held out to choose the best weights (of fewer than ten none is);
        None is as many as are scored in little time, at most a thousand.
    random_state
        Seed.
    verbose
        1 draws a progress bar on standard error.
    checkpoint
        File that training writes as it goes; a fit that finds it goes on from there, and deletes it at its end.

    Attributes
    ----------
    flow_ : Density
        The density, in JAX: its core is a flow, its frame is what is done to pixels before it.
    history_ : dict of lists
        Steps, seconds, training loss, evaluations of the field per picture, skipped steps, validation bits per
        dimension (``bits_per_dim``) and the same in nats (``nll``); penalties by name, as they count in the loss.
    facts_ : dict
        What was chosen, and by which figures.
    n_iter_ : int
        Number of training steps done.
    given_columns_ : Columns
        What the columns of `y` are, where the fit has had it.
    given_ : GivenRows
        What their cells are to the flow.

    Examples
    --------
    >>> from liouville import ImageDensity
    >>> from liouville.data import digits
    >>> X = digits().pixels[:200]
    >>> density = ImageDensity(levels=17, vector_field="conv", width=8, depth=1, max_iter=5, random_state=0)
    >>> print(density.fit(X).sample(3).shape)
    (3, 8, 8, 1)
    """

    given_columns_: Columns
    given_: GivenRows

    def __init__(
        self,
        *,
        recipe: str = "flow_matching",
        vector_field: str | None = None,
        width: int | None = None,
        depth: int | None = None,
        preprocess: str | None = None,
        levels: int = 256,
        dequantization: str = "uniform",
        precision: str = "float32",
        solver: str | None = None,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        parts: int = 1,
        max_iter: int | None = None,
        max_seconds: float | None = None,
        validation_size: int | None = None,
        random_state=None,
        verbose: int = 0,
        checkpoint: str | None = None,
    ):
        self.recipe = recipe
        self.vector_field = vector_field
        self.width = width
        self.depth = depth
        self.preprocess = preprocess
        self.levels = levels
        self.dequantization = dequantization
        self.precision = precision
        self.solver = solver
        self.rtol = rtol
        self.atol = atol
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.parts = parts
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.validation_size = validation_size
        self.random_state = random_state
        self.verbose = verbose
        self.checkpoint = checkpoint

    def bits_per_dim(
        self,
        X,
        y=None,
        *,
        num_draws: int = 1,
        num_probes: int | str | None = "auto",
        middle: bool = False,
        random_state=0,
    ) -> BitsPerDim:
        """Return the mean bits per dimension of pictures, with its standard error: in expectation an upper bound.

        Parameters
        ----------
        X
            Pictures that the fit has not seen, two or more, as `fit` takes them.
        y
            What they are given, as `sample` takes it: they are then bits given `y`.
        num_draws, num_probes, random_state
            As in `score_samples`.
        middle
            True measures the density in the middle of each level instead: no bound, and only to be compared with
            published curves of that kind.
        """
        pixels, num_probes = self._check(X), 1 if num_probes == "auto" else num_probes
        check_count("num_draws", num_draws)
        return self._bits(pixels, self._condition(y, len(pixels)), num_draws, num_probes, middle, random_state)

    def _bits(
        self,
        pixels: np.ndarray,
        condition: np.ndarray | None,
        num_draws: int = 1,
        num_probes: Any = 1,
        middle: bool = False,
        random_state: Any = 0,
    ) -> BitsPerDim:
        """Return the bits per dimension of pictures that were checked."""
        flow = eqx.tree_at(lambda f: f.frame.noise, self.flow_, MidPoints()) if middle else self.flow_
        log_prob, info = self._score(flow, pixels, condition, num_draws, num_probes, random_state)
        found, size = likelihood("flow", log_prob), pixels[0].size
        return BitsPerDim(
            mean=bits_per_dim(found.nll, size),
            std_error=bits_per_dim(found.std_error, size),
            num_pictures=len(pixels),
            num_draws=num_draws,
            num_probes=int(num_probes or 0),
            probe_error=bits_per_dim(float(np.sqrt(np.mean(info.std_error**2) / len(pixels))), size),
            evaluations=float(np.mean(info.num_evaluations) / num_draws),
            num_failed=int(np.count_nonzero(info.status)),
        )

    def evaluate(
        self, X, y=None, *, num_draws: int = 1, num_probes: int = 1, num_exact: int = 0, random_state=0
    ) -> dict[str, BitsPerDim]:
        """Measure pictures by a protocol that hides nothing: each line says how it was measured.

        Parameters
        ----------
        X
            Pictures that the fit has not seen, two or more, as `fit` takes them.
        y
            What they are given, as `sample` takes it.
        num_draws
            Draws of the importance-weighted bound; 1 leaves it out.
        num_probes
            Probes of each picture.
        num_exact
            Number of the first pictures that are measured by the exact divergence too; 0 leaves it out.
        random_state
            Seed of noise and probes.

        Returns
        -------
        dict of str to BitsPerDim
            ``"1 draw"``, which is always there and is the figure to state; ``"K draws"``; ``"exact"`` and ``"probes"``
            on the same first pictures and the same noise; ``"mid-points"``, which is no bound.
        """
        pixels = self._check(X)
        condition = self._condition(y, len(pixels))
        check_count("num_draws", num_draws)
        check_count("num_exact", num_exact, least=0)
        measure = partial(self._bits, pixels, condition, random_state=random_state)
        found = {"1 draw": measure(num_probes=num_probes)}
        if num_draws > 1:
            found[f"{num_draws} draws"] = measure(num_draws=num_draws, num_probes=num_probes)
        if num_exact:
            few = pixels[:num_exact], None if condition is None else condition[:num_exact]
            of_few = partial(self._bits, *few, random_state=random_state)
            found["exact"], found["probes"] = of_few(num_probes=None), of_few(num_probes=num_probes)
        found["mid-points"] = measure(num_probes=num_probes, middle=True)
        return found

    def sample(self, n: int = 1, random_state=None, *, error: float | None = None, y=None) -> np.ndarray:
        """Draw pictures.

        Parameters
        ----------
        n
            How many.
        random_state
            Seed; the same seed draws the same ones, and fewer are the first of many.
        error
            As in `score_samples`.
        y
            What they are given, where the fit has had it: one value, or row of a table, for all, or one for each.

        Returns
        -------
        ndarray of shape (n, height, width, channels)
            Bytes, black where a solve failed. A warning says so.

        Raises
        ------
        DataError
            Where a class is none of the fit's.
        ValueError
            Where `y` is missing, or the fit has had none.
        """
        check_is_fitted(self)
        return self._draw(n, random_state, error, self._condition(y, check_count("n", n)))

    @property
    def classes_(self) -> np.ndarray:
        """The classes of `y`, in order, where `y` is one column of classes."""
        if not self._is_of_classes:
            raise AttributeError("Expected a fit of pictures given a class, got another; try fit(X, y).")
        return np.asarray(self.given_columns_.fields[0].levels)

    def predict_proba(self, X, *, num_draws: int = 1, num_probes: int | str | None = "auto", random_state=0):
        """Return the probability of each class given a picture, by Bayes' rule.

        It is the share of each class in the fit, by weight, times the density of the picture given the class, which is
        the bound of `score_samples`: noise and probes of a picture are the same for all classes.

        Parameters
        ----------
        X
            Pictures, as `fit` takes them.
        num_draws, num_probes, random_state
            As in `score_samples`.

        Returns
        -------
        ndarray of shape (n, classes)
            In the order of `classes_`; NaN, with a warning, where a solve failed.

        Raises
        ------
        TypeError
            Where `y` is no single column of classes.
        """
        pixels, num = self._check(X), self._num_classes()
        check_count("num_draws", num_draws)
        how = {"num_draws": num_draws, "num_probes": num_probes, "random_state": seed_of(random_state)}
        terms = np.empty((len(pixels), num))
        for k, condition in enumerate(self.given_.features(np.arange(num)[:, None])):
            terms[:, k], info = self._score(self.flow_, pixels, condition, **how)
            evaluation.warn_of_failures(info)
        with np.errstate(divide="ignore"):
            return softmax(terms + np.log(self.facts_["class_shares"]), axis=1)

    def predict(self, X) -> np.ndarray:
        """Return the most probable class of each picture, by `predict_proba`.

        Parameters
        ----------
        X
            Pictures, as `fit` takes them.

        Raises
        ------
        TypeError
            Where `y` is no single column of classes.
        SolveError
            Where a solve failed, so that there is no most probable class.
        """
        found = self.predict_proba(X)
        failed = np.flatnonzero(np.isnan(found).any(axis=1))
        if failed.size:
            raise SolveError(
                f"Expected all pictures to be solved, but {failed.size} were not, the first in row {failed[0]}; try "
                "predict_proba, or looser tolerances."
            )
        return self.classes_[np.argmax(found, axis=1)]

    def _check_parameters(self) -> None:
        check_parameters(self)

    def _check_fit(self, X, y, sample_weight) -> Given:
        pixels = check_pictures(X, self.levels)
        weight = check_weight(sample_weight, pixels)
        # Pictures without weights are the same data as before there were any.
        arrays = (pixels,) if sample_weight is None else (pixels, weight)
        if y is None:
            return Given(pixels, weight, arrays, {})
        rows, columns = check_given(pixels, y, self)
        given = GivenRows.fit(rows, weight, columns.columns)
        noted = {"given_": given, "given_columns_": columns}
        return Given(pixels, weight, (*arrays, rows), noted, given.features(rows))

    def _condition(self, y, num: int) -> np.ndarray | None:
        is_given = hasattr(self, "given_")
        if is_given != (y is not None):
            had, got = ("y", "none") if is_given else ("no y", "y")
            raise ValueError(
                f"Expected {had}, as in the fit, got {got}; try "
                + ("y=..., of which one may be for all." if is_given else "fit(X, y) first.")
            )
        return None if y is None else self.given_.features(given_rows(y, num, self, self.given_columns_))

    @property
    def _is_of_classes(self) -> bool:
        columns = getattr(self, "given_columns_", None)
        return columns is not None and [column.kind for column in columns.columns] == ["code"]

    def _num_classes(self) -> int:
        """Return the number of classes, or raise where pictures are given something else."""
        if not self._is_of_classes:
            raise TypeError(
                "Expected a fit of pictures given one class each, got another; try fit(X, y) with y of whole numbers "
                "or of text."
            )
        return len(self.classes_)

    def _check(self, X) -> np.ndarray:
        check_is_fitted(self)
        return check_pictures(X, self.levels, self.flow_.shape)

    def _check_points(self, Z) -> np.ndarray:
        shape, points = self.flow_.shape, np.asarray(Z, np.float64)
        if points.shape[1:] != shape or not np.isfinite(points).all():
            raise DataError(
                f"Expected finite points of shape {(len(points), *shape)}, got {points.shape}; try transform."
            )
        return points

    def _plan(self, shape: tuple[int, ...], columns: Any = None) -> Plan:
        return resolve(self, shape)

    def _stages(self, given: Given) -> list[Stage]:
        num_given = None if given.condition is None else given.condition.shape[1]
        return [Stage("flow_", resolve(self, given.rows.shape, num_given))]

    def _split(self, given: Given, plan: Plan, seed: int) -> PictureSplit:
        return split_pictures(given.rows, given.weight, plan.validation_size, self.levels, seed, given.condition)

    def _shown(self, watch: Watch, given: Given) -> Watch:
        return shown_in_bits(watch, given.rows[0].size)

    def _keep(self, name: str, candidate: Candidate, plan: Plan, given: Given, seed: int, seconds: float) -> None:
        super()._keep(name, candidate, plan, given, seed, seconds)
        size = given.rows[0].size
        self.history_["bits_per_dim"] = [bits_per_dim(nll, size) for nll in self.history_["nll"]]
        self.facts_["validation_pictures"] = self.facts_["validation_rows"]
        self.facts_["validation_bits_per_dim"] = float(bits_per_dim(candidate.trainer.best_nll, size))

    def _facts_of_data(self, given: Given) -> dict[str, Any]:
        facts: dict[str, Any] = {"pictures": len(given.rows)}
        if self._is_of_classes and given.condition is not None:
            facts["class_shares"] = np.average(given.condition, axis=0, weights=given.weight).tolist()
        return facts

    _num_drawn = 64

    def _read(self, file) -> np.ndarray:
        if not isinstance(file, str | os.PathLike):
            raise DataError("Expected a file or a folder of pictures, got an open file; try its path.")
        return read_pictures(file).pixels

    def _check_output(self, file) -> None:
        if file is None:
            raise ValueError("Expected a file for pictures, got none; try samples.png.")
        check_pictures_file(file)

    def _write(self, file, drawn: np.ndarray) -> None:
        write_pictures(file, drawn, self.levels)

    def _lines(self, found: dict[str, BitsPerDim]) -> str:
        lines = [
            f"{'measured by':24}{'bits/dim':>10} {'std. error':>11}{'pictures':>10}{'probes':>8}{'evaluations':>13}"
        ]
        for name, bits in found.items():
            note = "mid-points (no bound)" if name == "mid-points" else name
            probes = "exact" if bits.num_probes == 0 else str(bits.num_probes)
            numbers = f"{bits.mean:10.4f} {bits.std_error:11.4f}{bits.num_pictures:10}"
            lines.append(f"{note:24}{numbers}{probes:>8}{bits.evaluations:13.0f}")
        return "\n".join(lines)

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.flow_.shape)


def shown_in_bits(watch: Watch, size: int) -> Watch:
    """Return a watch that is shown bits per dimension instead of nats."""

    def show(trainer: Trainer, seen: dict[str, float]) -> None:
        watch(trainer, {**seen, "nll": math.nan, "bits/dim": bits_per_dim(seen["nll"], size)})

    return show
