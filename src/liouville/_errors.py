"""The three exceptions of the library, each a subclass of a standard one."""


class SolveError(RuntimeError):
    """An ODE solve or a training run failed and cannot recover."""


class DataError(ValueError):
    """The data cannot be used as they are; the message names row or column."""


class CheckpointError(ValueError):
    """A model file or a checkpoint cannot be read or does not fit."""
