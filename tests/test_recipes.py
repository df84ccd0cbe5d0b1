"""Recipes of fine-tuning, against the numbers of their sources."""

import functools
import re
import warnings
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult._recipes._discriminative import discriminative
from optax_lrmult._recipes._kinds import by_kind, freeze, kind_of, no_decay
from optax_lrmult._recipes._lora import lora_plus
from optax_lrmult._recipes._named import rules_by_name
from optax_lrmult._recipes._unfreezing import unfreeze_at, unfreeze_from_top

NOT_POSITIVE = [
    (0, ValueError, "must be positive, not 0"),
    (-0.5, ValueError, r"must be positive, not -0\.5"),
    (float("nan"), ValueError, "must be finite"),
    (True, TypeError, "must be a real number"),
    ("0.1", TypeError, "must be a real number"),
    (lambda step: 1.0, TypeError, "must be a number"),
]
NO_STEPS = [
    (True, TypeError, "must be an int"),
    (1.0, TypeError, "must be an int"),
    ("1", TypeError, "must be an int"),
    (-1, ValueError, "must be at least"),
]


def multiplier(table: olm.Rules, name: str) -> Any:
    return table.find(name)[1]


def values(table: olm.Rules) -> list[float]:
    return [rule.multiplier for rule in table]


def shapes(**sizes: tuple[int, ...]) -> Any:
    return {name: jax.ShapeDtypeStruct(size, "float32") for name, size in sizes.items()}


class TestDiscriminative:
    def test_has_the_rates_of_ulmfit(self) -> None:
        """Each layer 2.6 times slower than the next, https://arxiv.org/abs/1801.06146."""
        layers = ["embedding", "lstm_0", "lstm_1", "lstm_2", "classifier"]
        table = discriminative(layers, 2.6**-4)
        expected = [1, 0.3846154, 0.1479290, 0.0568958, 0.0218830]
        assert [rule.pattern for rule in table] == layers[::-1]
        np.testing.assert_allclose(values(table), expected, rtol=1e-5)

    def test_has_the_rates_of_fastai(self) -> None:
        """`learn.lr_range(slice(1e-5, 1e-3))` of 3 layer groups, in fastai's pages."""
        table = discriminative(["a", "b", "c"], 1e-5, 1e-3)
        np.testing.assert_allclose(values(table), [1e-3, 1e-4, 1e-5])

    def test_of_one_group_is_hi(self) -> None:
        assert discriminative(["a"], 0.1, 0.5) == olm.Rules({"a": 0.5})

    def test_gives_all_patterns_of_a_group_its_multiplier(self) -> None:
        last = re.compile("c.*")
        table = discriminative([("a", "b"), [last]], 0.5, 2)
        assert table == olm.Rules([(last, 2.0), ("a", 0.5), ("b", 0.5)])

    def test_has_the_top_group_first(self) -> None:
        table = discriminative(["", "block_1", "block_10"], 0.25)
        names = "stem/w", "block_1/w", "block_10/w"
        assert [multiplier(table, name) for name in names] == [0.25, 0.5, 1]

    def test_may_go_down(self) -> None:
        assert values(discriminative(["a", "b", "c"], 4, 1)) == [1, 2, 4]

    def test_takes_traced_ends(self) -> None:
        def middle(lo: Any) -> Any:
            return multiplier(discriminative(["a", "b", "c"], lo), "b")

        lows = jnp.array([0.25, 0.0625])
        np.testing.assert_array_equal(jax.vmap(middle)(lows), [0.5, 0.25])

    @hypothesis.given(
        st.integers(2, 30), st.floats(1e-30, 1e30), st.floats(1e-30, 1e30)
    )
    def test_steps_are_equal_and_ends_are_exact(
        self, count: int, lo: float, hi: float
    ) -> None:
        table = values(discriminative([f"<{i}>" for i in range(count)], lo, hi))
        assert (table[-1], table[0]) == (lo, hi)
        step = np.log(lo / hi) / (count - 1)
        np.testing.assert_allclose(np.diff(np.log(table)), step, rtol=1e-6, atol=1e-10)

    @pytest.mark.parametrize(("value", "error", "text"), NOT_POSITIVE)
    @pytest.mark.parametrize("end", ["lo", "hi"])
    def test_ends_are_positive_numbers(
        self, end: str, value: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=f"value of {end} {text}"):
            discriminative(["a"], **{"lo": 0.1, "hi": 1.0, end: value})


@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(discriminative, lo=0.1),
        functools.partial(unfreeze_from_top, every=1),
    ],
)
class TestGroups:
    @pytest.mark.parametrize("groups", ["ab", {"a": 1}, {"a"}, 1, None])
    def test_are_an_ordered_list(self, recipe: Any, groups: Any) -> None:
        with pytest.raises(TypeError, match="groups must be a list of groups"):
            recipe(groups)

    def test_are_not_empty(self, recipe: Any) -> None:
        with pytest.raises(ValueError, match="groups must hold at least one group"):
            recipe([])
        with pytest.raises(ValueError, match="Group 1 of groups has no pattern"):
            recipe(["a", []])

    @pytest.mark.parametrize("group", [1, ["a", None], [["a"]], b"a"])
    def test_hold_patterns(self, recipe: Any, group: Any) -> None:
        with pytest.raises(TypeError, match="pattern of a rule must be a str"):
            recipe(["a", group])

    def test_may_be_an_iterator(self, recipe: Any) -> None:
        assert recipe(iter(["a", "b"])) == recipe(["a", "b"])


class TestUnfreezeAt:
    def test_is_zero_and_then_the_multiplier(self) -> None:
        schedule = jax.jit(jax.vmap(unfreeze_at(3, 0.1)))
        expected = np.float32([0, 0, 0, 0.1, 0.1])
        np.testing.assert_array_equal(schedule(jnp.arange(5)), expected)

    def test_counts_the_steps_of_a_schedule_from_0(self) -> None:
        schedule = unfreeze_at(2, optax.linear_schedule(0.0, 1.0, 4))
        found = [float(schedule(step)) for step in range(6)]
        assert found == [0, 0, 0.5, 0.75, 1, 1]

    def test_hides_what_is_not_finite_before_it(self) -> None:
        schedule = unfreeze_at(1, lambda step: 1 / step)
        assert [float(schedule(jnp.int32(step))) for step in (0, 1, 2)] == [0, 1, 0.5]

    def test_is_a_value_that_prints(self) -> None:
        assert repr(unfreeze_at(100)) == "unfreeze_at(100)"
        assert repr(unfreeze_at(100, 2)) == "unfreeze_at(100, 2.0)"
        assert unfreeze_at(1) == unfreeze_at(np.int64(1), 1)
        assert unfreeze_at(1) != unfreeze_at(2)
        assert hash(unfreeze_at(1)) == hash(unfreeze_at(1))
        text = str(olm.preview(shapes(head=(2,)), {"head": unfreeze_at(100)}))
        assert "'head'  unfreeze_at(100)" in text

    def test_takes_traced_multipliers(self) -> None:
        texts = []

        def at_2(m: Any) -> Any:
            texts.append(repr(unfreeze_at(2, m)))
            return unfreeze_at(2, m)(2)

        np.testing.assert_array_equal(jax.vmap(at_2)(jnp.arange(3.0)), [0, 1, 2])
        assert texts[0].startswith("unfreeze_at(2, ")

    def test_stands_inside_per_layer(self) -> None:
        rates = olm.per_layer([unfreeze_at(1), 0.5])
        tx = olm.scale_by_name_multiplier({"": rates})
        updates, state = {"w": jnp.ones((2, 3))}, tx.init({"w": jnp.ones((2, 3))})
        for expected in (0, 1):
            scaled, state = tx.update(updates, state)
            np.testing.assert_array_equal(scaled["w"][:, 0], [expected, 0.5])
        with pytest.raises(TypeError, match=r"inside: per_layer\(\[unfreeze_at"):
            unfreeze_at(1, rates)

    @pytest.mark.parametrize(("step", "error", "text"), NO_STEPS)
    def test_takes_a_number_of_steps(
        self, step: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=f"step {text}"):
            unfreeze_at(step)

    @pytest.mark.parametrize("value", [True, "1", None, [1.0]])
    def test_takes_a_multiplier(self, value: Any) -> None:
        with pytest.raises(TypeError, match="value of unfreeze_at must be a real"):
            unfreeze_at(1, value)
        with pytest.raises(ValueError, match="value of unfreeze_at must be finite"):
            unfreeze_at(1, np.inf)


PARAMS = {name: jnp.array([1.0, -2.0, 0.5]) for name in ("stem", "block", "head")}
GROUPS = ["stem", "block", "head"]
ADAM = optax.scale_by_adam()
OPTIMIZERS = {
    "chain": lambda table: optax.chain(
        ADAM,
        optax.add_decayed_weights(0.1),
        olm.scale_by_name_multiplier(table),
        optax.scale_by_learning_rate(0.01),
    ),
    "adamw": lambda table: olm.adamw(0.01, weight_decay=0.1, multipliers=table),
}


class TestUnfreezeFromTop:
    def test_unfreezes_one_group_after_the_other(self) -> None:
        table = unfreeze_from_top(["a", ["b", "c"], "d"], 10)
        later = unfreeze_at(10)
        rows = [("d", 1.0), ("b", later), ("c", later), ("a", unfreeze_at(20))]
        assert table == olm.Rules(rows)

    def test_starts_when_it_is_told(self) -> None:
        table = unfreeze_from_top(["a", "b"], 10, start=5)
        assert table == olm.Rules({"b": unfreeze_at(5), "a": unfreeze_at(15)})

    def test_takes_a_multiplier_for_each_group(self) -> None:
        rate = optax.linear_schedule(0.0, 1.0, 4)
        table = unfreeze_from_top(["a", "b"], 7, multipliers=[0.5, rate])
        assert table == olm.Rules({"b": rate, "a": unfreeze_at(7, 0.5)})

    def test_takes_the_multipliers_of_discriminative(self) -> None:
        groups = ["a", ["b", re.compile("c.*")], "d"]
        lower = discriminative(groups, 0.25)
        table = unfreeze_from_top(groups, 2, multipliers=lower)
        assert [rule.pattern for rule in table] == [rule.pattern for rule in lower]
        later = unfreeze_at(2, 0.5)
        assert values(table) == [1.0, later, later, unfreeze_at(4, 0.25)]
        with pytest.raises(ValueError, match="no rule with the pattern 'x' of groups"):
            unfreeze_from_top(["x"], 1, multipliers=lower)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_group_is_still_until_its_step_and_then_moves_by_its_multiplier(
        self, optimizer: str
    ) -> None:
        tx = OPTIMIZERS[optimizer](
            unfreeze_from_top(GROUPS, 2, multipliers=[0.25, 0.5, 1], start=1)
        )
        plain = optax.adamw(0.01, weight_decay=0.1)
        first_step = {"head": 1, "block": 3, "stem": 5}
        expected = {"head": 1.0, "block": 0.5, "stem": 0.25}

        @jax.jit
        def step(params: Any, state: Any, plain_state: Any) -> Any:
            gradients = jax.grad(lambda p: sum(jnp.sum(jnp.sin(x)) for x in p.values()))
            updates, state = tx.update(gradients(params), state, params)
            whole = plain.update(gradients(params), plain_state, params)
            return optax.apply_updates(params, updates), state, updates, *whole

        params, state, plain_state = PARAMS, tx.init(PARAMS), plain.init(PARAMS)
        for count in range(8):
            before = params
            params, state, moved, whole, plain_state = step(params, state, plain_state)
            for name in GROUPS:
                if count < first_step[name]:
                    assert params[name].tobytes() == before[name].tobytes()
                else:
                    scaled = expected[name] * whole[name]
                    np.testing.assert_allclose(moved[name], scaled, rtol=1e-5)
                    assert np.all(params[name] != before[name])

    @pytest.mark.parametrize(
        ("value", "error", "text"), [*NO_STEPS, (0, ValueError, "1")]
    )
    def test_every_is_a_number_of_steps(
        self, value: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=f"every .*{text}"):
            unfreeze_from_top(["a"], value)

    @pytest.mark.parametrize(("value", "error", "text"), NO_STEPS)
    def test_start_is_a_number_of_steps(
        self, value: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=f"start {text}"):
            unfreeze_from_top(["a"], 1, start=value)

    @pytest.mark.parametrize("given", [1.0, "1", {"a": 1.0}, {1.0}])
    def test_multipliers_are_a_list(self, given: Any) -> None:
        with pytest.raises(TypeError, match="multipliers must be a list, one for each"):
            unfreeze_from_top(["a"], 1, multipliers=given)

    def test_there_are_as_many_multipliers_as_groups(self) -> None:
        with pytest.raises(ValueError, match="there are 2 groups and 1 multipliers"):
            unfreeze_from_top(["a", "b"], 1, multipliers=[1.0])
        with pytest.raises(TypeError, match="must be a real number"):
            unfreeze_from_top(["a", "b"], 1, multipliers=[True, 1.0])


# As named_parameters() of a PEFT model says them, with the group of the official
# implementation: A, B (lr * ratio), or E (loraplus_lr_embedding).
PEFT = {
    "model/layers/0/q_proj/lora_A/default/weight": ((8, 64), "A"),
    "model/layers/0/q_proj/lora_B/default/weight": ((64, 8), "B"),
    "model/layers/0/q_proj/lora_B/default/bias": ((64,), "B"),
    "model/layers/0/q_proj/bias": ((64,), "B"),
    "model/layers/0/norm/weight": ((64,), "B"),
    "model/embed_tokens/lora_embedding_A/default": ((8, 100), "E"),
    "model/embed_tokens/lora_embedding_B/default": ((64, 8), "E"),
    "score/weight": ((2, 64), "A"),
}
PEFT_SHAPES = shapes(**{name: shape for name, (shape, _) in PEFT.items()})


class TestLoraPlus:
    def test_has_the_groups_of_the_official_implementation(self) -> None:
        rate, embedding_rate, ratio = 2e-4, 1e-6, 16.0
        table = lora_plus(embedding=embedding_rate / rate, vectors_of=PEFT_SHAPES)
        olm.check_rules(PEFT_SHAPES, table)
        official = {"A": rate, "B": rate * ratio, "E": embedding_rate}
        for name, (_, group) in PEFT.items():
            np.testing.assert_allclose(rate * multiplier(table, name), official[group])

    def test_leaves_all_but_the_matrices_at_1(self) -> None:
        found = {name: multiplier(lora_plus(), name) for name in PEFT}
        assert [name for name in found if found[name] != 1] == [
            "model/layers/0/q_proj/lora_B/default/weight",
            "model/layers/0/q_proj/lora_B/default/bias",
            "model/embed_tokens/lora_embedding_B/default",
        ]
        assert {multiplier(lora_plus(), name) for name in found} == {1.0, 16.0}

    def test_in_flax_b_is_what_starts_at_zero(self) -> None:
        layer = nnx.LoRA(3, 2, 4, rngs=nnx.Rngs(0))
        params = nnx.state(layer)
        olm.check_rules(params, lora_plus())
        names = jax.tree.leaves(olm.path_labels(params))
        arrays = [layer.lora_a, layer.lora_b]
        for name, array in zip(names, arrays, strict=True):
            is_b = not np.any(np.asarray(array[...]))
            assert multiplier(lora_plus(8), name) == (8 if is_b else 1), name
        assert names == ["lora_a", "lora_b"]

    def test_takes_an_embedding_by_the_segments_above(self) -> None:
        table = lora_plus(4, embedding=0.5)
        assert multiplier(table, "embed/lora_a") == 0.5
        assert multiplier(table, "token_embedding/lora/lora_b") == 0.5
        assert multiplier(table, "attn/lora_b") == 4
        assert multiplier(lora_plus(4), "embed/lora_b") == 4

    @pytest.mark.parametrize("name", ["lora_block/w", "lora_alpha", "lorab", "b"])
    def test_takes_the_matrices_only(self, name: str) -> None:
        assert lora_plus().find(name)[0] is None

    def test_takes_other_names(self) -> None:
        table = lora_plus(2, a="down", b=olm.glob("**/up")) + freeze("")
        names = "x/down", "x/up", "x/upper"
        assert [multiplier(table, name) for name in names] == [1, 2, 0]

    def test_has_a_rule_for_a_so_that_the_rest_can_be_frozen(self) -> None:
        table = lora_plus() + freeze("")
        names = "q/lora_A/weight", "q/lora_B/weight", "q/weight"
        assert [multiplier(table, name) for name in names] == [1, 16, 0]

    def test_ratio_may_be_traced(self) -> None:
        def of_b(ratio: Any) -> Any:
            return multiplier(lora_plus(ratio, vectors_of=PEFT_SHAPES), "x/lora_b")

        np.testing.assert_array_equal(jax.vmap(of_b)(jnp.arange(2.0)), [0, 1])

    @pytest.mark.parametrize(("value", "error", "text"), NOT_POSITIVE)
    @pytest.mark.parametrize("argument", ["ratio", "embedding"])
    def test_numbers_are_positive(
        self, argument: str, value: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=f"value of {argument} {text}"):
            lora_plus(**{argument: value})

    def test_patterns_are_patterns(self) -> None:
        with pytest.raises(TypeError, match="pattern of a rule must be a str"):
            lora_plus(b=None)


def test_freeze_has_one_rule_of_0_for_each_pattern() -> None:
    pattern = re.compile("a.*")
    assert freeze(pattern, "b") == olm.Rules([(pattern, 0.0), ("b", 0.0)])
    with pytest.raises(ValueError, match="at least one pattern"):
        freeze()
    with pytest.raises(TypeError, match="pattern of a rule must be a str"):
        freeze(["a", "b"])


KINDS = {
    "bias": "Dense_0/bias linear/b mlp/~/linear_0/b bias in_proj_bias conv/offset "
    "x/beta abnormal/bias attn/bias normals_head/bias columns/bias",
    "norm": "LayerNorm_0/scale LayerNorm_0/bias BatchNorm_1/bias layer_norm/offset "
    "batch_normalization/beta batch_normalization_3/gamma bn1/scale ln_f/bias ln/w "
    "pre_ln/bias RMSNorm_0/scale rms_1/w LN_2/bias norm1/weight scale block/gamma "
    "GroupNorm_0/bias gn/b group_norm_4/offset enc/final_norm/weight ln",
    "embedding": "Embed_0/embedding wte/embedding embed/embeddings pos_embedding "
    "pos_embed embed_tokens/weight TokenEmbed/weight enc/embedding/weight",
    "kernel": "Dense_0/kernel conv/w linear/weight patch_embed/weight "
    "patch_embed/proj/weight embedding/kernel w kernel normal/kernel "
    "kiln/kernel bnet_0/kernel",
    None: "lora_a cls_token logit_scale attn/query cell/hh weights_0 kernels "
    "Dense_0/Bias",
}
NAMES = [(kind, name) for kind, names in KINDS.items() for name in names.split()]
MULTIPLIERS = {"bias": 2.0, "norm": 0.5, "kernel": 3.0, "embedding": 0.1}


class TestByKind:
    @pytest.mark.parametrize(("kind", "name"), NAMES)
    def test_tells_kinds_by_names(self, kind: str | None, name: str) -> None:
        expected = MULTIPLIERS.get(kind or "", 1.0)
        assert multiplier(by_kind(**MULTIPLIERS), name) == expected

    @hypothesis.given(
        st.sampled_from(NAMES), st.sets(st.sampled_from(list(MULTIPLIERS)))
    )
    def test_a_name_has_one_kind_whatever_is_asked_for(
        self, row: tuple[str | None, str], asked: set[str]
    ) -> None:
        hypothesis.assume(asked)
        kind, name = row
        table = by_kind(**{k: MULTIPLIERS[k] for k in asked})
        expected = MULTIPLIERS[kind] if kind and kind in asked else 1.0
        assert multiplier(table, name) == expected

    @hypothesis.given(
        st.lists(
            st.sampled_from(
                "ln norm Norm normal embed patch_embed scale bias b w weight x".split()
            ),
            min_size=1,
            max_size=3,
        ).map("/".join)
    )
    def test_the_rules_say_what_kind_of_says(self, name: str) -> None:
        expected = MULTIPLIERS.get(kind_of(name) or "", 1.0)
        assert multiplier(by_kind(**MULTIPLIERS), name) == expected
        for kind, value in MULTIPLIERS.items():
            found = multiplier(by_kind(**{kind: value}), name)
            assert found == (value if kind_of(name) == kind else 1.0)

    PARAMS = {
        "conv_1": shapes(kernel=(3, 3, 8), bias=(8,)),
        "conv_2": shapes(kernel=(3, 8, 8), extra=(8,)),
        "norm": shapes(weight=(8,), bias=(8,)),
        "stack": shapes(bias=(6, 8)),
        "temperature": jax.ShapeDtypeStruct((), "float32"),
    }

    def test_with_parameters_tells_vectors_by_shape(self) -> None:
        table = by_kind(self.PARAMS, bias=2, norm=0.5)
        rows = olm.assign(self.PARAMS, table)
        assert {r.name: r.multiplier for r in rows if r.multiplier != 1} == {
            "conv_1/bias": 2,
            "conv_2/extra": 2,
            "norm/bias": 0.5,
            "norm/weight": 0.5,
            "stack/bias": 2,
        }

    def test_with_parameters_has_the_names_as_patterns(self) -> None:
        table = by_kind(self.PARAMS, kernel=optax.constant_schedule(1.0), bias=2)
        texts = ["conv_1/bias", "conv_2/extra", "stack/bias", r"conv_\d+/kernel"]
        assert [rule.text for rule in table] == texts
        assert callable(table[-1].multiplier)

    def test_with_parameters_a_kind_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="for embedding, but none of the 8 param"):
            by_kind(self.PARAMS, embedding=0.1)
        with pytest.raises(ValueError, match="matches none of the 8 parameters"):
            olm.check_rules(self.PARAMS, by_kind(embedding=0.1))

    def test_takes_other_labels(self) -> None:
        table = by_kind([jnp.ones(2)], param_labels=["a.w"], bias=2)
        assert table == olm.Rules([(re.compile(r"a\.w"), 2.0)])
        with pytest.raises(ValueError, match="Two parameters have the name 'x'"):
            by_kind([jnp.ones(2)] * 2, param_labels=["x", "x"], bias=2)

    def test_takes_traced_multipliers(self) -> None:
        def of_bias(m: Any) -> Any:
            return multiplier(by_kind(self.PARAMS, bias=m), "conv_1/bias")

        np.testing.assert_array_equal(jax.vmap(of_bias)(jnp.arange(2.0)), [0, 1])

    @pytest.mark.parametrize("kind", MULTIPLIERS)
    def test_multipliers_are_multipliers(self, kind: str) -> None:
        with pytest.raises(TypeError, match=f"value of {kind} must be a real number"):
            by_kind(**{kind: True})
        with pytest.raises(ValueError, match=f"value of {kind} must be finite"):
            by_kind(**{kind: float("nan")})

    def test_something_is_asked_for(self) -> None:
        with pytest.raises(ValueError, match="a multiplier for one kind at least"):
            by_kind()


class TestNoDecay:
    @pytest.mark.parametrize(
        ("options", "kinds"),
        [
            ({}, {"bias", "norm"}),
            ({"embedding": True}, {"bias", "norm", "embedding"}),
            ({"norm": False}, {"bias"}),
            ({"bias": False}, {"norm"}),
            ({"bias": False, "norm": False}, set()),
        ],
    )
    def test_is_0_for_what_is_asked_for(self, options: Any, kinds: set[str]) -> None:
        for kind, name in NAMES:
            expected = 0.0 if kind in kinds else 1.0
            assert multiplier(no_decay(**options), name) == expected
            tree = {name: jnp.ones((2, 2)), "other": 1.0 * jnp.ones((2, 2))}
            assert multiplier(no_decay(tree, **options), name) == expected

    def test_needs_no_norms(self) -> None:
        params = {"dense": shapes(kernel=(2, 2), bias=(2,))}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            olm.check_rules(params, no_decay())
            olm.check_rules(params, no_decay(params, embedding=True))

    def test_keeps_biases_and_norms_from_decaying(self) -> None:
        params = {n: jnp.ones(2) for n in ("a/kernel", "a/bias", "ln/scale")}
        tx = olm.add_decayed_weights_by_name(0.5, no_decay())
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zeros, tx.init(params), params)
        assert {n: float(u[0]) for n, u in updates.items()} == {
            "a/bias": 0,
            "a/kernel": 0.5,
            "ln/scale": 0,
        }

    def test_with_parameters_takes_all_vectors(self) -> None:
        table = no_decay(shapes(w=(2,), v=(2, 2)))
        assert table == olm.Rules([(re.compile("w"), 0.0)])

    @pytest.mark.parametrize("kind", ["bias", "norm", "embedding"])
    def test_takes_flags(self, kind: str) -> None:
        with pytest.raises(TypeError, match=f"{kind} must be True or False, not 0"):
            no_decay(**{kind: 0})


class TestRulesByName:
    @hypothesis.given(
        st.dictionaries(
            st.text("a1/.0", max_size=5), st.sampled_from(["x", "y", None]), max_size=9
        )
    )
    def test_gives_each_name_the_multiplier_of_its_label(
        self, labels: dict[str, str | None]
    ) -> None:
        table = rules_by_name(labels, {"x": 2.0, "y": 3.0})
        expected = {"x": 2.0, "y": 3.0, None: 1.0}
        for name, label in labels.items():
            assert multiplier(table, name) == expected[label]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if labels:
                olm.check_rules(dict.fromkeys(labels, jnp.ones(1)), table)

    @pytest.mark.parametrize(
        ("names", "others", "texts"),
        [
            ("a_0 a_1", "b_0", [r"a_\d+"]),
            ("a_0 a_1", "a_2", ["a_(0|1)"]),
            ("a_0", "b", ["a_0"]),
            ("a_0/b_0 a_1/b_1", "a_0/b_1", ["a_0/b_0", "a_1/b_1"]),
            ("conv2d_0/w conv2d_1/w", "", [r"conv2d_\d+/w"]),
            ("a.w", "", [r"a\.w"]),
        ],
    )
    def test_is_short_where_it_can_be(
        self, names: str, others: str, texts: list[str]
    ) -> None:
        labels = dict.fromkeys(names.split(), True) | dict.fromkeys(others.split())
        table = rules_by_name(labels, {True: 2.0})
        assert [rule.text for rule in table] == texts
