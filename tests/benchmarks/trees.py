"""Parameters of the sizes of well-known models, as shapes without data."""

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
VIT_S, VIT_B, GPT = (12, 384), (12, 768), (12, 768)
"""Depth and width."""


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def dense(inputs: int, outputs: int) -> PyTree:
    return {"kernel": array(inputs, outputs), "bias": array(outputs)}


def norm(width: int) -> PyTree:
    return {"scale": array(width), "bias": array(width)}


def block(width: int) -> PyTree:
    projections = ("query", "key", "value", "out")
    return {
        "norm1": norm(width),
        "attention": {name: dense(width, width) for name in projections},
        "norm2": norm(width),
        "mlp": {"up": dense(width, 4 * width), "down": dense(4 * width, width)},
    }


def around_blocks(width: int) -> PyTree:
    patches = {"kernel": array(16, 16, 3, width), "bias": array(width)}
    tokens = {"cls": array(1, 1, width), "pos": array(1, 197, width)}
    return {"embed": patches, **tokens, "norm": norm(width), "head": dense(width, 1000)}


def vit(depth: int, width: int) -> PyTree:
    """A vision transformer of patches of 16 and 224 pixels a side."""
    blocks = {f"block_{index}": block(width) for index in range(depth)}
    return {**around_blocks(width), **blocks}


def scanned_vit(depth: int, width: int) -> PyTree:
    """The same, with the blocks stacked as `nn.scan` stacks them."""
    stacked = jax.tree.map(lambda x: array(depth, *x.shape), block(width))
    return {**around_blocks(width), "blocks": stacked}


def gpt(depth: int, width: int) -> PyTree:
    """A decoder as GPT-2, with a head of its own."""
    tables = {"wte": array(50304, width), "wpe": array(1024, width)}
    blocks = {f"h_{index}": block(width) for index in range(depth)}
    return {**tables, **blocks, "ln_f": norm(width), "lm_head": array(width, 50304)}


def lora(depth: int, width: int, rank: int = 8) -> PyTree:
    """The adapters of a decoder, two matrices beside each matrix of a block."""
    shapes = {f"{x}_proj": (width, width) for x in ("q", "k", "v", "o")}
    shapes |= {f"{x}_proj": (width, 4 * width) for x in ("gate", "up")}
    shapes["down_proj"] = (4 * width, width)
    adapters = {
        name: {"lora_a": array(inputs, rank), "lora_b": array(rank, outputs)}
        for name, (inputs, outputs) in shapes.items()
    }
    return {f"layer_{index}": adapters for index in range(depth)}


def leaves(count: int, size: int) -> PyTree:
    """Many equal arrays, in blocks of ten."""
    return {
        f"block_{i // 10}": {f"w{j}": array(size) for j in range(min(10, count - i))}
        for i in range(0, count, 10)
    }


def filled(tree: PyTree, value: float = 0.5) -> PyTree:
    return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), tree)


def parameters(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
