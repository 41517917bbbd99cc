"""Fixtures that several test files share."""

import jax
import pytest


@pytest.fixture
def x64():
    """Run one test in float64; the setting ends with the test."""
    with jax.enable_x64(True):
        yield
