"""Tables of other libraries, with their own semantics where patterns overlap."""

import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult._converters import (
    GroupRules,
    from_big_vision,
    from_keras_lr_multiplier,
    from_mmengine,
    from_torch_param_groups,
)

NAMES = st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=4)
KEYS = st.dictionaries(st.text("ab.", max_size=3), st.floats(0.125, 8), max_size=5)


def found(rules: olm.Rules, *names: str) -> list[float]:
    return [rules.find(name)[1] for name in names]


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(s, "float32") for n, s in names.items()}


class TestBigVision:
    LR_MULTS = [
        ("encoder/norm/.*", 2.0),
        ("encoder/.*", 0.1),
        (".*/frozen", None),
        (".*norm.*", 3.0),
    ]

    def test_the_first_pattern_that_matches_in_full_wins(self) -> None:
        names = (
            "encoder/norm/scale",
            "encoder/w",
            "encoder/frozen",
            "head/frozen",
            "head/norm/frozen",
            "head/norm/scale",
            "x/encoder/w",
        )
        rules = from_big_vision(self.LR_MULTS)
        assert found(rules, *names) == [2, 0.1, 0.1, 0, 0, 3, 1]

    def test_is_the_same_table_in_the_same_order(self) -> None:
        assert from_big_vision((["a", 2], ("a", 3))) == olm.Rules(
            [(re.compile("a"), 2.0), (re.compile("a"), 3.0)]
        )
        assert from_big_vision(None) == from_big_vision([]) == olm.Rules()

    @pytest.mark.parametrize(
        ("row", "error", "match"),
        [
            (("stem", 0), ValueError, "'stem' must be a positive.*write None"),
            (("stem", -1.0), ValueError, "must be a positive number.*not -1.0"),
            (("stem", float("nan")), ValueError, "'stem' must be finite"),
            (("stem", lambda step: 1.0), ValueError, "must be a positive number"),
            (("stem", {"decay_type": "cosine"}), TypeError, "pattern 'stem' must be"),
            (("/stem", 1.0), ValueError, "'/stem' begins with '/'"),
            (("stem(", 1.0), ValueError, r"regex 'stem\(' does not compile: missing"),
            ((re.compile("stem"), 1.0), TypeError, "text of a regular expression"),
            ("stem", TypeError, r"takes pairs .*, not 'stem' \(str\)"),
            (("stem", 1.0, 2.0), TypeError, "takes pairs"),
        ],
    )
    def test_refuses(self, row: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            from_big_vision([("head", 1.0), row])

    def test_refuses_a_mapping(self) -> None:
        with pytest.raises(TypeError, match="takes pairs"):
            from_big_vision({"stem": 0.1})


class TestKerasLrMultiplier:
    def test_the_longest_prefix_wins_by_plain_startswith(self) -> None:
        rules = from_keras_lr_multiplier({"Dense": 0.5, "Dense_1": 2, "Out": -1.5})
        names = "Dense/w", "Dense_1/w", "Dense_10/w", "Dense_2/w", "Out", "x/Dense", "o"
        assert found(rules, *names) == [0.5, 2, 2, 0.5, -1.5, 1, 1]

    def test_a_prefix_is_no_regex_and_the_empty_one_has_no_effect(self) -> None:
        rules = from_keras_lr_multiplier({"": 9, "a.b": 2})
        assert found(rules, "a.b/w", "a.b\n", "axb/w", "c") == [2, 2, 1, 1]

    def test_a_function_of_the_step_is_a_schedule(self) -> None:
        rules = from_keras_lr_multiplier({"a": lambda step: 2.0 - step})
        assert rules.need_step
        assert rules[0].multiplier(0.5) == 1.5

    @hypothesis.given(KEYS, NAMES)
    def test_is_what_keras_lr_multiplier_finds(
        self, multipliers: dict[str, float], names: list[str]
    ) -> None:
        rules = from_keras_lr_multiplier(multipliers)
        for name in names:
            cuts = (name[:length] for length in range(len(name), 0, -1))
            taken = [multipliers[cut] for cut in cuts if cut in multipliers]
            assert found(rules, name) == [taken[0] if taken else 1.0]

    def test_refuses(self) -> None:
        with pytest.raises(TypeError, match="takes the dictionary"):
            from_keras_lr_multiplier([("a", 1)])
        with pytest.raises(TypeError, match="A prefix must be a str, not 3"):
            from_keras_lr_multiplier({3: 1})
        with pytest.raises(TypeError, match=r"must be a real number.*'fast'"):
            from_keras_lr_multiplier({"a": "fast"})


NET = {
    "backbone": {
        "conv": shapes(kernel=(3, 3, 3, 8), bias=(8,)),
        "depthwise": shapes(kernel=(3, 3, 1, 8), bias=(8,)),
        "bn": shapes(scale=(8,), bias=(8,)),
        "dcn": {"conv_offset": shapes(kernel=(3, 3, 8, 18), bias=(18,))},
    },
    "head": shapes(kernel=(8, 2), bias=(2,), temperature=(2,)),
}


def settings(params: Any = NET, **paramwise_cfg: Any) -> dict[str, tuple[float, float]]:
    """The two multipliers of each parameter, (1, 1) left out."""
    tables = from_mmengine(paramwise_cfg, params)
    for table in tables:
        olm.check_rules(params, table)
    names = jax.tree.leaves(olm.path_labels(params))
    pairs = {
        name: (found(tables[0], name)[0], found(tables[1], name)[0]) for name in names
    }
    return {name: pair for name, pair in pairs.items() if pair != (1, 1)}


class TestMmengineCustomKeys:
    def custom(self, keys: dict[str, float], *names: str) -> list[float]:
        keys_ = {key: {"lr_mult": value} for key, value in keys.items()}
        params = dict.fromkeys(names, jnp.ones(1))
        return found(
            from_mmengine({"custom_keys": keys_}, params).learning_rate, *names
        )

    def test_the_longest_key_wins(self) -> None:
        keys = {"back": 2, "backbone.bn": 3, "bn.scale": 4, "scale": 5}
        names = "backbone/bn/bias", "backbone/bn/scale", "x/bn/scale", "feedback/w"
        assert self.custom(keys, *names) == [3, 3, 4, 2]

    def test_then_the_first_in_the_alphabet(self) -> None:
        assert self.custom({"bbb": 2, "aaa": 3, "Zzz": 4}, "bbb/aaa") == [3]
        assert self.custom({"bbb": 2, "aaa": 3, "Zzz": 4}, "bbb/aaa/Zzz") == [4]

    def test_both_multipliers_are_one_if_they_are_not_set(self) -> None:
        keys = {"conv": {"lr_mult": 0.5}, "bn": {"decay_mult": 0.25}, "head": {}}
        assert settings(custom_keys=keys, bias_lr_mult=9, flat_decay_mult=9) == {
            "backbone/conv/bias": (0.5, 1),
            "backbone/conv/kernel": (0.5, 1),
            "backbone/dcn/conv_offset/bias": (0.5, 1),
            "backbone/dcn/conv_offset/kernel": (0.5, 1),
            "backbone/bn/bias": (1, 0.25),
            "backbone/bn/scale": (1, 0.25),
            "backbone/depthwise/bias": (9, 9),
        }

    def test_the_decay_is_not_multiplied_by_the_rate(self) -> None:
        keys = {"head": {"lr_mult": 0.1, "decay_mult": 0.5}}
        tables = from_mmengine({"custom_keys": keys}, NET)
        assert tables == GroupRules(olm.Rules({"head": 0.1}), olm.Rules({"head": 0.5}))

    def test_a_name_at_the_root_has_a_dot_in_front(self) -> None:
        assert self.custom({".bias": 2}, "bias", "a/bias", "ab/my_bias") == [2, 2, 1]
        assert self.custom({".a.b": 2}, "a/b", "c/a/b") == [1, 2]
        assert self.custom({".": 2, "c": 3}, "a", "a/b", "c") == [2, 2, 2]

    def test_names_with_dots(self) -> None:
        params = {"stem.conv.weight": jnp.ones((2, 2)), "stem.conv.bias": jnp.ones(2)}
        cfg = {"custom_keys": {"stem.conv.w": {"lr_mult": 2.0}}, "bias_lr_mult": 3.0}
        rules = from_mmengine(cfg, params, separator=None).learning_rate
        assert found(rules, *params) == [2, 3]
        rules = from_mmengine(cfg, params).learning_rate
        assert found(rules, *params) == [1, 3]

    @hypothesis.given(KEYS, NAMES)
    def test_is_what_mmengine_finds(
        self, multipliers: dict[str, float], names: list[str]
    ) -> None:
        for separator in (None, "."):
            for name in names:
                prefix, _, key = name.rpartition(".")
                matches = [k for k in multipliers if k in f"{prefix}.{key}"]
                winner = min(matches, key=lambda k: (-len(k), k), default=None)
                here = name.replace(".", "/") if separator else name
                keys = {k: {"lr_mult": m} for k, m in multipliers.items()}
                params = {here: jnp.ones(1)}
                tables = from_mmengine(
                    {"custom_keys": keys}, params, separator=separator
                )
                expected = 1.0 if winner is None else multipliers[winner]
                assert found(tables.learning_rate, here) == [expected]


class TestMmengineSettings:
    def test_the_rate_of_biases_but_not_in_norms_and_offsets(self) -> None:
        assert settings(bias_lr_mult=2) == {
            "backbone/conv/bias": (2, 1),
            "backbone/depthwise/bias": (2, 1),
            "head/bias": (2, 1),
        }

    def test_the_rate_of_offsets(self) -> None:
        assert settings(bias_lr_mult=1, dcn_offset_lr_mult=0.1) == {
            "backbone/dcn/conv_offset/bias": (0.1, 1),
            "backbone/dcn/conv_offset/kernel": (0.1, 1),
        }

    def test_the_decay_of_norms_then_biases_then_depthwise_then_flat(self) -> None:
        mults = {
            "norm_decay_mult": 2,
            "bias_decay_mult": 3,
            "dwconv_decay_mult": 4,
            "flat_decay_mult": 5,
        }
        assert settings(**mults) == {
            "backbone/bn/bias": (1, 2),
            "backbone/bn/scale": (1, 2),
            "backbone/conv/bias": (1, 3),
            "backbone/depthwise/bias": (1, 3),
            "backbone/depthwise/kernel": (1, 4),
            "head/bias": (1, 3),
            "head/temperature": (1, 5),
        }

    def test_what_is_not_set_leaves_the_word_to_the_next(self) -> None:
        biases = [
            "backbone/bn/bias",
            "backbone/conv/bias",
            "backbone/depthwise/bias",
            "head/bias",
        ]
        flat = [*biases, "backbone/bn/scale", "head/temperature"]
        depthwise = ["backbone/depthwise/bias", "backbone/depthwise/kernel"]
        mults = {"bias_decay_mult": 3, "norm_decay_mult": None}
        assert settings(**mults) == dict.fromkeys(biases, (1, 3))
        assert settings(dwconv_decay_mult=4) == dict.fromkeys(depthwise, (1, 4))
        assert settings(flat_decay_mult=5) == dict.fromkeys(flat, (1, 5))

    def test_a_custom_key_switches_them_off(self) -> None:
        keys = {"backbone": {"lr_mult": 0.1}}
        mults = {"bias_lr_mult": 2, "norm_decay_mult": 0, "flat_decay_mult": 0}
        changed = settings(custom_keys=keys, **mults)
        assert changed.pop("head/bias") == (2, 0)
        assert changed.pop("head/temperature") == (1, 0)
        assert set(changed.values()) == {(0.1, 1)}
        assert len(changed) == 8

    def test_a_custom_key_on_a_scale_leaves_its_module_a_norm(self) -> None:
        keys = {"bn.scale": {"lr_mult": 0.5}}
        assert settings(custom_keys=keys, norm_decay_mult=0, bias_lr_mult=1) == {
            "backbone/bn/scale": (0.5, 1),
            "backbone/bn/bias": (1, 0),
        }

    def test_names_of_torch_and_keras(self) -> None:
        params = {
            "bn": shapes(weight=(8,), bias=(8,)),
            "fc": shapes(weight=(8, 8), bias=(8,)),
            "dw": shapes(weight=(8, 1, 3, 3)),
            "ln": shapes(gamma=(8,), beta=(8,)),
            "clip": shapes(scale=()),
        }
        mults = {"norm_decay_mult": 0, "dwconv_decay_mult": 0.5, "bias_lr_mult": 2}
        assert settings(params, **mults) == {
            "bn/bias": (1, 0),
            "bn/weight": (1, 0),
            "dw/weight": (1, 0.5),
            "fc/bias": (2, 1),
            "ln/beta": (1, 0),
            "ln/gamma": (1, 0),
        }

    def test_the_caller_says_what_a_norm_is(self) -> None:
        modules = []

        def is_norm(module: str) -> bool:
            modules.append(module)
            return module == "head"

        tables = from_mmengine({"norm_decay_mult": 0.0}, NET, is_norm=is_norm)
        assert [rule.text for rule in tables.weight_decay] == [
            "head/bias",
            "head/kernel",
            "head/temperature",
        ]
        assert "backbone/dcn/conv_offset" in modules

    def test_a_parameter_at_the_root(self) -> None:
        assert settings(shapes(bias=(2,), w=(2,)), bias_lr_mult=2) == {"bias": (2, 1)}

    def test_other_names(self) -> None:
        params = {"a": jnp.ones(2)}
        tables = from_mmengine(
            {"bias_lr_mult": 2}, params, param_labels={"a": "x/bias"}
        )
        assert tables.learning_rate == olm.Rules([(re.compile("x/bias"), 2.0)])

    def test_nothing_set(self) -> None:
        assert from_mmengine(None, NET) == GroupRules(olm.Rules(), olm.Rules())
        assert from_mmengine({"bypass_duplicate": True}, NET) == from_mmengine({}, NET)

    def test_a_key_that_matches_nothing_is_told_in_init(self) -> None:
        cfg = {"custom_keys": {"backbon.conf": {"lr_mult": 0.1}}}
        tables = from_mmengine(cfg, NET)
        with pytest.raises(ValueError, match=r"'backbon/conf' .* matches none"):
            olm.check_rules(NET, tables.learning_rate)

    @pytest.mark.parametrize(
        ("cfg", "error", "match"),
        [
            ([], TypeError, r"paramwise_cfg must be a dictionary, not \[\]"),
            ({"bias_lr": 1}, ValueError, "'bias_lr' of paramwise_cfg.*'bias_lr_mult'"),
            (
                {"num_layers": 12},
                ValueError,
                "'num_layers' of paramwise_cfg is none of",
            ),
            ({"custom_keys": None}, TypeError, "custom_keys must be as in"),
            ({"custom_keys": {"stem": 0.1}}, TypeError, "custom_keys must be as in"),
            ({"custom_keys": [("stem", {})]}, TypeError, "custom_keys must be as in"),
            (
                {"custom_keys": {"stem": {"lr": 0.1}}},
                ValueError,
                "The key 'lr' of the custom key 'stem' is none of 'lr_mult', 'decay_mu",
            ),
            ({"custom_keys": {"a": {"lr_mult": "x"}}}, TypeError, "rule 'a' must be"),
            ({"bias_lr_mult": "x"}, TypeError, "bias_lr_mult must be"),
        ],
    )
    def test_refuses(self, cfg: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            from_mmengine(cfg, NET)


class TestTorch:
    def test_rates_and_decays_in_units_of_the_optimizer_s(self) -> None:
        tensor = object()
        groups = [
            {"params": ["stem.weight", "stem.bias"], "lr": 1e-4},
            {"params": [("head.weight", tensor)], "weight_decay": 0.0},
            {
                "params": iter([("head.bias", tensor)]),
                "lr": 2e-3,
                "weight_decay": 0.005,
            },
        ]
        tables = from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)
        assert tables.learning_rate == olm.Rules(
            [
                (re.compile("stem/weight"), 0.1),
                (re.compile("stem/bias"), 0.1),
                (re.compile("head/bias"), 2.0),
            ]
        )
        assert tables.weight_decay == olm.Rules(
            [(re.compile("head/weight"), 0.0), (re.compile("head/bias"), 0.5)]
        )

    def test_a_name_is_that_name_only(self) -> None:
        groups = [{"params": ["a.w"], "lr": 2.0}]
        rules = from_torch_param_groups(groups, 1.0).learning_rate
        assert found(rules, "a/w", "a.w", "a/w2", "x/a/w", "a/w/a/w") == [2, 1, 1, 1, 1]
        rules = from_torch_param_groups(groups, 1.0, separator=None).learning_rate
        assert found(rules, "a.w", "a/w", "aaw") == [2, 1, 1]

    def test_what_an_optimizer_gives_back(self) -> None:
        options = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
        groups = [
            {"params": [0], "param_names": ["a.w"], "lr": 0.5, "initial_lr": 1.0},
            {"params": [1], "param_names": ["b.w"], "lr": 1.0, "name": "b"},
        ]
        groups = [{**group, **options, "weight_decay": 0} for group in groups]
        tables = from_torch_param_groups(groups, 1.0, base_weight_decay=0)
        assert found(tables.learning_rate, "a/w", "b/w") == [0.5, 1]
        assert found(tables.weight_decay, "a/w", "b/w") == [0, 0]

    def test_one_name_and_a_rate_that_is_a_tensor(self) -> None:
        groups = [{"params": "a.w", "lr": np.float32(0.5)}, {"params": ["b", "b"]}]
        tables = from_torch_param_groups(groups, np.float64(0.25))
        assert found(tables.learning_rate, "a/w", "b") == [2, 1]
        assert tables.weight_decay == olm.Rules()

    def test_a_parameter_in_no_group_is_not_trained(self) -> None:
        params = {"a": {"w": jnp.ones(2), "b": jnp.ones(2)}, "c": jnp.ones(2)}
        groups = [{"params": ["a.w"]}, {"params": ["c"], "lr": 2.0}]
        tables = from_torch_param_groups(groups, 1.0, params=params)
        assert found(tables.learning_rate, "a/w", "a/b", "c") == [1, 0, 2]
        assert found(tables.weight_decay, "a/w", "a/b", "c") == [1, 0, 1]
        olm.check_rules(params, tables.learning_rate)
        labels = {"a": {"w": "a/w", "b": "c"}, "c": "d"}
        tables = from_torch_param_groups(
            groups, 1.0, params=params, param_labels=labels
        )
        assert found(tables.learning_rate, "a/w", "c", "d") == [1, 2, 0]

    def test_the_chain_of_the_docstring_takes_pytorch_s_step(self) -> None:
        # SGD takes p - lr * (g + weight_decay * p), both numbers being the group's.
        groups = [
            {"params": ["a"], "lr": 0.5, "weight_decay": 0.0},
            {"params": ["b"], "lr": 0.25, "weight_decay": 0.5},
            {"params": ["c"]},
        ]
        params = {"a": jnp.float32(2.0), "b": jnp.float32(2.0), "c": jnp.float32(2.0)}
        tables = from_torch_param_groups(groups, 1.0, 0.25, params=params)
        tx = optax.chain(
            olm.add_decayed_weights_by_name(0.25, tables.weight_decay),
            olm.scale_by_name_multiplier(tables.learning_rate),
            optax.scale_by_learning_rate(1.0),
        )
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, _ = tx.update(gradients, tx.init(params), params)
        new = optax.apply_updates(params, updates)
        assert new == {"a": 1.5, "b": 1.5, "c": 0.5}

    @pytest.mark.parametrize(
        ("groups", "error", "match"),
        [
            (
                [{"params": ["a.w"]}, {"params": ["b"]}, {"params": [("a.w", 0)]}],
                ValueError,
                r"'a/w' is in groups\[0\] and in groups\[2\]",
            ),
            ([("a.w", 0)], TypeError, r"groups\[0\] must be as in"),
            ([{"lr": 1.0}], TypeError, r"groups\[0\] must be as in"),
            ([{"params": {"a", "b"}}], TypeError, r"groups\[0\] must have an order"),
            ([{"params": [0, 1]}], TypeError, r"groups\[0\] has no name, but is a int"),
            ([{"params": [()]}], TypeError, "no name, but is a tuple"),
            (
                [{"params": ["a"], "lr": -1.0}],
                ValueError,
                "'lr' of groups.*not negative",
            ),
            ([{"params": ["a"], "lr": "x"}], TypeError, r"'lr' of groups\[0\] must be"),
            (
                [{"params": ["a"]}, {"params": ["b"], "weight_decay": 0.1}],
                ValueError,
                r"groups\[1\] has weight_decay=0.1.*base_weight_decay=None. Pass",
            ),
            (
                [{"params": ["a"], "betas": (0.5, 0.9)}, {"params": ["b"]}],
                ValueError,
                r"groups\[0\] sets 'betas' to \(0.5, 0.9\), and another group does not",
            ),
            (
                [{"params": ["a"], "lr_scale": 1}, {"params": ["b"], "lr_scale": 0.5}],
                ValueError,
                "sets 'lr_scale' to 1",
            ),
        ],
    )
    def test_refuses(self, groups: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            from_torch_param_groups(groups, 1e-3)

    def test_refuses_a_base_that_nothing_is_a_multiple_of(self) -> None:
        groups = [{"params": ["a"], "lr": 0.1}]
        with pytest.raises(
            ValueError, match=r"multiple of base_lr=0\.0\. Pass a positive"
        ):
            from_torch_param_groups(groups, 0.0)
        with pytest.raises(
            ValueError, match="base_lr must be a number and not negative"
        ):
            from_torch_param_groups(groups, -1.0)
        with pytest.raises(TypeError, match="base_lr must be a number"):
            from_torch_param_groups(groups, optax.linear_schedule(1, 0, 2))

    def test_refuses_a_name_that_params_does_not_have(self) -> None:
        groups = [{"params": ["stem.wieght"], "lr": 0.1}]
        with pytest.raises(ValueError, match=r"'stem/wieght'.*you mean 'stem/weight'"):
            from_torch_param_groups(groups, 1.0, params={"stem": {"weight": 1.0}})
