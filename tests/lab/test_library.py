"""The attacks of a well-kept library against our model: none may go below our exact accuracy.

The library is the Adversarial Robustness Toolbox, which needs nothing that we do not need too:
`pip install --no-deps adversarial-robustness-toolbox==1.20.1`. Without it, this is skipped.
"""

import warnings

from lab import library
from lab.cli import RESULTS

import numpy as np
import pytest
from conftest import flat

import benchmark
import runs
import worst_case

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses PyTorch
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    from art.attacks.evasion import ElasticNet

ROUNDING = 1e-5  # of a radius: the library perturbs in float32
# At the first radius few images flip, at the second many do.
THREATS = [
    ("inf", False, [0.05, 0.12]),
    ("inf", True, [0.05, 0.12]),
    ("2", False, [1.2, 2.5]),
    ("2", True, [1.2, 2.5]),
    ("1", False, [9.0, 18.0]),
]


def one_hot(y):
    return np.stack([y < 0, y > 0], axis=1).astype(np.float32)


def check_no_attack_is_stronger(run, images, labels, norm, box, radii):
    """FGSM (in the L2 and L1 ball: one step along the gradient) and PGD, from two starts."""
    x, y = flat(images), np.float64(labels)
    clean = int((y * (x @ run.w + run.b) > 0).sum())
    own = worst_case.signed_radii(x, y, run.w, run.b, norm, box)
    estimator = benchmark.library_model(run, box)
    for eps in radii:
        least, most = worst_case.withstand(own, eps * np.array([1 + ROUNDING, 1 - ROUNDING]))
        for steps, starts in ((1, 0), (15, 0), (15, 1)):
            attack = library.attack(estimator, eps, steps)
            attack.set_params(norm=float(norm), num_random_init=starts)
            perturbed = flat(attack.generate(images, one_hot(y)))
            # Within the ball and the box, so that the comparison is a fair one.
            size = np.linalg.norm(perturbed - x, float(norm), axis=1).max()
            assert 0 < size <= eps * (1 + ROUNDING)
            assert not box or (perturbed.min() >= 0 and perturbed.max() <= 1)
            margins = y * (perturbed @ run.w + run.b)
            correct = int((margins > 0).sum())
            assert least <= correct < clean
            # Sample by sample: what it flips, our radius says can be flipped.
            assert (own[margins <= 0] <= eps * (1 + ROUNDING)).all()
            # From the image itself it goes straight to the worst case, but for L2 in the box.
            if starts == 0 and (norm == "inf" or not box):
                assert correct <= most


@pytest.mark.parametrize(("norm", "box", "radii"), THREATS)
def test_no_attack_is_stronger(trained, sample, norm, box, radii):
    for run in runs.read_runs(trained / sample.name).values():
        check_no_attack_is_stronger(run, sample.x_test[::2], sample.y_test[::2], norm, box, radii)


def test_no_attack_in_the_l1_ball_and_the_box_is_stronger(trained, sample):
    """The elastic-net attack, which looks for the smallest L1 perturbation of each image.

    (PGD of the library moves one pixel only in this ball, which flips nothing in the box.) It
    comes to within 20 % of our radius on every image, and never below.
    """
    images, y = sample.x_test[::20], np.float64(sample.y_test[::20])
    x = flat(images)
    run = runs.read_runs(trained / sample.name)["regular-epochs5"]
    search = dict(max_iter=100, initial_const=10.0, binary_search_steps=1, batch_size=len(y))
    estimator = benchmark.library_model(run, box=True)
    attack = ElasticNet(estimator, decision_rule="L1", verbose=False, **search)
    perturbed = flat(attack.generate(images, one_hot(y)))
    assert ((perturbed >= 0) & (perturbed <= 1)).all()
    assert (y * (perturbed @ run.w + run.b) <= 0).all()
    sizes = np.abs(perturbed - x).sum(axis=1)
    radii = worst_case.signed_radii(x, y, run.w, run.b, "1", box=True)
    assert ((sizes >= radii * (1 - ROUNDING)) & (sizes <= radii * 1.2)).all()


@pytest.mark.mnist
@pytest.mark.parametrize("box", [False, True])
def test_no_attack_is_stronger_on_mnist(mnist, box):
    """Every fifteenth image of the test set."""
    run = runs.load_run(RESULTS / "mnist-0-1" / "runs" / "robust-eps0.2.npz")
    images, labels = mnist.x_test[::15], mnist.y_test[::15]
    check_no_attack_is_stronger(run, images, labels, "inf", box, [0.2, 0.35])
