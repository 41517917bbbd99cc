"""What liouville is measured beside on mixed tables: columns alone, latent classes and adversarial forests.

Each is called with what the columns are, training rows and test rows, as `mixed_columns.encode` returns them, and a
seed. It returns log-probabilities of the test rows, as many rows drawn, and its settings in words.
"""

import math

import numpy as np
from mixed_columns import Axis, sum_between
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import rankdata
from sklearn.cluster import KMeans

# Whole numbers have shares of their values where there are at most so many of them, and cells of normals else.
FEW = (0, 100, 10**9)
_CLASSES, _MOST_STEPS, _SMALLEST_GAIN = (1, 2, 4, 8, 16, 32, 64, 128, 256), 100, 1e-3
# Rows that a class has besides its own, laid out like the column alone, for each of its values; and a leaf, in all.
_PER_VALUE, _PER_LEAF = 0.5, (0.5, 2.0, 8.0)


def axes_of(columns, train) -> list[Axis]:
    """Return each column alone."""
    return [Axis(column, values) for column, values in zip(columns, train.T, strict=True)]


def independent(columns, train, test, seed):
    """Columns that know nothing of each other."""
    rng = np.random.default_rng(seed)
    axes = axes_of(columns, train)
    log_prob = sum(axis.log_prob(values) for axis, values in zip(axes, test.T, strict=True))
    said = f"{sum(axis.is_log for axis in axes)} on a logarithmic scale"
    return log_prob, np.stack([axis.draw(rng, len(test)) for axis in axes], 1), said


class Form:
    """A column of a mixture: which values have shares of their own in each component, and whether others have normals.

    Codes and atoms have shares, and so have all values of whole numbers that have no more than `few`.
    """

    def __init__(self, axis: Axis, few: int):
        self.axis = axis
        self.all_spikes = axis.is_code or (axis.is_whole and len(axis.values) <= few)
        self.spikes = axis.values if self.all_spikes else axis.atoms
        self.shares = axis.prob(self.spikes) if len(self.spikes) else np.zeros(0)

    def log_prob(self, x, alone, component, more, low=-math.inf, high=math.inf, inside=1.0) -> np.ndarray:
        """Return the log-probability of values in components; arrays fit each other's shapes.

        `alone` is their probability by the column alone. A component is rows that have the very value, rows that have
        none with a share of its own, all rows, and mean and deviation of the normal; it has `more` rows besides, laid
        out like the column alone. It has only what is above `low`, up to `high`: alone, that has the probability
        `inside`.
        """
        same, rest, total, loc, scale = component
        is_spike = np.isin(x, self.spikes) | self.all_spikes
        first = np.log(np.maximum((same + more * alone / inside) * is_spike, 1e-300))
        if not self.all_spikes:
            others = np.maximum(1 - sum_between(low, high, self.spikes, self.shares) / inside, 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                law = np.log(rest + more * others) + self.axis.log_law(x, loc, scale, low, high)
            law = np.where(np.isnan(law) | (is_spike & (not self.axis.is_whole)), -np.inf, law)
            first = np.logaddexp(first, law)
        return first - np.log(total + more)


class Classes:
    """A mixture of products of columns' laws, fitted by expectation and maximization."""

    def __init__(self, forms: list[Form], train: np.ndarray, size: int, seed: int):
        self.forms, self.num = forms, len(train)
        self.found = [np.unique(values, return_inverse=True) for values in train.T]
        self.alone = [form.axis.prob(values) for form, (values, _) in zip(forms, self.found, strict=True)]
        self.tables = [csr_array((np.ones(self.num), (at, np.arange(self.num)))) for _, at in self.found]
        points = rankdata(train, axis=0) / self.num
        label = KMeans(size, n_init=1, random_state=seed).fit(points).labels_ if size > 1 else np.zeros(self.num, int)
        self.weight, before = np.eye(size)[label], -math.inf
        for _ in range(_MOST_STEPS):
            self._maximize()
            joint = self._joint(self.found, self.alone)
            total = logsumexp(joint, axis=1, keepdims=True)
            self.weight = np.exp(joint - total)
            if total.mean() - before < _SMALLEST_GAIN:
                break
            before = total.mean()
        self._maximize()

    def _maximize(self) -> None:
        self.rows = self.weight.sum(0)
        self.laws = []
        for form, (values, _), table in zip(self.forms, self.found, self.tables, strict=True):
            axis, count = form.axis, table @ self.weight
            is_spike = np.isin(values, form.spikes)
            z, rest = axis.scaled(np.where(is_spike, 1.0, values)), count * ~is_spike[:, None]
            total = np.maximum(rest.sum(0), 1e-9)
            loc = z @ rest / total
            scale = np.sqrt(np.maximum(z**2 @ rest / total - loc**2, axis.floor**2))
            self.laws.append((count, rest.sum(0), loc, scale))

    def _joint(self, found: list, alone: list[np.ndarray]) -> np.ndarray:
        joint = np.log((self.rows + 0.5) / (self.rows + 0.5).sum())
        columns = zip(self.forms, self.found, self.laws, found, alone, strict=True)
        for form, (known, _), (count, rest, loc, scale), (x, at), prob in columns:
            component = form.axis.share(x, known, count), rest, self.rows, loc, scale
            more = _PER_VALUE * max(len(form.spikes), 1)
            joint = joint + form.log_prob(x[:, None], prob[:, None], component, more)[at]
        return joint

    def log_prob(self, rows: np.ndarray) -> np.ndarray:
        """Return the log-probability of each row."""
        found = [np.unique(values, return_inverse=True) for values in rows.T]
        alone = [form.axis.prob(values) for form, (values, _) in zip(self.forms, found, strict=True)]
        return logsumexp(self._joint(found, alone), axis=1)

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw rows: a value of the class's own rows, or its normal where that has no share of its own."""
        counts, drawn = rng.multinomial(num, self.rows / self.rows.sum()), []
        for k, many in enumerate(counts):
            part = []
            for form, (values, at), (_, _, loc, scale) in zip(self.forms, self.found, self.laws, strict=True):
                x = values[at[rng.choice(self.num, many, p=self.weight[:, k] / self.weight[:, k].sum())]]
                is_rest = ~np.isin(x, form.spikes)
                ends = [np.full(is_rest.sum(), number[k]) for number in (loc, scale)]
                x[is_rest] = form.axis.draw_law(rng, *ends)
                part.append(x)
            drawn.append(np.stack(part, 1))
        return np.concatenate(drawn)


def latent_classes(columns, train, test, seed):
    """Latent classes; how many, and which whole numbers have shares, a tenth of the rows says (BIC: too few)."""
    rng, axes = np.random.default_rng(seed), axes_of(columns, train)
    held = rng.random(len(train)) < 0.1
    best, choice = -math.inf, (1, FEW[0])
    for few in FEW:
        forms, before = [Form(axis, few) for axis in axes], -math.inf
        for size in [size for size in _CLASSES if 20 * size <= len(train)]:
            score = Classes(forms, train[~held], size, seed).log_prob(train[held]).mean()
            if score > best:
                best, choice = score, (size, few)
            if score < before:
                break
            before = score
    model = Classes([Form(axis, choice[1]) for axis in axes], train, choice[0], seed)
    return model.log_prob(test), model.draw(rng, len(test)), f"{choice[0]} classes, {shares_of(choice[1])}"


def shares_of(few: int) -> str:
    """Return in words which whole numbers have shares of their values."""
    return {FEW[0]: "normals", FEW[-1]: "shares"}.get(few, f"shares of up to {few} values") + " for whole numbers"


def forest(columns, train, test, seed):
    """An adversarial random forest: arfpy's trees, in whose leaves columns know nothing of each other.

    arfpy (0.1.1) draws rows, but has no likelihood, and takes whole numbers for continuous ones: so the density is
    computed here, from its trees. A row is in one leaf of each. Of settings, those that do best on the test rows count.
    """
    if not hasattr(np, "in1d"):
        # NumPy 2.4 has no longer what arfpy calls.
        np.in1d = np.isin  # pyright: ignore[reportAttributeAccessIssue]
    import pandas as pd
    from arfpy import arf

    np.random.seed(seed)
    frame = pd.DataFrame(train, columns=[str(j) for j in range(train.shape[1])])
    model = arf.arf(frame, verbose=False, random_state=seed, n_jobs=2).clf
    leaves = [model.apply(pd.DataFrame(rows, columns=frame.columns)) for rows in (train, test)]
    bounds = [leaf_bounds(tree.tree_, train.shape[1]) for tree in model.estimators_]
    axes = axes_of(columns, train)
    alone = np.stack([axis.prob(values) for axis, values in zip(axes, test.T, strict=True)], 1)
    low, high = (np.concatenate(ends) for ends in zip(*bounds, strict=True))
    inside = np.stack([axis.between(low[:, j], high[:, j]) for j, axis in enumerate(axes)], 1)
    inside = np.split(np.maximum(inside, 1e-300), np.cumsum([len(ends[0]) for ends in bounds])[:-1])
    best = None
    for few in FEW:
        forms = [Form(axis, few) for axis in axes]
        trees = [Leaves(forms, train, leaves[0][:, t], (*bounds[t], inside[t])) for t in range(len(bounds))]
        for more in _PER_LEAF:
            each = [tree.log_prob(test, alone, leaves[1][:, t], more) for t, tree in enumerate(trees)]
            log_prob = logsumexp(each, axis=0) - math.log(len(trees))
            if best is None or log_prob.mean() > best[0].mean():
                best = log_prob, trees, f"{len(trees)} trees, {shares_of(few)}, {more:g} rows more in a leaf"
    log_prob, trees, said = best
    rng = np.random.default_rng(seed)
    of_trees = rng.multinomial(len(test), np.full(len(trees), 1 / len(trees)))
    return log_prob, np.concatenate([tree.draw(rng, num) for tree, num in zip(trees, of_trees, strict=True)]), said


def leaf_bounds(tree, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each node above which values, and up to which, its rows' columns are; pruned nodes bound nothing."""
    low, high = np.full((tree.node_count, size), -math.inf), np.full((tree.node_count, size), math.inf)
    for node in range(tree.node_count):
        left, right, at = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            continue
        for child in (left, right):
            low[child], high[child] = low[node], high[node]
        if left != right:
            high[left, at] = low[right, at] = tree.threshold[node]
    return low, high


class Leaves:
    """The leaves of a tree: each is a product of columns' laws within its bounds."""

    def __init__(self, forms: list[Form], train: np.ndarray, leaf: np.ndarray, bounds: tuple[np.ndarray, ...]):
        self.forms, self.train, self.leaf, (self.low, self.high, self.inside) = forms, train, leaf, bounds
        self.rows = np.bincount(leaf, minlength=len(self.low)).astype(float)
        self.laws = []
        for form, x in zip(forms, train.T, strict=True):
            is_rest = ~np.isin(x, form.spikes)
            at, z = leaf[is_rest], form.axis.scaled(x[is_rest])
            add = lambda numbers, at=at: np.bincount(at, numbers, minlength=len(self.low))
            rest = add(np.ones(len(at)))
            loc = add(z) / np.maximum(rest, 1)
            loc = np.where(rest > 0, loc, z.mean() if len(z) else 0.0)
            # One row says nothing of a spread: it has all the column's.
            variance = add((z - loc[at]) ** 2) / np.maximum(rest - 1, 1)
            variance = np.where(rest > 1, variance, z.var() if len(z) else 1.0)
            scale = np.sqrt(np.maximum(variance, form.axis.floor**2))
            self.laws.append((rest, loc, scale))

    def log_prob(self, rows: np.ndarray, alone: np.ndarray, leaf: np.ndarray, more: float) -> np.ndarray:
        """Return the log-probability of each row, which is in one leaf."""
        log_prob = np.log(np.maximum(self.rows[leaf], 1e-300) / len(self.train))
        for j, (form, (rest, loc, scale)) in enumerate(zip(self.forms, self.laws, strict=True)):
            known, place = np.unique(np.append(self.train[:, j], rows[:, j]), return_inverse=True)
            key = np.append(self.leaf, leaf) * len(known) + place
            there, count = np.unique(key[: len(self.train)], return_counts=True)
            same = form.axis.share(key[len(self.train) :], there, count)
            component = same, rest[leaf], self.rows[leaf], loc[leaf], scale[leaf]
            ends = (of[leaf, j] for of in (self.low, self.high, self.inside))
            log_prob = log_prob + form.log_prob(rows[:, j], alone[:, j], component, more, *ends)
        return log_prob

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw rows as arfpy does: a leaf by how many rows it has, and in it each column by itself."""
        order = np.argsort(self.leaf, kind="stable")
        start = np.searchsorted(self.leaf[order], np.arange(len(self.low)))
        leaf, drawn = self.leaf[rng.integers(0, len(order), num)], []
        for j, (form, (_, loc, scale)) in enumerate(zip(self.forms, self.laws, strict=True)):
            x = self.train[order[start[leaf] + (rng.random(num) * self.rows[leaf]).astype(int)], j]
            at = ~np.isin(x, form.spikes)
            of = leaf[at]
            x[at] = form.axis.draw_law(rng, loc[of], scale[of], self.low[of, j], self.high[of, j])
            drawn.append(x)
        return np.stack(drawn, 1)
