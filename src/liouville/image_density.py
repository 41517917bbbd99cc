"""The friendly layer of pictures: their density as an estimator, in bits per dimension."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import equinox as eqx
import jax
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from . import evaluation, flows
from ._defaults import check_count, rng_of, seed_of, validation_goals
from ._fitting import TrainingFile, run_fit, warn_of_few_steps
from ._image_defaults import SOLVE_EVALUATIONS, Settings, affordable_validation, check_parameters, resolve
from ._model_file import SavedMixin, image_facts, portable_params
from ._progress import Watch, progress_bar, told
from ._splits import split_pictures
from .data import check_pictures
from .density import Density
from .dequantization import AbstractDequantization, MidPoints, UniformDequantization
from .divergences import Exact, Hutchinson
from .frames import fit_pictures
from .metrics import bits_per_dim, likelihood
from .selection import Candidate, Race
from .training import Budget, StreamedData, Trainer, TrainingData

# Pictures of more bytes than this stay in their file, and are on the device a part at a time.
_MOST_ON_DEVICE = 2**30
# Closed forms are fitted to no more pictures than this.
_MOST_FITTED = 60_000
# With a deadline a validation takes no more than this share of the time, where so few pictures are enough.
_VALIDATION_SHARE, _FEW_VALIDATED = 0.02, 8


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


class ImageDensity(SavedMixin, DensityMixin, BaseEstimator):
    """Density of pictures, learned as a continuous normalizing flow.

    Pixels are whole numbers: noise fills the gaps between them, and what is measured is a bound of their
    log-probability, in bits per dimension. Pictures stay bytes, and may be mapped from a file.

    Parameters
    ----------
    recipe
        How a paper does it, by name: a key of ``liouville.flows.IMAGE_RECIPES``. What is None below is the recipe's.
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

    Examples
    --------
    >>> from liouville import ImageDensity
    >>> from liouville.data import digits
    >>> X = digits().pixels[:200]
    >>> density = ImageDensity(levels=17, vector_field="conv", width=8, depth=1, max_iter=5, random_state=0)
    >>> print(density.fit(X).sample(3).shape)
    (3, 8, 8, 1)
    """

    def __init__(
        self,
        *,
        recipe: str = "flow_matching_image",
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

    def fit(self, X, y=None, *, callback=None) -> "ImageDensity":
        """Learn the density of pictures.

        An interrupt (Ctrl-C) is passed on, with the estimator fitted by the best weights so far, where there was a
        step. What is raised otherwise leaves the estimator as it was.

        Parameters
        ----------
        X
            Pictures of shape ``(n, height, width)`` or ``(n, height, width, channels)``: whole numbers from 0 on, as
            bytes (`liouville.data.read_pictures`).
        y
            Ignored.
        callback
            Called with step, loss and a function that returns the flow (see `liouville.callbacks`), about twice
            a second, or None. Where it returns True, training ends there as it does at its last step: validated, and
            fitted by the best weights.

        Returns
        -------
        ImageDensity
            The estimator itself.

        Raises
        ------
        DataError
            Where `X` are not pictures of `levels` levels; the message names the first that is not.
        SolveError
            Where training cannot recover.
        """
        started = time.perf_counter()
        check_parameters(self)
        pixels = check_pictures(X, self.levels)
        seed = seed_of(self.random_state)
        settings = resolve(self, pixels.shape)
        identity = {"parameters": portable_params(self), "rows": len(pixels), "seed": seed}
        file = TrainingFile(self.checkpoint, identity, pixels)

        def take(candidate: Candidate) -> None:
            self._keep(candidate.trainer, settings, len(pixels), seed, time.perf_counter() - started)

        with progress_bar(self.verbose) as watch:
            told_of = partial(told, shown_in_bits(watch, pixels[0].size), callback)
            race = self._race(pixels, settings, seed, started, told_of)
            run_fit(race, validation_goals, file, take)
        warn_of_few_steps(race, self.max_seconds, started)
        return self

    def _race(self, pixels: np.ndarray, settings: Settings, seed: int, started: float, told_of) -> Race:
        size = affordable_validation(settings.flow) if self.validation_size is None else self.validation_size
        held_out, train = split_pictures(pixels, size, seed)
        deadline = None if self.max_seconds is None else started + self.max_seconds

        def score(pictures: Density, num: int) -> tuple[np.ndarray, evaluation.EvaluationInfo]:
            return evaluation.score(flows.with_divergence(pictures, Hutchinson()), held_out[:num])

        def prepare(kind: str) -> Candidate:
            frame = fit_pictures(kind, pixels[np.sort(train[:_MOST_FITTED])], self.levels, UniformDequantization())
            trainer = Trainer(
                flows.FramedFlow(settings.flow, frame, settings.noise),
                settings.objective,
                training_data(pixels, np.sort(train), settings.options.batch_size, seed),
                # As many as have chosen before.
                lambda pictures: score(pictures, len(trainer.best_rows) or num)[0],
                options=settings.options,
                budget=Budget(settings.max_iter, deadline),
                seed=seed,
            )
            num = len(held_out)
            if deadline is not None:
                timed = partial(score, trainer.best_flow())
                num, trainer.least_validate_seconds = validated_in_time(timed, len(held_out), deadline)
            return told_of(Candidate(kind, None, trainer))

        return Race([settings.preprocess], prepare)

    def _keep(self, trainer: Trainer, settings: Settings, num: int, seed: int, seconds: float) -> None:
        self.flow_: Density = trainer.best_flow()
        size = int(np.prod(settings.flow.shape))
        self.history_ = dict(trainer.history)
        self.history_["bits_per_dim"] = [bits_per_dim(nll, size) for nll in trainer.history["nll"]]
        self.n_iter_ = int(trainer.state.step)
        self.facts_ = {
            "pictures": num,
            "levels": self.levels,
            "recipe": self.recipe,
            "preprocess": settings.preprocess,
            **image_facts(settings.flow, settings.noise),
            "numbers": sum(leaf.size for leaf in jax.tree.leaves(trainer.best_params)),
            "batch_size": settings.options.batch_size,
            "learning_rate": settings.options.learning_rate,
            "weight_decay": settings.options.weight_decay,
            "steps": self.n_iter_,
            "best_step": trainer.best_step,
            "validation_pictures": len(trainer.best_rows),
            "validation_bits_per_dim": float(bits_per_dim(trainer.best_nll, size)),
            "skipped_steps": int(trainer.state.skipped),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "seconds": round(seconds, 3),
            "seed": seed,
        }

    @overload
    def score_samples(
        self, X, *, num_draws=..., num_probes=..., return_info: Literal[False] = ..., random_state=...
    ) -> np.ndarray: ...
    @overload
    def score_samples(
        self, X, *, num_draws=..., num_probes=..., return_info: Literal[True], random_state=...
    ) -> tuple[np.ndarray, evaluation.EvaluationInfo]: ...
    def score_samples(
        self, X, *, num_draws: int = 1, num_probes: int | None = 1, return_info: bool = False, random_state=0
    ):
        """Return a bound of the log-probability of each picture, in nats.

        Parameters
        ----------
        X
            Pictures, as `fit` takes them.
        num_draws
            Draws of the noise; with several, the importance-weighted bound (Burda and others, 2016, equation 8).
        num_probes
            Hutchinson probes by which the divergence is estimated; None computes it, which takes as many products as
            a picture has pixels.
        return_info
            True also returns status, costs and standard error of each picture's solves.
        random_state
            Seed of noise and probes.

        Returns
        -------
        ndarray of shape (n,)
            The bound; NaN, with a warning that names the first such picture, where the solve failed.
        EvaluationInfo
            Only with `return_info`.
        """
        log_prob, info = self._score(self._check(X), num_draws, num_probes, random_state)
        evaluation.warn_of_failures(info)
        return (log_prob, info) if return_info else log_prob

    def score(self, X, y=None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean of `score_samples`, in nats.

        Parameters
        ----------
        X
            Pictures, as `fit` takes them.
        y
            Ignored.
        """
        return float(np.mean(self.score_samples(X)))

    def bits_per_dim(
        self, X, *, num_draws: int = 1, num_probes: int | None = 1, middle: bool = False, random_state=0
    ) -> BitsPerDim:
        """Return the mean bits per dimension of pictures, with its standard error: in expectation an upper bound.

        Parameters
        ----------
        X
            Pictures that the fit has not seen, two or more, as `fit` takes them.
        num_draws, num_probes, random_state
            As in `score_samples`.
        middle
            True measures the density in the middle of each level instead: no bound, and only to be compared with
            published curves of that kind.
        """
        pixels = self._check(X)
        noise = MidPoints() if middle else None
        log_prob, info = self._score(pixels, num_draws, num_probes, random_state, noise)
        found, size = likelihood("flow", log_prob), pixels[0].size
        return BitsPerDim(
            mean=bits_per_dim(found.nll, size),
            std_error=bits_per_dim(found.std_error, size),
            num_pictures=len(pixels),
            num_draws=num_draws,
            num_probes=num_probes or 0,
            probe_error=bits_per_dim(float(np.sqrt(np.mean(info.std_error**2) / len(pixels))), size),
            evaluations=float(np.mean(info.num_evaluations) / num_draws),
            num_failed=int(np.count_nonzero(info.status)),
        )

    def evaluate(
        self, X, *, num_draws: int = 1, num_probes: int = 1, num_exact: int = 0, random_state=0
    ) -> dict[str, BitsPerDim]:
        """Measure pictures by a protocol that hides nothing: each line says how it was measured.

        Parameters
        ----------
        X
            Pictures that the fit has not seen, two or more, as `fit` takes them.
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
        check_count("num_exact", num_exact, least=0)
        measure = partial(self.bits_per_dim, random_state=random_state)
        found = {"1 draw": measure(pixels, num_probes=num_probes)}
        if num_draws > 1:
            found[f"{num_draws} draws"] = measure(pixels, num_draws=num_draws, num_probes=num_probes)
        if num_exact:
            found["exact"] = measure(pixels[:num_exact], num_probes=None)
            found["probes"] = measure(pixels[:num_exact], num_probes=num_probes)
        found["mid-points"] = measure(pixels, num_probes=num_probes, middle=True)
        return found

    def sample(self, n: int = 1, random_state=None) -> np.ndarray:
        """Draw pictures.

        Parameters
        ----------
        n
            Number of pictures.
        random_state
            Seed; the same seed draws the same pictures, and fewer are the first of many.

        Returns
        -------
        ndarray of shape (n, height, width, channels)
            Bytes; with a warning where a solve failed, whose picture is black.
        """
        check_is_fitted(self)
        pixels, info = evaluation.sample(self.flow_, check_count("n", n), seed=seed_of(random_state))
        evaluation.warn_of_failures(info)
        return pixels

    def certify(self, X, num_pictures: int = 32, random_state=0) -> evaluation.Certificate:
        """Solve some pictures again at a tenth of the tolerance, and say how far their log-densities move.

        Parameters
        ----------
        X
            Pictures, as `fit` takes them.
        num_pictures
            How many of them.
        random_state
            Seed that chooses them.
        """
        pixels = self._check(X)
        chosen = rng_of(random_state).permutation(len(pixels))[: check_count("num_pictures", num_pictures)]
        pictures = flows.with_divergence(self.flow_, Hutchinson())
        tight = flows.with_tolerance(pictures, 0.1)
        return evaluation.certify(pictures, tight, pixels[chosen])

    def _check(self, X) -> np.ndarray:
        check_is_fitted(self)
        return check_pictures(X, self.levels, self.flow_.shape)

    def _score(
        self,
        pixels: np.ndarray,
        num_draws: int,
        num_probes: int | None,
        random_state,
        noise: AbstractDequantization | None = None,
    ) -> tuple[np.ndarray, evaluation.EvaluationInfo]:
        check_count("num_draws", num_draws)
        if num_probes is not None:
            check_count("num_probes", num_probes)
        divergence = Exact() if num_probes is None else Hutchinson(num_probes=num_probes)
        pictures = flows.with_divergence(self.flow_, divergence)
        if noise is not None:
            pictures = eqx.tree_at(lambda p: p.frame.noise, pictures, noise)
        return evaluation.score(pictures, pixels, seed=seed_of(random_state), num_draws=num_draws)


def validated_in_time(score: Callable[[int], Any], most: int, deadline: float) -> tuple[int, float]:
    """Return how many pictures, at most, can be scored in a small share of the time left, and in how many seconds."""
    score(1)
    # Compiled by now.
    start = time.perf_counter()
    _, info = score(few := min(most, _FEW_VALIDATED))
    end = time.perf_counter()
    # A flow that has learned takes more evaluations than the first one, which may be known in closed form.
    a_picture = (end - start) / few * max(1.0, SOLVE_EVALUATIONS / info.num_evaluations.max())
    num = int(np.clip(_VALIDATION_SHARE * (deadline - end) / a_picture, few, most))
    return num, num * a_picture


def shown_in_bits(watch: Watch, size: int) -> Watch:
    """Return a watch that is shown bits per dimension instead of nats."""

    def show(trainer: Trainer, seen: dict[str, float]) -> None:
        watch(trainer, {**seen, "nll": math.nan, "bits/dim": bits_per_dim(seen["nll"], size)})

    return show


def training_data(pixels: np.ndarray, train: np.ndarray, batch_size: int, seed: int) -> TrainingData | StreamedData:
    """Return pictures to draw batches from: all on the device, or a part at a time where they are many."""
    if len(train) * pixels[0].size <= _MOST_ON_DEVICE:
        return TrainingData.pad(pixels[train], np.ones(len(train)))
    part_rows = _MOST_ON_DEVICE // pixels[0].size // 2
    return StreamedData(pixels, train, batch_size=batch_size, part_rows=part_rows, seed=seed)
