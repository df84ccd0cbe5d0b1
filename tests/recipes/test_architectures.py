"""What recipes find by names and shapes, on parameters of published architectures."""

import gzip
import json
from pathlib import Path
from typing import Any

import jax
import pytest

import optax_lrmult as olm
from optax_lrmult.recipes import by_kind, hidden_matrices, layer_decay, no_decay

DATA = Path(__file__).parent.parent / "data" / "architectures"
STILL = {"bias", "norm", "scale", "ssm"}
# Of these kinds either answer is right.
LENIENT = set("projection head_hidden conv conv_depthwise recurrent other".split())
KERNELS = {"matrix", "head", "router"}
KINDS = "kernel", "embedding", "norm", "bias"
# One of each kind, since by_kind refuses a kind that there is none of.
EXTRA = [("x1/kernel", (2, 2)), ("x2/embedding", (2, 2)), ("norm", (2,)), ("x3", (2,))]


def read(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def transformers() -> dict[str, Any]:
    return read("transformers")


def params_of(rows: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(tuple(s), "float32") for name, s in rows}


def takes(params: Any, table: olm.Rules) -> set[str]:
    return {row.name for row in olm.assign(params, table) if row.rule}


# How many of the 278 architectures must be right in every parameter.
@pytest.mark.parametrize(
    ("framework", "matrices", "decays", "kinds"),
    [("torch", 276, 277, 270), ("flax", 277, 277, 276)],
)
def test_kinds_in_transformers(
    transformers: dict[str, Any], framework: str, matrices: int, decays: int, kinds: int
) -> None:
    first = {"torch": 0, "flax": 2}[framework]
    wrong: dict[str, list[str]] = {"matrices": [], "decays": [], "kinds": []}
    for architecture, rows in transformers.items():
        params = params_of(row[first : first + 2] for row in rows)
        told = {row[first]: row[4] for row in rows if row[4] not in LENIENT}
        muon = takes(params, hidden_matrices(params))
        still = takes(params, no_decay(params))
        if any((name in muon) != (kind == "matrix") for name, kind in told.items()):
            wrong["matrices"].append(architecture)
        sure = {n: k for n, k in told.items() if k not in ("token", "relative")}
        if any((name in still) != (kind in STILL) for name, kind in sure.items()):
            wrong["decays"].append(architecture)
        told_as = {n: "kernel" if k in KERNELS else k for n, k in told.items()}
        table = by_kind(params | params_of(EXTRA), **{kind: kind for kind in KINDS})
        kind_of = {row.name: row.value for row in olm.assign(params, table)}
        if any(kind_of[n] != k for n, k in told_as.items() if k in KINDS):
            wrong["kinds"].append(architecture)
    total = len(transformers)
    assert total - len(wrong["matrices"]) >= matrices, wrong["matrices"]
    assert total - len(wrong["decays"]) >= decays, wrong["decays"]
    assert total - len(wrong["kinds"]) >= kinds, wrong["kinds"]


def test_layer_decay_in_timm() -> None:
    """67 of 95 models at least are those of timm in every parameter."""
    models, wrong = read("timm"), []
    for model, rows in models.items():
        params = params_of((name, shape) for name, (shape, _) in rows.items())
        try:
            table = layer_decay(0.5, params)
        except ValueError:  # No numbered blocks are found.
            table = olm.Rules()
        rates = {row.name: row.value for row in olm.assign(params, table)}
        if rates != {name: 0.5**exponent for name, (_, exponent) in rows.items()}:
            wrong.append(model)
    assert len(models) - len(wrong) >= 67, wrong


class Named:
    """An array in a node without keys, as Haliax and simply register theirs."""

    def __init__(self, array: Any) -> None:
        self.array = array


jax.tree_util.register_pytree_node(
    Named, lambda node: ((node.array,), None), lambda _, inside: Named(*inside)
)


def test_decays_in_levanter() -> None:
    """Its default mask lets neither vectors and norms decay, nor embeddings."""
    for model, rows in read("levanter").items():
        tree: dict[str, Any] = {}
        for name, (shape, _) in rows.items():
            *path, leaf = name.split("/")
            node = tree
            for key in path:
                node = node.setdefault(key, {})
            node[leaf] = Named(jax.ShapeDtypeStruct(tuple(shape), "float32"))
        still = takes(tree, no_decay(tree) + by_kind(tree, embedding=0.0))
        assert still == {name for name, (_, decays) in rows.items() if not decays}, (
            model
        )
