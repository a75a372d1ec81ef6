"""The Adversarial Robustness Toolbox, as benchmark.py and two studies compare with it.

Neither needs it for anything else; the tests' requirements bring it along.
"""

from __future__ import annotations

import importlib.util
import warnings

from lab import cli


def installed() -> bool:
    return importlib.util.find_spec("art") is not None


def estimator(model, loss, box: bool):
    """A Keras model of logits and the loss that attacks climb, as the toolbox wants them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses PyTorch
        from art.estimators.classification import TensorFlowV2Classifier
    return TensorFlowV2Classifier(
        model=model,
        nb_classes=model.output_shape[1],
        input_shape=model.input_shape[1:],
        loss_object=loss,
        clip_values=(0.0, 1.0) if box else None,
    )


def linear(W, b):
    """The same of a linear model, W (K, d) and b (K,) of logits, in the box [0, 1].

    Attacks climb its cross-entropy, in float32: the sum, so that the gradient of an image does not
    depend on how many others there are.
    """
    cli.import_tensorflow()
    import keras

    classes, d = W.shape
    model = keras.Sequential([keras.Input((d,)), keras.layers.Dense(classes)])
    model.set_weights([W.T, b])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    return estimator(model, loss, box=True)


def attack(estimator, eps: float, steps: int, norm: str = "inf"):
    """FGSM (one step along the gradient) or PGD of the toolbox, in the ball called `norm`."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    known = dict(norm=float(norm), eps=float(eps), batch_size=4096)  # float("inf") is np.inf
    if steps == 1:
        return FastGradientMethod(estimator, **known)
    size = 2.5 * float(eps) / steps
    return ProjectedGradientDescent(
        estimator, eps_step=size, max_iter=steps, verbose=False, **known
    )
