"""A decoder's training step by shapes alone, on one device or on a mesh of many."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.benchmarks.trees import PyTree, array

HEAD = 128
"""The width of an attention head."""


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A pre-norm decoder, whose blocks are computed again in the backward pass.

    Attributes:
      depth: its number of blocks.
      width: of the residual stream.
      hidden: the width inside an MLP.
      is_gated: whether the MLP has a third matrix, as in Llama.
      is_scanned: whether the leaves of all blocks are stacked.
      rank: of the adapters beside each matrix of a block; none if 0.
      words: the size of the vocabulary.
      mesh: where to keep the examples apart; one device if `None`.
    """

    depth: int
    width: int
    hidden: int
    is_gated: bool = False
    is_scanned: bool = True
    rank: int = 0
    words: int = 32_000
    mesh: Mesh | None = None

    def shapes(self) -> PyTree:
        block = self._block()
        if self.is_scanned:
            stacked = jax.tree.map(lambda x: array(self.depth, *x.shape), block)
            blocks = {"layers": stacked}
        else:
            blocks = {f"layers_{index}": block for index in range(self.depth)}
        embed, head = array(self.words, self.width), array(self.width, self.words)
        return {"embed": embed, **blocks, "norm": array(self.width), "head": head}

    def _block(self) -> PyTree:
        width, hidden = self.width, self.hidden
        shapes = {"qkv": (width, 3 * width), "out": (width, width)}
        shapes |= {"up": (width, hidden), "down": (hidden, width)}
        if self.is_gated:
            shapes["gate"] = (width, hidden)
        return {
            **{name: self._matrix(*shape) for name, shape in shapes.items()},
            "norm1": array(width),
            "norm2": array(width),
        }

    def _matrix(self, inputs: int, outputs: int) -> PyTree:
        matrix = {"kernel": array(inputs, outputs)}
        if self.rank:
            matrix |= {"lora_a": array(inputs, self.rank)}
            matrix |= {"lora_b": array(self.rank, outputs)}
        return matrix

    def loss(self, params: PyTree, tokens: jax.Array) -> jax.Array:
        x = self._kept(params["embed"].astype(jnp.bfloat16)[tokens[:, :-1]])
        block = jax.checkpoint(self._apply)
        if self.is_scanned:
            x, _ = jax.lax.scan(block, x, params["layers"])
        else:
            for index in range(self.depth):
                x, _ = block(x, params[f"layers_{index}"])
        x = _norm(x, params["norm"].astype(x.dtype))
        logits = (x @ params["head"].astype(x.dtype)).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    def _apply(self, x: jax.Array, block: PyTree) -> tuple[jax.Array, None]:
        block = jax.tree.map(lambda leaf: leaf.astype(x.dtype), block)
        qkv = _times(_norm(x, block["norm1"]), block["qkv"])
        heads = (*x.shape[:2], self.width // HEAD, HEAD)
        q, k, v = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + _times(attended.reshape(x.shape), block["out"])
        h = _norm(x, block["norm2"])
        up = jax.nn.gelu(_times(h, block["up"]))
        if self.is_gated:
            up = up * _times(h, block["gate"])
        return self._kept(x + _times(up, block["down"])), None

    def _kept(self, x: jax.Array) -> jax.Array:
        if self.mesh is None:
            return x
        examples = NamedSharding(self.mesh, PartitionSpec("fsdp"))
        return jax.lax.with_sharding_constraint(x, examples)


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    scale = jnp.expand_dims(scale, range(x.ndim - 1))
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


def _times(x: jax.Array, matrix: PyTree) -> jax.Array:
    product = x @ matrix["kernel"]
    if "lora_a" in matrix:
        product = product + (x @ matrix["lora_a"]) @ matrix["lora_b"]
    return product


def train_step(
    decoder: Decoder, tx: optax.GradientTransformation
) -> Callable[..., Any]:
    """Gradients, update, and the new parameters."""

    def step(params: PyTree, state: Any, tokens: jax.Array) -> tuple[PyTree, Any, Any]:
        loss, gradients = jax.value_and_grad(decoder.loss)(params, tokens)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def on_mesh(params: PyTree, state: PyTree, mesh: Mesh) -> tuple[PyTree, PyTree]:
    """Matrices cut along both axes, moments as their parameters, and the rest whole."""

    def axes(path: Any, leaf: Any) -> PartitionSpec:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if not {"kernel", "embed", "head"} & set(names):
            return PartitionSpec()
        # Megatron's order: what a matrix feeds is cut along the axis it is read by.
        is_second = bool({"out", "down", "embed"} & set(names))
        cut = ("model", "fsdp") if is_second else ("fsdp", "model")
        return PartitionSpec(*[None] * (leaf.ndim - 2), *cut)

    def placed(leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: placed(leaf, axes(path, leaf)), params
    )
    by_shape = {leaf.shape: leaf.sharding.spec for leaf in jax.tree.leaves(params)}
    state = jax.tree.map(
        lambda leaf: placed(leaf, by_shape.get(leaf.shape, PartitionSpec())), state
    )
    return params, state
