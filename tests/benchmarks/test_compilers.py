"""Counts of compiled programs, and the check of promises, without the compilers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import compilers, contenders, costs, targets, trees
from tests.benchmarks.__main__ import main
from tests.benchmarks.compilers import broken
from tests.benchmarks.hlo import program
from tests.benchmarks.pod import COLLECTIVES, more_talk

README = Path(__file__).parents[2] / "README.md"

# As XLA writes it for a TPU, cut short: memory spaces in layouts, a tuple of results,
# operands that are numbered, a copy into fast memory, and a loop's body with a fusion
# that is none of the entry's.
TEXT = """\
HloModule jit_step, is_scheduled=true

%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %g = f32[16]{0} all-gather-start(%p), dimensions={0}
  ROOT %inner = f32[8]{0} fusion(%p), calls=%c, cost={"estimated_cycles":"7"}
}

ENTRY %main.2 (a: f32[8,4], b: bf16[8,4]) -> (f32[8,4], pred[]) {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0), metadata={op_name="a"}
  %b = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(1)
  %m = f32[]{:T(128)S(6)} constant(0.5)
  %copy-start = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = f32[8,4]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %add.fusion = (f32[8,4]{1,0:T(8,128)}, pred[], @, @, @, /*index=5*/@) \
fusion(%copy-done, %b, %m, %m, %m, /*index=5*/%m), calls=%d, \
cost={"estimated_cycles":"100"}
  %r = f32[8,4]{1,0} get-tuple-element(%add.fusion), index=0
  %s = f32[8,4]{1,0} all-reduce(%r), to_apply=%sum
  ROOT %last = (f32[8,4]{1,0}) fusion(%s), kind=kLoop, calls=%e
}
""".replace("@", "f32[2]{0}")


def test_kernels_and_their_bytes_are_read_from_the_entry() -> None:
    found = program(TEXT)
    assert found.kernels == 2
    first = 128 + 1 + 4 * 8 + 128 + 64 + 4 * 4
    assert found.bytes == first + 128 + 128
    assert found.cycles == 107
    assert found.prefetches == 1
    assert found.collectives == {"all-gather": 1, "all-reduce": 1}


def test_of_a_slice_only_the_slice_is_read() -> None:
    text = """\
%cut (p: f32[100], i: s32[]) -> f32[10] {
  %p = f32[100]{0} parameter(0)
  %i = s32[] parameter(1)
  %square = f32[100]{0} multiply(%p, %p)
  ROOT %part = f32[10]{0} dynamic-slice(%square, %i), dynamic_slice_sizes={10}
}

ENTRY %main (a: f32[60], b: f32[40], i: s32[]) -> f32[10] {
  %a = f32[60]{0} parameter(0)
  %b = f32[40]{0} parameter(1)
  %i = s32[] parameter(2)
  %both = f32[100]{0} concatenate(%a, %b), dimensions={0}
  ROOT %kernel = f32[10]{0} fusion(%both, %i), kind=kLoop, calls=%cut
}
"""
    found = program(text)
    assert found.kernels == 2
    assert found.bytes == (240 + 160 + 400) + (40 + 4 + 40)
    whole = text.replace("ROOT %part", "%s = f32[] reduce(%square)\n  ROOT %part")
    assert program(whole).bytes == (240 + 160 + 400) + (400 + 4 + 40)


def test_of_a_slice_in_place_only_the_slice_is_written() -> None:
    text = """\
%put (p: f32[100], q: f32[10], i: s32[]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  %q = f32[10]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %new = f32[100]{0} dynamic-update-slice(%p, %q, %i)
}

ENTRY %main (p: f32[100], q: f32[10], i: s32[]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  %q = f32[10]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %kernel = f32[100]{0} fusion(%p, %q, %i), kind=kLoop, calls=%put
}
"""
    assert program(text).bytes == 40 + 0 + 40 + 4


def test_a_fusion_that_is_not_understood_is_told() -> None:
    other_comment = TEXT.replace("/*index=5*/f32[2]", "/*place=5*/f32[2]")
    with pytest.raises(ValueError, match="1 of 2 kernels were read"):
        program(other_comment)
    with pytest.raises(ValueError, match="size of token is not known"):
        program(TEXT.replace("pred[], f32[2]", "token[], f32[2]"))


def rows(target: str, **optimizers: tuple[int, int]) -> list[dict[str, Any]]:
    """Kernels and further bytes, on a tree of 200 leaves."""
    case = {"target": target, "tree": "200 leaves", "leaves": 200}
    return [
        case | {"optimizer": name.replace("_", " "), "kernels": k, "bytes over": b}
        for name, (k, b) in optimizers.items()
    ]


def test_promises_that_hold() -> None:
    assert not broken(
        rows(
            "H100",
            plain=(202, 0),
            static_14=(202, 800),
            Adam_by_name_14=(228, 7000),
            packed_14=(22, 10**6),
            muon=(900, 0),
            muon_static_14=(900, 800),
            multi_transform_14=(999, 10**6),
        )
        + rows("TPU v6e", plain=(100, 0), per_layer=(102, 5000), packed_14=(50, 1))
    )


@pytest.mark.parametrize(
    ("target", "optimizer", "kernels", "over", "told"),
    [
        ("H100", "static_14", 203, 0, "203 kernels, and the promise is 202"),
        ("H100", "static_14", 202, 804, "804 bytes over, and the promise is 800"),
        ("H100", "per_layer", 203, 0, "203 kernels, and the promise is 202"),
        ("TPU v5e", "per_layer", 205, 0, "205 kernels, and the promise is 204"),
        ("TPU v6e", "Adam_by_name_2", 203, 0, "203 kernels, and the promise is 202"),
        ("H100", "Adam_by_name_2", 205, 0, "205 kernels, and the promise is 204"),
        ("H100", "packed_14", 23, 0, "23 kernels, and the promise is 22"),
        ("TPU v5e", "packed_14", 53, 0, "53 kernels, and the promise is 52"),
    ],
)
def test_a_promise_that_is_broken(
    target: str, optimizer: str, kernels: int, over: int, told: str
) -> None:
    found = broken(rows(target, plain=(202, 0), **{optimizer: (kernels, over)}))
    name = optimizer.replace("_", " ")
    assert found == [f"{target}, 200 leaves, {name}: {told} at most"]


def test_a_collective_too_many_is_told() -> None:
    plain = {"target": "TPU v5e", "decoder": "7 B", "sharding": "FSDP"}
    plain |= {"optimizer": "plain", **dict.fromkeys(COLLECTIVES, 3)}
    assert not more_talk([plain, plain | {"optimizer": "ours", "all-reduce": 2}])
    (found,) = more_talk([plain, plain | {"optimizer": "ours", "all-gather": 4}])
    assert found == (
        "TPU v5e, 7 B, FSDP, ours: 4 x all-gather, and the plain optimizer has 3"
    )


@pytest.mark.parametrize("part", ["compilers", "pod"])
def test_a_missing_compiler_is_told_and_ends_with_status_1(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = dataclasses.replace(targets.TARGETS["H100"], module="no_such_module")
    monkeypatch.setitem(targets.TARGETS, "H100", absent)
    assert main(["--part", part, "--target", "H100"]) == 1
    assert "H100: nothing was compiled" in (printed := capsys.readouterr().out)
    assert "pip install --no-deps jax-cuda13-plugin==" in printed


def test_the_parts_run_on_the_machine_that_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = {"blocks": trees.array(2, 8), "embed": trees.array(8, 8)}
    makes = compilers.layers() | compilers.several(2) | compilers.muons(2)
    monkeypatch.setattr(compilers, "quick", lambda: {"two leaves": (tree, makes)})
    out = tmp_path / "results.json"
    arguments = ["--quick", "--target", "CPU", "--out", str(out)]
    for part in "compilers", "pod", "compilers":  # The last in place of the first.
        assert main(["--part", part, *arguments]) == 0
    results = json.loads(out.read_text(encoding="utf-8"))
    assert "jax" in results["versions"]
    of = {row["optimizer"]: row for row in results["compilers"]}
    assert len(of) == len(results["compilers"]) == len(makes)
    assert of["static 2"]["kernels"] == of["plain"]["kernels"] > 0
    memory = {row["temporary GB"] for row in results["pod"]}
    assert len(results["pod"]) == 3
    assert memory != {0}


def test_a_shared_vector_is_the_same_optimizer() -> None:
    """Or else its counts would say nothing."""
    tree = trees.leaves(4, 3)
    params = trees.filled(tree)
    updates = []
    for make in contenders.static(2), contenders.shared_vector(2):
        tx = make(tree)
        update, _ = tx.update(params, tx.init(params), params)
        updates.append([float(leaf[0]) for leaf in trees.jax.tree.leaves(update)])
    assert updates[0] == pytest.approx(updates[1], rel=1e-6)
    assert len(set(updates[0])) == 2


def test_the_kept_results_keep_the_promises() -> None:
    assert broken(costs.kept("compilers")) == []
    assert more_talk(costs.kept("pod")) == []


def test_the_readme_says_nothing_of_costs_or_what_the_results_say() -> None:
    """If not: python -m tests.benchmarks --costs."""
    text = README.read_text(encoding="utf-8")
    table = costs.readme_table(costs.kept("compilers"))
    assert (table in text) == ("## What it costs" in text)
    assert ("images/costs.png" in text) <= (table in text)
    found = {
        row["optimizer"]: row["kernels"]
        for row in costs.kept("compilers")
        if (row["tree"], row["target"]) == ("ViT-S", "H100")
    }
    groups, ours = found["multi_transform 14"], found["static 14"]
    assert found["plain"] == ours
    assert f"are {groups} kernels | are {ours} kernels, as without groups" in text


def test_the_readme_s_table_quotes_each_machine() -> None:
    found = [
        {"tree": tree, "optimizer": optimizer, "target": machine}
        | {"kernels": 1000 + place, "bytes/parameter": 28.004}
        for tree, optimizers in costs.README.items()
        for optimizer in optimizers
        for place, machine in enumerate(costs.MACHINES)
    ]
    header, _, first, *_ = costs.readme_table(found).splitlines()
    assert header.count("kernels") == len(costs.MACHINES)
    assert first == "| ViT-S, optax.adam | 1,000, 28.00 | 1,001, 28.00 | 1,002, 28.00 |"


def test_a_picture_shows_both_counts_of_each_contender() -> None:
    figure = costs.draw(costs.kept("compilers"))
    figure.canvas.draw()
    for first, second in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        labels = [label.get_text() for label in first.get_yticklabels()]
        assert labels[:2] == ["optax.adam", "14 multipliers"]
        assert len(labels) == len(first.patches) == len(second.patches)
        assert "kernels" in first.get_title()
        assert "bytes" in second.get_title()
