"""Pictures given a class or attributes: the law of each, the class by Bayes' rule, and that nothing is lost."""

import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from checks import randomize
from liouville import DataError, ImageDensity
from liouville._splits import split_pictures
from liouville._targets import check_given, given_rows
from liouville.flows import IMAGE_FIELDS, FlowSpec
from liouville.mixed import GivenRows

# Pixels of 2 x 2 pictures are binomial, independent given the class.
LEVELS, SHARES = 16, np.array([0.5, 0.3, 0.2])
CHANCES = np.array([[0.35, 0.5, 0.5, 0.6], [0.6, 0.6, 0.4, 0.5], [0.5, 0.7, 0.7, 0.4]])
NAMES = np.array(["cat", "dog", "emu"])
SMALL = {
    "levels": LEVELS,
    "vector_field": "mlp",
    "width": 32,
    "depth": 1,
    "batch_size": 256,
    "learning_rate": 3e-3,
    "validation_size": 200,
    "random_state": 0,
}


def law(num, seed=0):
    """Draw pictures and their classes, as numbers."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, num, p=SHARES)
    return rng.binomial(LEVELS - 1, CHANCES[y]).astype(np.uint8).reshape(num, 2, 2, 1), y


def exact(X):
    """Return the log-probability of pictures given each class."""
    return stats.binom.logpmf(X.reshape(-1, 1, 4), LEVELS - 1, CHANCES).sum(axis=-1)


@functools.cache
def fitted(is_given=True, max_iter=500, num=4000):
    X, y = law(num)
    return ImageDensity(**SMALL, max_iter=max_iter).fit(X, NAMES[y] if is_given else None)


def same_weights(one, other):
    leaves = [jax.tree.leaves(density.flow_) for density in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def std_error(values):
    return values.std() / math.sqrt(len(values))


def test_the_class_has_its_posterior_probability():
    X, y = law(2000, 1)
    density = fitted()
    found = density.predict_proba(X)
    assert found.shape == (2000, 3) and density.classes_.tolist() == NAMES.tolist()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    joint = exact(X) + np.log(SHARES)
    posterior = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    assert np.abs(found - posterior).mean() < 0.04
    # Noise that is drawn anew for each class would move it by as much as the noise of the bounds.
    of_all = {"random_state": np.random.RandomState(0).randint(2**31 - 1)}
    bounds = np.stack([density.score_samples(X[:50], name, **of_all) for name in NAMES], axis=1)
    odds = np.exp(bounds) * density.facts_["class_shares"]
    np.testing.assert_allclose(found[:50], odds / odds.sum(axis=1)[:, None], rtol=1e-3, atol=1e-5)
    # What is lost of the likelihood of the class, in nats, beside what it says: the entropy of the shares less 0.4.
    own = np.arange(2000), y
    lost = np.log(posterior[own]) - np.log(found[own])
    assert lost.mean() < 0.02 + 4 * std_error(lost)
    is_right = density.predict(X) == NAMES[y]
    assert is_right.mean() > (posterior.argmax(axis=1) == y).mean() - 0.02


def test_the_class_saves_its_mutual_information():
    X, y = law(2000, 1)
    log_prob = exact(X)
    truth = log_prob[np.arange(2000), y] - np.logaddexp.reduce(log_prob + np.log(SHARES), axis=1)
    given = fitted().score_samples(X, NAMES[y])
    saved = given - fitted(is_given=False).score_samples(X)
    gap = saved - truth
    assert truth.mean() > 0.3
    assert abs(gap.mean()) < 4 * std_error(gap) + 0.06
    bits = fitted().bits_per_dim(X, NAMES[y])
    assert bits.mean == pytest.approx(-given.mean() / 4 / math.log(2))
    assert bits.mean > -log_prob[np.arange(2000), y].mean() / 4 / math.log(2) - 4 * bits.std_error
    assert fitted().score(X, NAMES[y]) == pytest.approx(given.mean())
    found = fitted().evaluate(X[:50], NAMES[y[:50]], num_exact=5)
    assert found["exact"].num_pictures == 5
    # Each picture is given its own class, however it is measured.
    alone = {
        "1 draw": (50, {}),
        "probes": (5, {}),
        "exact": (5, {"num_probes": None}),
        "mid-points": (50, {"middle": True}),
    }
    for name, (num, how) in alone.items():
        assert found[name].mean == pytest.approx(fitted().bits_per_dim(X[:num], NAMES[y[:num]], **how).mean), name
    # What is given of others costs many standard errors.
    worse = given - fitted().score_samples(X, NAMES[np.random.default_rng(0).permutation(y)])
    assert worse.mean() > 10 * std_error(worse)


def test_pictures_are_drawn_of_the_class_that_is_asked_for():
    density = fitted()
    drawn = density.sample(1000, random_state=0, y="emu").reshape(1000, 4)
    error = np.sqrt(CHANCES[2] * (1 - CHANCES[2]) * 15 / 1000)
    np.testing.assert_allclose(drawn.mean(axis=0), 15 * CHANCES[2], atol=0.25 + 4 * error.max())
    each = density.sample(3, random_state=0, y=["emu", "cat", "emu"])
    np.testing.assert_array_equal(each.reshape(3, 4)[[0, 2]], drawn[[0, 2]])


def test_a_file_keeps_what_is_given(tmp_path):
    X, y = law(50, 1)
    density = fitted()
    density.save(tmp_path / "model")
    again = ImageDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score_samples(X, NAMES[y]), density.score_samples(X, NAMES[y]))
    np.testing.assert_array_equal(again.predict_proba(X), density.predict_proba(X))
    np.testing.assert_array_equal(again.sample(5, 0, y="dog"), density.sample(5, 0, y="dog"))
    assert again.facts_ == density.facts_ and again.classes_.tolist() == NAMES.tolist()


def test_points_of_the_base_are_those_of_the_class():
    X, y = law(50, 1)
    density, names = fitted(), NAMES[y]
    points = density.transform(X, names)
    np.testing.assert_array_equal(density.inverse_transform(points, names), X)
    assert (density.inverse_transform(points, np.roll(names, 1)) != X).any()
    drawn, log_prob = density.sample_with_log_prob(5, 0, y="dog")
    np.testing.assert_array_equal(log_prob, density.score_samples(drawn, "dog"))
    assert density.certify(X, 20, y=names).max_shift < 0.05


def test_what_is_given_is_asked_for_where_the_fit_has_had_it():
    X, y = law(20, 1)
    given, plain = fitted(), fitted(is_given=False)
    asked = [lambda: given.sample(3), lambda: given.score_samples(X), lambda: given.transform(X)]
    for ask in [*asked, lambda: given.bits_per_dim(X), lambda: given.certify(X)]:
        with pytest.raises(ValueError, match="Expected y, as in the fit, got none"):
            ask()
    for ask in (lambda: plain.sample(3, y="cat"), lambda: plain.score_samples(X, y)):
        with pytest.raises(ValueError, match="Expected no y, as in the fit, got y"):
            ask()
    with pytest.raises(DataError, match="Expected y for 3 pictures, or one for all, got 2"):
        given.sample(3, y=["cat", "dog"])
    with pytest.raises(DataError, match="levels that the fit has seen, got 'cow'"):
        given.sample(3, y="cow")
    with pytest.raises(TypeError, match="given one class each"):
        plain.predict(X)
    with pytest.raises(ValueError, match="Expected no error"):
        given.score_samples(X, NAMES[y], error=1e-2)
    with pytest.raises(ValueError, match="try score_samples"):
        given.log_prob_fn()
    with pytest.raises(ValueError, match="inconsistent numbers"):
        ImageDensity(**SMALL).fit(X, y[:5])
    with pytest.raises(DataError, match="Of y: Expected finite numbers"):
        ImageDensity(**SMALL).fit(X, np.where(y == 1, np.nan, y))


def test_weights_count_in_the_shares_of_classes_and_a_refit_forgets():
    X, y = law(4000)
    density = ImageDensity(**SMALL, max_iter=2).fit(X, NAMES[y], sample_weight=np.where(y == 0, 0.0, y))
    shares = np.bincount(y, np.where(y == 0, 0.0, y))
    np.testing.assert_allclose(density.facts_["class_shares"], shares / shares.sum())
    assert (density.predict_proba(X[:5])[:, 0] == 0).all()
    density.fit(X)
    assert not hasattr(density, "classes_") and not hasattr(density, "given_")
    assert density.sample(2).shape == (2, 2, 2, 1)


class Killed(Exception):
    """What a test interrupts a fit with."""


def test_a_fit_that_is_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("liouville.training._SEGMENT_SECONDS", 0.02)
    monkeypatch.setattr("liouville._fitting.SAVING_SHARE", math.inf)
    X, y = law(4000)
    path = str(tmp_path / "checkpoint")
    make = lambda **more: ImageDensity(**SMALL, max_iter=300, **more)

    def kill(step, loss, flow):
        if step >= 100:
            raise Killed

    with pytest.raises(Killed):
        make(checkpoint=path).fit(X, y, callback=kill)
    with pytest.raises(ValueError, match="of these parameters, these data"):
        make(checkpoint=path).fit(X, np.roll(y, 1))
    resumed = make(checkpoint=path).fit(X, y)
    assert not os.path.exists(path)
    assert same_weights(resumed, make().fit(X, y))


def test_copies_under_several_conditions_are_held_out_together():
    rng = np.random.default_rng(0)
    X, condition = rng.integers(0, 3, size=(400, 2, 2, 1)).astype(np.uint8), rng.integers(0, 3, size=(400, 1))
    weight = rng.integers(0, 3, size=400).astype(float)
    split = split_pictures(X, weight, 30, 3, 0, condition)
    text = lambda numbers: {X[i].tobytes() for i in numbers}
    assert not text(split.train) & text(split.chosen)
    for i in split.chosen:
        alike = (X[i] == X).all(axis=(1, 2, 3)) & (condition == condition[i])[:, 0]
        assert weight[alike].sum() == pytest.approx(split.mass[split.chosen.tolist().index(i)])
    # All that has a weight is on one of the sides.
    assert weight[split.train].sum() + split.mass.sum() == weight.sum()


@pytest.mark.parametrize(
    ("make", "size", "one"),
    [
        (lambda rng: rng.integers(0, 30, 300), 30, 7),
        (lambda rng: NAMES[rng.integers(0, 3, 300)], 3, "dog"),
        (lambda rng: pd.Series(rng.integers(0, 3, 300), name="kind"), 3, 2),
        (lambda rng: pd.Series(NAMES[rng.integers(0, 3, 300)]).astype("category"), 3, "emu"),
        (lambda rng: rng.normal(size=300), 2, 0.5),
        (lambda rng: rng.normal(size=(300, 2)), 4, [0.5, 1.0]),
        (
            lambda rng: pd.DataFrame({"kind": NAMES[rng.integers(0, 3, 300)], "age": rng.normal(size=300)}),
            5,
            pd.DataFrame({"kind": ["dog"], "age": [0.5]}),
        ),
    ],
    ids=["integers", "text", "series", "categories", "attribute", "attributes", "frame"],
)
def test_what_may_be_given(make, size, one):
    y = make(np.random.default_rng(0))
    density, X = ImageDensity(), np.zeros((300, 2, 2, 1), np.uint8)
    rows, columns = check_given(X, y, density)
    given = GivenRows.fit(rows, np.ones(300), columns.columns)
    found = given.features(rows)
    assert found.shape == (300, size) and np.isfinite(found).all() and np.ptp(found, axis=0).min() > 0
    np.testing.assert_array_equal(given_rows(y[:4], 4, density, columns), rows[:4])
    assert given_rows(one, 3, density, columns).shape == (3, rows.shape[1])


@pytest.mark.parametrize("name", IMAGE_FIELDS)
def test_a_condition_is_more_than_a_shift_of_each_field(name):
    """What it changes of the velocity is another thing at another point."""
    shape, rng = (4, 4, 1), np.random.default_rng(0)
    field = randomize(
        FlowSpec(shape, vector_field=name, width=8, depth=1, cond_shape=3).make_field(shape, jax.random.key(0)), 0
    )
    one, other = jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray([0.0, 1.0, 0.0])
    change = [field(0.5, x, one) - field(0.5, x, other) for x in jnp.asarray(rng.normal(size=(2, *shape)), float)]
    assert np.abs(change[0]).max() > 1e-3
    assert np.abs(change[0] - change[1]).max() > 1e-2 * np.abs(change[0]).max()
