"""The progress bar, on standard error."""

import contextlib
import math
from collections.abc import Callable, Iterator

from tqdm import tqdm

from .training import Trainer


@contextlib.contextmanager
def progress_bar(verbose: int) -> Iterator[Callable[[Trainer, dict[str, float]], None]]:
    """Yield a `watch` for `Trainer`: it draws a bar with NLL and evaluations where `verbose` is 1 or more."""
    if not verbose:
        yield lambda trainer, numbers: None
        return
    shape = "{l_bar}{bar}| {elapsed}{postfix}"
    with tqdm(total=100, bar_format=shape, dynamic_ncols=True) as bar:

        def watch(trainer: Trainer, numbers: dict[str, float]) -> None:
            # In a race several trainers start over: the bar never runs backwards.
            bar.n = max(bar.n, min(100, int(100 * trainer.progress)))
            digits = {"step": 0, "loss": 3, "nll": 3, "evaluations": 0, "skipped": 0}
            known = {name: numbers[name] for name in digits if math.isfinite(numbers[name])}
            if not known["skipped"]:
                del known["skipped"]
            bar.set_postfix({name: f"{value:.{digits[name]}f}" for name, value in known.items()})

        yield watch
