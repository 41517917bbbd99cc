"""scikit-learn's densities: a Gaussian mixture chosen by BIC, and a kernel density chosen by cross-validation."""

import numpy as np
from common import main
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
BANDWIDTHS = np.geomspace(0.02, 1.0, 12)
MOST_ROWS = 8000


def gaussian_mixture(train, validation, clock, seed):
    """Fit mixtures of more and more components while the time lasts; the lowest BIC wins."""
    best, lowest, curve = None, np.inf, []
    for num in COMPONENTS:
        if best is not None and clock.now() > clock.seconds / 2:
            break
        found = GaussianMixture(num, random_state=seed, reg_covar=1e-5).fit(train.astype(np.float64))
        bic = found.bic(train)
        if bic < lowest:
            best, lowest = found, bic
            curve.append([clock.now(), -found.score(validation)])
    return best.score_samples, curve, f"{best.n_components} of {COMPONENTS} components, full covariances, lowest BIC"


def kernel_density(train, validation, clock, seed):
    """Choose the bandwidth by cross-validation on at most 8,000 rows."""
    rows = train[np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]]
    search = GridSearchCV(KernelDensity(), {"bandwidth": BANDWIDTHS}, cv=5).fit(rows)
    best = search.best_estimator_
    settings = f"Gaussian kernel, bandwidth {best.bandwidth:.3f} by 5-fold cross-validation, {len(rows)} rows"
    return best.score_samples, [[clock.now(), -best.score(validation) / len(validation)]], settings


if __name__ == "__main__":
    main({"Gaussian mixture": gaussian_mixture, "kernel density": kernel_density}, ("scikit-learn",))
