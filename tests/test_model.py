import numpy as np
import pytest

import model


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1)])
def test_one_logit_per_image(shape):
    """w.x + b in NumPy; float32 sums of 784 products of size below 1 agree to 1e-5."""
    classifier = model.linear(shape)
    kernel, bias = classifier.trainable_variables
    assert (kernel.shape, bias.shape) == ((np.prod(shape), 1), (1,))
    bias.assign([0.25])
    x = np.random.default_rng(0).random((5, *shape), np.float32)
    logits = x.reshape(5, -1) @ kernel.numpy() + 0.25
    assert logits.shape == (5, 1)
    np.testing.assert_allclose(classifier(x), logits, atol=1e-5)


def test_glorot_limits():
    """Uniform in +-sqrt(6 / (d + 1)): of 784 draws the largest misses a hundredth of the limit
    with probability 0.99^784 < 4e-4, and the seed is fixed."""
    kernel, bias = model.linear((28, 28, 1)).get_weights()
    limit = np.sqrt(6 / 785)
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    # The standard deviation is limit / sqrt(3), its own relative error 0.45 / sqrt(784) = 1.6 %.
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert bias == 0


def test_pytorch_limits():
    """Uniform in +-1 / sqrt(d), as torch.nn.Linear draws; the tolerances are those above."""
    kernel, bias = model.linear((28, 28, 1), "pytorch").get_weights()
    limit = 1 / 28
    assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)  # float32
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert bias == 0


def test_seed_decides_the_weights():
    one, same, other = (model.linear((8, 8, 1), seed=s).get_weights()[0] for s in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_zeros():
    assert all((weights == 0).all() for weights in model.linear((8, 8, 1), "zeros").get_weights())
