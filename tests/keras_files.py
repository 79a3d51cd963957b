"""Keras on torch, without TensorFlow: models as its users build and save them."""

import os
import tempfile
from typing import Any

import pytest


def library() -> Any:
    """Keras 3; the test is skipped where it is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("KERAS_HOME", tempfile.gettempdir())  # where it leaves a file
    return pytest.importorskip("keras")


def scattered(model: Any) -> Any:
    """A model whose every weight is far from its start; variances stay positive."""
    import numpy as np

    generator = np.random.default_rng(0)
    model.set_weights([np.abs(generator.normal(size=w.shape)) + 0.1 for w in model.get_weights()])
    for weight in model.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


def sequential(*layers: Any, width: int = 5) -> Any:
    keras = library()
    return scattered(keras.Sequential([keras.Input((width,)), *layers]))


def mlp(activation: Any = "relu", **options: Any) -> Any:
    dense = library().layers.Dense
    return sequential(dense(8, activation=activation, **options), dense(6, "tanh"), dense(3))


def gated() -> Any:
    """A gated layer with a residual path, as the functional interface has it."""
    keras = library()
    x = keras.Input((5,))
    gate = keras.layers.Dense(8, activation="silu", name="gate")(x)
    value = keras.layers.Dense(8, use_bias=False, name="value")(x)
    y = keras.layers.Dense(5, name="down")(keras.layers.Multiply()([gate, value]))
    return scattered(keras.Model(x, keras.layers.Add()([x, y])))


def nested() -> Any:
    """Models inside a model, with a scale before them and a normalisation in one."""
    keras = library()
    layers, x = keras.layers, keras.Input((6,))
    first = keras.Sequential([layers.Dense(6, "relu"), layers.BatchNormalization()])
    second = keras.Model(x, layers.Dense(4, "relu")(x))
    scale = layers.Rescaling(1 / 255, offset=-1.0)
    return sequential(scale, first, second, layers.Dense(1, "sigmoid"))


def convolutional(**options: Any) -> Any:
    """A network of images; options are those of its convolution."""
    keras = library()
    layers = keras.layers
    return scattered(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Rescaling(1 / 255, offset=-1),
                layers.Conv2D(4, 3, **options),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(7, activation="relu"),
                layers.Dense(2, activation="softmax"),
            ]
        )
    )
