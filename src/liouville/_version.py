"""The version of the package: the one place in which it stands."""

__version__ = "0.2.0"
