"""The pretrained network: MTCNN's R-Net, its weights checked and put into plain JAX."""

import hashlib
import io
from importlib import metadata

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, dict[str, jax.Array]]
"""The parameters of each layer, by the name of the layer."""

# R-Net is from https://arxiv.org/abs/1604.02878, its weights and layers are those of
# https://github.com/ipazc/mtcnn (MIT licence).
WEIGHTS_FILE = "mtcnn/assets/weights/rnet.lz4"
WEIGHTS_SHA256 = "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"


def load_rnet() -> Params:
    """R-Net with its own head, which tells a face (1) from anything else (0).

    The file is a pickle, which can run any code when it is opened, so it is opened only
    if its bytes are those of mtcnn 1.0.0.
    """
    import joblib

    # Found without importing mtcnn, which would import TensorFlow.
    files = metadata.distribution("mtcnn").files or []
    file = next((f for f in files if f.as_posix() == WEIGHTS_FILE), None)
    content = b"" if file is None else file.read_binary()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"{WEIGHTS_FILE} is a pickle and was not opened, since its sha256 is "
            f"{found}, not {WEIGHTS_SHA256} of mtcnn 1.0.0. Write pip install "
            "--force-reinstall --no-deps mtcnn==1.0.0."
        )
    arrays = [jnp.asarray(array) for array in joblib.load(io.BytesIO(content))]
    params: Params = {}
    for layer, name in enumerate(["conv1", "conv2", "conv3", "fc4"]):
        kernel, bias, alpha = arrays[3 * layer : 3 * layer + 3]
        params[name] = {"kernel": kernel, "bias": bias, "alpha": alpha.reshape(-1)}
    # Arrays 12 and 13 are the head that draws bounding boxes.
    params["head"] = {"kernel": arrays[14], "bias": arrays[15]}
    return params


def with_new_head(params: Params, classes: int, key: jax.Array) -> Params:
    """The same network with a random head (LeCun normal) for another task."""
    inputs = params["fc4"]["bias"].size
    kernel = jax.random.normal(key, (inputs, classes)) / jnp.sqrt(inputs)
    return params | {"head": {"kernel": kernel, "bias": jnp.zeros(classes)}}


def logits(params: Params, images: jax.Array) -> jax.Array:
    """What the network says of images of shape `(n, 24, 24, 3)`, one row for each."""
    x = _max_pool(_conv(params["conv1"], images), "SAME")
    x = _max_pool(_conv(params["conv2"], x), "VALID")
    x = _conv(params["conv3"], x)
    # The weights of fc4 were made for features with the width before the height.
    x = x.swapaxes(1, 2).reshape(len(x), -1)
    x = _prelu(params["fc4"], _dense(params["fc4"], x))
    return _dense(params["head"], x)


@jax.jit
def accuracy(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images to which the network gives the right label."""
    return jnp.mean(jnp.argmax(logits(params, images), axis=-1) == labels)


def _conv(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "VALID", dimension_numbers=layout
    )
    return _prelu(layer, x + layer["bias"])


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def _prelu(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, layer["alpha"] * x)


def _max_pool(x: jax.Array, padding: str) -> jax.Array:
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
