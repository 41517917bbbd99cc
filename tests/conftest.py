"""The environment of a run, and fixtures that several test files share."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

ENVIRONMENT = {
    # Two workers share two cores: each one's threads for matrices of three rows would take turns, not help.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Most programs run once: they cost half as much to compile without what makes them fast.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    # What passes under strict promotion passes without it, too: all tests see to it.
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    # What one worker or subprocess has compiled, the others need not. However short it took: most programs are small.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_configure(config):
    """Set what workers, and the processes that tests start, inherit: the workers are not there yet."""
    # What is traced is garbage soon, and much: to look for it seldom takes a tenth of the time.
    gc.set_threshold(100_000, 50, 1000)
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="liouville-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in {**ENVIRONMENT, "JAX_COMPILATION_CACHE_DIR": folder}.items():
        os.environ.setdefault(name, value)


# Of the 65,530 pieces of memory that Linux lets a process have, a compiled program takes some.
MOST_PIECES = 30_000


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Forget compiled programs when they have become many: a process that runs out of pieces of memory is killed."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_PIECES:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Run one test in float64; the setting ends with the test."""
    import jax

    with jax.enable_x64(True):
        yield
