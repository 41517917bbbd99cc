"""The progress bar, on standard error."""

import contextlib
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
            shown = {"step": int(numbers["step"]), "loss": f"{numbers['loss']:.3f}", "nll": f"{numbers['nll']:.3f}"}
            shown["evaluations"] = f"{numbers['evaluations']:.0f}"
            if numbers["skipped"]:
                shown["skipped"] = int(numbers["skipped"])
            bar.set_postfix(shown)

        yield watch
