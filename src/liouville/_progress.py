"""Looking in on training: the progress bar, on standard error, and the user's callback."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from .density import Density
from .selection import Candidate
from .training import StopTraining, Trainer

Watch: TypeAlias = Callable[[Trainer, dict[str, float]], None]
Callback: TypeAlias = Callable[[int, float, "FlowHandle"], object]


@contextlib.contextmanager
def progress_bar(verbose: int, what: str = "") -> Iterator[Watch]:
    """Yield a `watch` for `Trainer`: it draws a bar with NLL and evaluations where `verbose` is 1 or more.

    `what` stands before it.
    """
    if not verbose:
        yield lambda trainer, numbers: None
        return
    shape = "{l_bar}{bar}| {elapsed}{postfix}"
    with tqdm(total=100, bar_format=shape, dynamic_ncols=True, desc=what or None) as bar:

        def watch(trainer: Trainer, numbers: dict[str, float]) -> None:
            # In a race several trainers start over: the bar never runs backwards.
            bar.n = max(bar.n, min(100, int(100 * trainer.progress)))
            digits = {"step": 0, "loss": 3, "nll": 3, "bits/dim": 3, "evaluations": 0, "skipped": 0}
            known = {name: numbers[name] for name in digits if math.isfinite(numbers.get(name, math.nan))}
            if not known["skipped"]:
                del known["skipped"]
            bar.set_postfix({name: f"{value:.{digits[name]}f}" for name, value in known.items()})

        yield watch


class FlowHandle:
    """The flow at one moment of a fit: nothing is put together, let alone computed, until it is called.

    The call returns the `liouville.density.Density` of the weights' average, in the units of the data. It stays valid
    as training goes on.

    Attributes
    ----------
    kind
        Name of the preprocessing. In a race the kinds take turns, each with steps of its own.
    numbers
        What there is to know at this moment, by name: ``step``, ``seconds``, ``loss``, ``nll`` (the best of the
        validations so far, in nats), ``evaluations`` per row, ``skipped`` steps, and the penalties, as they count in
        the loss; NaN where it is not known yet.
    """

    def __init__(self, candidate: Candidate, numbers: dict[str, float]):
        self.kind, self.numbers = candidate.preprocess, numbers
        self._flow = partial(candidate.density, candidate.trainer.state.average)

    def __call__(self) -> Density:
        """Return the density."""
        return self._flow()


def watched(candidate: Candidate, watch: Watch, callback: Callback | None) -> Candidate:
    """Return the candidate; its trainer tells both `watch` and the user's `callback`, where there is one.

    Where the callback returns True, `StopTraining` is raised.
    """

    def both(trainer: Trainer, numbers: dict[str, float]) -> None:
        watch(trainer, numbers)
        if callback is None:
            return
        is_over = callback(int(numbers["step"]), numbers["loss"], FlowHandle(candidate, numbers))
        # Nothing but True: a function may well return something that it does not mean.
        if isinstance(is_over, bool | np.bool_) and is_over:
            raise StopTraining

    candidate.trainer.watch = both
    return candidate
