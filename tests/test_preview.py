"""The preview as golden text, and the notes on likely mistakes."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_lrmult as olm


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(s, "float32") for n, s in names.items()}


NET = {
    "block_2": shapes(kernel=(4, 4), bias=(4,)),
    "block_10": shapes(kernel=(4, 4), bias=(4,)),
    "stack": shapes(kernel=(3, 8)),
    "head": shapes(kernel=(4, 1000)),
}


class Warmup:
    def __call__(self, step: int) -> float:
        return min(1.0, step / 10)

    def __repr__(self) -> str:
        return "Warmup(10)"


def test_shows_every_kind_of_multiplier() -> None:
    table = {
        "bias": 0,
        re.compile("block_2/.*"): 0.0625,
        "head": Warmup(),
        "stack": olm.per_layer([0, 0.5, 1]),
    }
    assert (
        str(olm.preview(NET, table))
        == """\
name             shape      rule                      multiplier
block_2/bias     (4,)       'bias'                             0
block_2/kernel   (4, 4)     /block_2/.*/                  0.0625
block_10/bias    (4,)       'bias'                             0
block_10/kernel  (4, 4)     -                                  1
head/kernel      (4, 1000)  'head'                    Warmup(10)
stack/kernel     (3, 8)     'stack'       per_layer([0, 0.5, 1])

rule                      multiplier  parameters   share
'bias'                             0           8    0.2%
/block_2/.*/                  0.0625          16    0.4%
-                                  1          16    0.4%
'head'                    Warmup(10)       4,000   98.4%
'stack'       per_layer([0, 0.5, 1])          24    0.6%
all                                        4,064  100.0%
frozen                                        16    0.4%"""
    )


def test_notes_likely_mistakes() -> None:
    params = {f"layer_{i}": shapes(kernel=(2,)) for i in (1, 2, 10, 11)}
    table = [("layer_1", -0.5), ("layer_10", 2), ("hed", 1), ("layer_1/", 3)]
    assert list(olm.preview(params, table).notes) == [
        "Rule 'hed' (multiplier 1) matches none of the 4 parameters. The parameters are "
        "'layer_1/kernel', 'layer_10/kernel', 'layer_11/kernel' and 1 more. A str must be "
        "a substring of the name, and letter case counts.",
        "Rule 'layer_10' (multiplier 2) never applies: the first rule that matches wins, "
        "and 'layer_1' in front of it takes 'layer_10/kernel'. If it should win, move "
        "it to the front.",
        "Rule 'layer_1/' (multiplier 3) never applies: the first rule that matches wins, "
        "and 'layer_1' in front of it takes 'layer_1/kernel'. If it should win, move "
        "it to the front.",
        "Rule 'layer_1' also takes 'layer_10', 'layer_11': a str matches anywhere in the "
        "name. For the one layer write 'layer_1/' or by_prefix({'layer_1': -0.5}).",
        "Rule 'layer_1' has the negative multiplier -0.5: its parameters climb the loss.",
    ]


@pytest.mark.parametrize("table", [{"layer_1/": 2}, {"layer_": 2}, {"layer_10": 2}])
def test_a_number_that_is_whole_is_no_mistake(table: dict[str, int]) -> None:
    params = {f"layer_{i}": shapes(kernel=(2,)) for i in (1, 10)}
    assert olm.preview(params, table).notes == ()


def test_the_note_is_part_of_the_text() -> None:
    text = str(olm.preview(NET, {"head": -1}))
    assert text.endswith("note: Rule 'head' has the negative multiplier -1: its "
                         "parameters climb the loss.")  # fmt: skip


def test_needs_shapes_only_and_shows_what_runs() -> None:
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "head": jnp.ones(3)}
    table = {"stem": 0.5}
    on_shapes = olm.preview(jax.eval_shape(lambda: params), table)
    assert on_shapes == olm.preview(params, table)
    assert sorted(on_shapes.assignments) == sorted(olm.assign(params, table))
    assert repr(on_shapes) == str(on_shapes)


def test_names_schedules_by_what_made_them() -> None:
    text = str(olm.preview(NET, {"head": optax.constant_schedule(0.5)}))
    assert re.search(
        r"'head' +constant_schedule\.<lambda>|'head' +constant_sched", text
    )


def test_says_that_a_multiplier_is_traced() -> None:
    texts = []
    jax.jit(lambda m: texts.append(str(olm.preview(NET, {"head": m}))) or m)(0.5)
    assert "traced float32" in texts[0]


def test_cuts_a_long_expression() -> None:
    pattern = re.compile("block_2/kernel|block_10/kernel|stack/kernel")
    text = str(olm.preview(NET, {pattern: 2}))
    assert " /block_2/kernel|block_10/kernel|stac.../ " in text


def test_an_empty_tree_has_a_preview() -> None:
    assert "all                          0   0.0%" in str(olm.preview({}, {}))


def test_function_rules_are_grouped_by_multiplier() -> None:
    def rate(name: str) -> float | None:
        return {"h": 2.0, "s": 0.5}.get(name[0])

    text = str(olm.preview(NET, rate))
    assert re.search(r"rate +2 +4,000", text)
    assert re.search(r"rate +0\.5 +24", text)
