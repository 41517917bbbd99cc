"""Mixtures of Gaussians beside a flow, and in front of whole numbers: closed forms, and EM with gaps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as Peer

from liouville.flows import FlowSpec, MixedSpec
from liouville.mixed import Column, GaussianMixture, _expected, fit_mixed, mixture_of
from liouville.mixed._em import _few_patterns, fit_mixture, padded
from liouville.mixed._mixture import Law

SHARES = np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])


@functools.cache
def three() -> GaussianMixture:
    """Return three Gaussians in four numbers, and shares of two levels."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4))
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.1 * np.eye(4)
    weights = np.array([0.5, 0.3, 0.2])
    return GaussianMixture(np.log(weights), 2 * rng.normal(size=(3, 4)), covariances, [np.log(SHARES)])


def log_density(mixture: GaussianMixture, row: np.ndarray, level: int | None, known: list[int]) -> float:
    """Return the log-density of some numbers and a level, by SciPy."""
    logs = mixture.log_weights + (0 if level is None else mixture.shares[0][:, level])
    for k in range(mixture.size if known else 0):
        among = np.ix_(known, known)
        logs[k] += stats.multivariate_normal(mixture.means[k][known], mixture.covariances[k][among]).logpdf(row[known])
    return float(logsumexp(logs))


def draw(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw numbers and levels."""
    rng, mixture = np.random.default_rng(seed), three()
    component = rng.choice(3, num, p=np.exp(mixture.log_weights))
    roots = np.linalg.cholesky(mixture.covariances)
    numbers = mixture.means[component] + (roots[component] @ rng.normal(size=(num, 4, 1)))[..., 0]
    return numbers, (rng.random(num) < SHARES[component, 1]).astype(float)[:, None]


@pytest.mark.parametrize("given", [(), (3,), (0, 2), (1, 3)])
@pytest.mark.parametrize("level", [None, 1])
def test_laws_are_the_conditionals_of_the_mixture(given, level):
    """Number after number they make up the density of all that is asked for."""
    mixture, row = three(), np.array([0.3, -0.8, 1.1, 0.2])
    asked = [j for j in range(4) if j not in given and j != 1] + ([1] if 1 not in given and level is None else [])
    flags = lambda chosen: jnp.isin(jnp.arange(4), jnp.asarray([*chosen], int))
    code = jnp.asarray([float(level or 0)])
    logs = mixture.logs(code, jnp.asarray([float(level is not None)]), -1.0)
    law = mixture.laws(logs, jnp.asarray(row), flags(given), flags(asked))
    found = float(jnp.where(flags(asked), law.log_density(jnp.asarray(row)), 0.0).sum())
    both = log_density(mixture, row, level, sorted([*given, *asked]))
    np.testing.assert_allclose(found, both - log_density(mixture, row, level, [*given]), atol=2e-5)


def test_quantiles_are_those_of_the_laws_far_out_too():
    law = Law(jnp.log(jnp.array([0.7, 0.3])), jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.1]))
    x = jnp.array([-7.0, -1.5, 0.8, 1.9, 2.02, 2.3])
    spread = jax.tree.map(lambda part: jnp.broadcast_to(part, (6, 2)), law)
    below = 0.7 * stats.norm.cdf(x, -1, 0.5) + 0.3 * stats.norm.cdf(x, 2, 0.1)
    above = 0.7 * stats.norm.sf(x, -1, 0.5) + 0.3 * stats.norm.sf(x, 2, 0.1)
    expected = np.where(below < 0.5, stats.norm.ppf(below), stats.norm.isf(above))
    u = spread.to_normal(x)
    np.testing.assert_allclose(u, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(spread.from_normal(u), x, atol=2e-5)
    # Where the masses are below what a float can hold.
    far = jnp.array([-30.0, 40.0])
    few = jax.tree.map(lambda part: part[:2], spread)
    # Of the wider component alone, 58 and 82 of its standard deviations off.
    of_wide = lambda off: brentq(lambda u: stats.norm.logsf(u) - np.log(0.7) - stats.norm.logsf(off), off, off + 1)
    np.testing.assert_allclose(few.to_normal(far), [-of_wide(58.0), of_wide(82.0)], rtol=1e-6)
    np.testing.assert_allclose(few.from_normal(few.to_normal(far)), far, rtol=1e-5)


def test_moments_are_those_of_the_law():
    law = Law(jnp.log(jnp.array([0.7, 0.3])), jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.1]))
    mean, scale = law.moments()
    x = np.linspace(-6, 6, 20001)
    density = np.exp(law.log_density(jnp.asarray(x)))
    shares = density / density.sum()
    np.testing.assert_allclose([mean, scale], [shares @ x, np.sqrt(shares @ x**2 - (shares @ x) ** 2)], rtol=1e-3)


def test_draws_have_the_quantiles_that_were_asked_for_and_leave_what_is_given():
    mixture, row = three(), jnp.asarray([0.3, -0.8, 1.1, 0.2])
    given, asked = jnp.array([False, True, False, False]), jnp.array([True, False, True, False])
    u = jnp.array([0.3, 9.0, -1.2, 9.0])
    logs = mixture.logs(jnp.zeros(1), jnp.zeros(1), -1.0)
    drawn = mixture.draw(logs, row, given, asked, u)
    assert drawn[1] == row[1]
    law = mixture.laws(logs, drawn, given, asked)
    np.testing.assert_allclose(law.to_normal(drawn)[jnp.array([0, 2])], u[jnp.array([0, 2])], atol=1e-4)


def test_a_row_in_training_knows_nothing_of_components_of_its_own_fold():
    mixture = GaussianMixture(np.log([0.5, 0.4, 0.1]), np.zeros((3, 1)), np.ones((3, 1, 1)), (), [0, 1, -1])
    logs = [mixture.logs(jnp.zeros(0), jnp.zeros(0), fold) for fold in (0.0, 1.0, -1.0)]
    assert [np.isinf(each).tolist() for each in logs] == [[True, False, False], [False, True, False], [False] * 3]


def test_em_finds_what_rows_with_gaps_are_of():
    """As scikit-learn does without gaps; and with gaps where others are high, which complete rows alone would hide."""
    numbers, codes = draw(3000, 1)
    fresh, levels = draw(2000, 2)
    folds, ones = np.arange(3000) % 2, np.ones(3000)
    truth = np.mean([log_density(three(), row, int(c[0]), [0, 1, 2, 3]) for row, c in zip(fresh, levels, strict=True)])
    peer = Peer(3, n_init=3, random_state=0).fit(numbers).score(fresh)
    alone = np.mean([log_density(three(), row, None, [0, 1, 2, 3]) for row in fresh])
    score = lambda found: np.mean(
        [log_density(found, row, int(c[0]), [0, 1, 2, 3]) for row, c in zip(fresh, levels, strict=True)]
    )
    whole = fit_mixture(numbers, codes, (2,), ones, folds)
    assert truth - score(whole) < alone - peer + 0.05
    is_gap = np.random.default_rng(3).random(numbers.shape) < np.where(numbers[:, :1] > 0, 0.6, 0.1)
    is_gap[:, 0] = False
    gappy = np.where(is_gap, np.nan, numbers)
    assert truth - score(fit_mixture(gappy, codes, (2,), ones, folds)) < 0.12


def test_weights_of_rows_are_those_of_copies():
    numbers, codes = draw(1500, 4)
    weight = np.random.default_rng(5).integers(0, 3, 1500).astype(float)
    folds, again = np.arange(1500) % 2, np.repeat(np.arange(1500), weight.astype(int))
    one = fit_mixture(numbers, codes, (2,), weight, folds)
    two = fit_mixture(numbers[again], codes[again], (2,), np.ones(len(again)), folds[again])
    fresh = draw(300, 6)[0]
    score = lambda found: np.array([log_density(found, row, None, [0, 1, 2, 3]) for row in fresh])
    assert abs(np.mean(score(one) - score(two))) < 0.05


def test_few_rows_of_many_numbers_are_taken_column_by_column():
    rows = np.random.default_rng(0).normal(size=(24, 12))
    found = fit_mixture(rows, np.zeros((24, 0)), (), np.ones(24), np.arange(24) % 2)
    assert found.size == 3 and all(np.count_nonzero(part) == 12 for part in found.covariances)


def test_gaps_of_too_many_kinds_are_learned_of_fewer_rows():
    known = np.random.default_rng(0).random((4000, 20)) < 0.5
    few = _few_patterns(known)
    assert len(np.unique(known[:few], axis=0)) == 1024 and len(np.unique(known[: few + 1], axis=0)) == 1025
    assert _few_patterns(np.ones((4000, 20), bool)) == 4000


def test_numbers_without_a_component_that_is_known_are_still_described():
    """A column of which one half of the rows has no number at all."""
    rows = np.random.default_rng(0).normal(size=(40, 2))
    rows[::2, 1] = np.nan
    found = fit_mixture(rows, np.zeros((40, 0)), (), np.ones(40), np.arange(40) % 2)
    assert np.isfinite(found.means).all() and (np.linalg.eigvalsh(found.covariances) > 0).all()


def test_many_numbers_have_no_mixture():
    columns = tuple(Column("whole") for _ in range(33))
    rows = np.random.default_rng(0).poisson(5, (200, 33)).astype(float)
    frame, points = fit_mixed("standardize", rows, np.ones(200), columns, by_column=True)
    assert mixture_of(frame, points, np.ones(200), np.arange(200) % 2) is None
    flow = MixedSpec.fit(FlowSpec(0, width=8, depth=1), frame, points, np.ones(200), True)(jax.random.key(0))
    asked = jnp.where(jnp.arange(33) == 3, jnp.asarray(rows[0]), jnp.nan)
    assert jnp.isfinite(flow.log_prob(asked, jnp.asarray(rows[0]).at[3].set(jnp.nan)))


def test_components_of_no_weight_change_nothing():
    numbers, codes = draw(60, 7)
    small = fit_mixture(numbers, codes, (2,), np.ones(60), np.arange(60) % 2)
    large, row = padded(small), jnp.asarray(numbers[0])
    assert small.size < large.size == 33 and padded(large) is large
    given, asked = jnp.array([True, False, False, True]), jnp.array([False, True, True, False])
    for fold in (-1.0, 0.0):
        law, same = (
            mixture.laws(mixture.logs(jnp.ones(1), jnp.ones(1), fold), row, given, asked) for mixture in (large, small)
        )
        np.testing.assert_allclose(law.log_density(row)[1:3], same.log_density(row)[1:3], rtol=1e-5)
        np.testing.assert_allclose(law.from_normal(jnp.full(4, 0.7)), same.from_normal(jnp.full(4, 0.7)), atol=1e-5)
        np.testing.assert_allclose(law.moments()[1], same.moments()[1], rtol=1e-5)


def test_a_mixture_is_told_all_numbers_that_rows_have(monkeypatch):
    """None is missing but what is a gap, and what a code switches off, or a code that is not known may."""
    columns = (Column("whole"), Column("continuous"), Column("continuous", atoms=(0.0,)))
    rng = np.random.default_rng(0)
    rows = np.stack(
        [rng.poisson(5, 50), rng.normal(size=50), np.where(rng.random(50) < 0.4, 0, rng.normal(size=50))], 1
    )
    rows[3, 1] = rows[4, 2] = np.nan
    frame, points = fit_mixed("standardize", rows, np.ones(50), columns, by_column=True)
    seen = []
    monkeypatch.setattr(_expected, "fit_mixture", lambda values, *args: seen.append(values) or three())
    mixture_of(frame, points, np.ones(50), np.arange(50) % 2)
    expected = np.isnan(rows)
    expected[:, 2] |= rows[:, 2] == 0
    np.testing.assert_array_equal(np.isnan(seen[0]), expected)
