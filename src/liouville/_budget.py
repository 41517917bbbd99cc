"""When training ends, and what is written down on the way."""

import dataclasses
import time
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Budget:
    """When training ends: after `max_iter` steps, at `deadline` (of ``time.perf_counter``), or at the first of both."""

    max_iter: int | None = None
    deadline: float | None = None

    def rate(self, progress: float, speed: float, reserve: float) -> float:
        """Return the progress per step, given the progress so far and the speed in steps per second.

        `reserve` seconds are kept back from the deadline for what is not training.
        """
        rates = [] if self.max_iter is None else [1 / self.max_iter]
        if self.deadline is not None:
            steps = (self.deadline - reserve - time.perf_counter()) * speed
            # Before the speed is known the schedule hardly moves.
            rates.append((1 - progress) / max(steps, 1.0) if speed else 1e-6)
        return max(rates)

    def is_over(self) -> bool:
        """Return True where the deadline has passed."""
        return self.deadline is not None and time.perf_counter() >= self.deadline


HISTORY_COLUMNS = ("step", "seconds", "loss", "evaluations", "skipped", "nll")


class History(dict):
    """One list per column, one row per look of the host: `HISTORY_COLUMNS`, and the penalties by name.

    `nll` is NaN between validations.
    """

    def __init__(self, columns: Iterable[str]):
        super().__init__({name: [] for name in columns})

    def append(self, **row: float) -> None:
        """Add a row."""
        for name, column in self.items():
            column.append(row[name])
