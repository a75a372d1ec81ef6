"""The attacks of a well-kept library against our model: none may go below our exact accuracy.

The library is the Adversarial Robustness Toolbox, which needs nothing that we do not need too:
`pip install --no-deps adversarial-robustness-toolbox==1.20.1`. Without it, this is skipped.
"""

import warnings

import numpy as np
import pytest
from conftest import flat

import benchmark
import cli
import exact
import runs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses PyTorch
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

NORM = {"inf": np.inf, "2": 2, "1": 1}
RADII = {"inf": [0.05, 0.2], "2": [0.3, 2.0], "1": [1.0, 15.0]}
ROUNDING = 1e-5  # of a radius: the library perturbs in float32


def attacks(estimator, norm, eps):
    """FGSM (in the L2 and L1 ball: one step along the gradient) and PGD, from two starts."""
    known = dict(norm=NORM[norm], eps=eps, batch_size=4096)
    descent = dict(eps_step=eps / 5, max_iter=15, verbose=False)
    yield FastGradientMethod(estimator, **known)
    yield ProjectedGradientDescent(estimator, num_random_init=0, **known, **descent)
    yield ProjectedGradientDescent(estimator, num_random_init=1, **known, **descent)


def check_no_attack_is_stronger(run, images, labels, norm, box):
    x, y = flat(images), np.float64(labels)
    radii = exact.sample_radii(x, y, run.w, run.b, norm, box)
    estimator = benchmark.library_model(run, box)
    chosen = np.stack([y < 0, y > 0], axis=1).astype(np.float32)
    successes = 0
    for eps in RADII[norm]:
        least, most = exact.robust_correct(radii, eps * np.array([1 + ROUNDING, 1 - ROUNDING]))
        for k, attack in enumerate(attacks(estimator, norm, eps)):
            perturbed = flat(attack.generate(images, chosen))
            # Within the ball and the box, so that the comparison is a fair one.
            size = np.linalg.norm(perturbed - x, NORM[norm], axis=1).max()
            assert 0 < size <= eps * (1 + ROUNDING)
            assert not box or (perturbed.min() >= 0 and perturbed.max() <= 1)
            margins = y * (perturbed @ run.w + run.b)
            correct = int((margins > 0).sum())
            assert correct >= least
            # Sample by sample: what it flips, our radius says can be flipped.
            assert (radii[margins <= 0] <= eps * (1 + ROUNDING)).all()
            # One step is all that it takes in these balls, and the box cuts L-infinity's alone
            # without loss.
            if k == 0 and (norm == "inf" or (norm == "2" and not box)):
                assert least <= correct <= most
            successes += int((y * (x @ run.w + run.b) > 0).sum() > correct)
    # In the L1 ball it puts all on one pixel, which the box then cuts: it may flip nothing there.
    assert successes > 0 or (norm == "1" and box)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_no_attack_is_stronger(trained, digits, norm, box):
    for folder in runs.list_runs(trained / "digits-0-1"):
        check_no_attack_is_stronger(runs.load(folder), digits.x_test, digits.y_test, norm, box)


@pytest.mark.mnist
@pytest.mark.parametrize("box", [False, True])
def test_no_attack_is_stronger_on_mnist(mnist, box):
    """Every fifteenth image of the test set."""
    run = runs.load(cli.RESULTS / "mnist-0-1" / "robust-eps0.2")
    check_no_attack_is_stronger(run, mnist.x_test[::15], mnist.y_test[::15], "inf", box)
