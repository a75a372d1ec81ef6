"""The linear classifier: one logit w.x + b per image."""

import keras


def linear(image_shape: tuple[int, ...], init: str = "glorot", seed: int = 0) -> keras.Model:
    """A Keras linear layer over the flattened image.

    Args:
        image_shape: (height, width, channels).
        init: "glorot" draws the weights uniformly from +-sqrt(6 / (d + 1)), the default of Keras
            and of the article; "pytorch" from +-sqrt(1 / d), PyTorch's default; "zeros" starts at
            0, where the weights of pixels stay that are 0 in every image.
        seed: of the draw.

    Returns:
        A model from (n, *image_shape) to logits (n, 1). Its variables are the weights (d, 1)
        and the bias (1,), which starts at zero.
    """
    initializers = {
        "glorot": keras.initializers.GlorotUniform(seed),
        "pytorch": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed),
        "zeros": "zeros",
    }
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(1, kernel_initializer=initializers[init]),
        ]
    )
