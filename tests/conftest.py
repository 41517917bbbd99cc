"""Fixtures that several test files share."""

import pytest

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64


@pytest.fixture
def x64():
    """Run one test in float64; the setting ends with the test."""
    with enable_x64(True):
        yield
