"""Tables of PyTorch and big_vision, with their own semantics."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult.recipes import from_big_vision, from_torch_param_groups
from tests.keras.recorded import assert_within_tolerance, cases


def found(rules: olm.Rules, *names: str) -> list[Any]:
    return [rules.find(name)[1] for name in names]


class Tensor(NamedTuple):
    requires_grad: bool = True


class TestTorch:
    def test_the_tables_train_as_pytorch_does(self) -> None:
        """A recorded run of AdamW, whose groups have every number of their own."""
        case = cases("torch")["adamw_groups"]
        lr, groups = case.config["lr"], case.config["groups"]
        tables = from_torch_param_groups(groups, lr, params=case.initial_params)
        assert set(tables) == {"multipliers", "weight_decay", "b1", "b2", "eps"}
        tx = olm.adamw(lr, **tables)
        update, params = jax.jit(tx.update), case.initial_params
        state = tx.init(params)
        for step, gradients in enumerate(case.gradients):
            updates, state = update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            assert_within_tolerance(params, case.params[step], f"after {step}")

    def test_rates_in_units_of_the_optimizer_s_and_decays_as_they_are(self) -> None:
        groups = [
            {"params": ["stem.weight", "stem.bias"], "lr": 1e-4},
            {"params": [("head.weight", Tensor())], "weight_decay": 0.0},
            {"params": iter([("head.bias", 0)]), "lr": 2e-3, "weight_decay": 0.005},
        ]
        tables = from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)
        names = "stem/weight", "stem/bias", "head/weight", "head/bias"
        assert found(tables["multipliers"], *names) == [0.1, 0.1, 1, 2]
        assert found(tables["weight_decay"], *names) == [0.01, 0.01, 0, 0.005]
        assert set(tables) == {"multipliers", "weight_decay"}

    def test_what_an_optimizer_gives_back(self) -> None:
        fused = {"foreach": None, "capturable": False, "differentiable": False}
        groups = [
            {"params": [0], "param_names": ["a.w"], "lr": 0.5, "betas": (0.9, 0.95)},
            {"params": [1], "param_names": ["b.w"], "lr": 1.0, "betas": (0.8, 0.999)},
        ]
        same = {"eps": 1e-8, "weight_decay": 0, "amsgrad": False, **fused}
        given = [{**group, **same, "fused": i > 0} for i, group in enumerate(groups)]
        tables = from_torch_param_groups(given, 1.0)
        values = {key: found(table, "a/w", "b/w") for key, table in tables.items()}
        assert values == {
            "multipliers": [0.5, 1],
            "weight_decay": [0, 0],
            "b1": [0.9, 0.8],
            "b2": [0.95, 0.999],
            "eps": [1e-8, 1e-8],
        }

    def test_the_note_of_a_scheduler_is_the_rate(self) -> None:
        """At the first step of a warm-up `lr` is 0."""
        groups = [
            {"params": ["a"], "lr": 0.0, "initial_lr": 0.1},
            {"params": ["b"], "lr": 0.0, "initial_lr": np.float32(0.5)},
        ]
        table = from_torch_param_groups(groups, 1.0)["multipliers"]
        assert found(table, "a", "b") == [0.1, 0.5]

    def test_the_peak_of_a_cycle_is_the_rate(self) -> None:
        """As PyTorch 2.13's OneCycleLR notes it; `initial_lr` is a 25th of it there."""
        noted = {"base_momentum": 0.85, "max_momentum": 0.95, "betas": (0.95, 0.999)}
        groups = [
            {"params": [name], "lr": peak / 25, "max_lr": peak, "min_lr": peak * 4e-7}
            | {"initial_lr": peak / 25, **noted}
            for name, peak in (("a", 1e-4), ("b", 1e-3))
        ]
        table = from_torch_param_groups(groups, 1e-3)["multipliers"]
        assert found(table, "a", "b") == [0.1, 1]

    def test_numbers_may_be_tensors(self) -> None:
        class Scalar:
            """Like PyTorch's: its dtype is none of NumPy's."""

            dtype = "torch.float32"

            def __float__(self) -> float:
                return 0.5

        number = Scalar()
        group = {"params": ["a"], "lr": number, "betas": (number, number)}
        tables = from_torch_param_groups([group], 1.0)
        assert [found(table, "a") for table in tables.values()] == [[0.5]] * 3

    @pytest.mark.parametrize(
        "noted",
        [
            {},  # as timm's, MAE's and BEiT's functions return it
            {"lr": 1e-3},  # in a new optimizer
            {"lr": 2e-5},  # after a step of MAE's or BEiT's schedule
            {"lr": 0.0, "initial_lr": 1e-3},  # after a step of timm's schedule
        ],
    )
    def test_a_scale_of_the_rate_is_a_multiplier(self, noted: Any) -> None:
        groups = [
            {"params": ["a"], "lr_scale": 0.25, **noted},
            {"params": ["b"], "lr_scale": 1.0, **noted},
        ]
        table = from_torch_param_groups(groups, 1e-3)["multipliers"]
        assert found(table, "a", "b") == [0.25, 1]

    def test_what_requires_no_gradient_is_not_trained(self) -> None:
        members = [("a", Tensor(False)), ("b", Tensor(True))]
        groups = [{"params": members, "weight_decay": 0.1}]
        tables = from_torch_param_groups(groups, 1.0)
        assert found(tables["multipliers"], "a", "b") == [0, 1]
        assert found(tables["weight_decay"], "a", "b") == [0.1, 0.1]
        given = {"params": [t for _, t in members], "param_names": ["a", "b"]}
        assert from_torch_param_groups([given], 1.0) == {
            "multipliers": tables["multipliers"]
        }

    def test_a_parameter_in_no_group_is_not_trained(self) -> None:
        params = {"a": {"w": jnp.ones(2), "b": jnp.ones(2)}, "c": jnp.ones(2)}
        groups = [{"params": ["a.w"]}, {"params": ["c"], "lr": 2.0}]
        for given in (params, None):
            tables = from_torch_param_groups(groups, 1.0, 0.1, params=given)
            olm.adamw(1.0, **tables).init(params)  # Each name has a decay.
            rows = olm.assign(params, tables["multipliers"], on_unmatched="error")
            rates = {row.name: row.value for row in rows}
            assert rates == {"a/w": 1, "a/b": 0, "c": 2}

    def test_a_name_is_that_name_only(self) -> None:
        groups = [{"params": "a.w", "lr": 2.0}]
        rules = from_torch_param_groups(groups, 1.0)["multipliers"]
        names = "a/w", "a.w", "a/w2", "x/a/w", "a/w/a/w"
        assert found(rules, *names) == [2, 0, 0, 0, 0]
        rules = from_torch_param_groups(groups, 1.0, separator=None)["multipliers"]
        assert found(rules, "a.w", "a/w", "aaw") == [2, 0, 0]

    def test_a_name_that_params_does_not_have_is_told(self) -> None:
        params = {"stem": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
        groups = [{"params": ["stem.weight", "stem.bias"], "lr": 0.1}]
        text = r"'stem/kernel'\]\); rename it in the groups first, not 'stem/weight'"
        with pytest.raises(ValueError, match=text):
            from_torch_param_groups(groups, 1.0, params=params)
        # Without params, init tells it.
        tables = from_torch_param_groups(groups, 1.0)
        with pytest.raises(ValueError, match="name 'stem/weight' .* matches none"):
            olm.adamw(1.0, **tables).init(params)

    def test_a_group_prints_by_its_name_or_number(self) -> None:
        params = {"a": 1.0, "b": 1.0, "c": 1.0}
        groups = [
            {"params": [("a", Tensor()), ("b", Tensor(False))], "name": "stem"},
            {"params": []},
            {"params": ["c"], "lr": 0.5},
        ]
        table = from_torch_param_groups(groups, 1.0, params=params)["multipliers"]
        rows = "(without gradients, 0.0), (stem, 1.0), (group 2, 0.5), ('', 0.0)"
        assert repr(table) == f"Rules([{rows}])"
        assert olm.Rules.from_config(table.to_config()) == table

    @pytest.mark.parametrize(
        ("groups", "error", "match"),
        [
            (
                [{"params": ["a.w"]}, {"params": ["b"]}, {"params": [("a.w", 0)]}],
                ValueError,
                "parameter 'a/w' must be in one group, not 'in groups 0 and 2'",
            ),
            ([{"lr": 1.0}], KeyError, "params"),
            (
                [{"params": [0, 1]}],
                TypeError,
                "group 0 must be a name or a .name, tens",
            ),
            ([{"params": ["a"], "eps": -1.0}], ValueError, "eps .* must be at least 0"),
            (
                [{"params": ["a"]}, {"params": ["b"], "weight_decay": 0.1}],
                ValueError,
                "base_weight_decay must be given: not every group has a decay",
            ),
            (
                [{"params": ["a"], "momentum": 0.5}, {"params": ["b"]}],
                ValueError,
                r"The groups differ in 'momentum': \[0.5, None\]",
            ),
        ],
    )
    def test_refuses(self, groups: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            from_torch_param_groups(groups, 1e-3)


class TestBigVision:
    LR_MULTS = [
        (".*/frozen", None),
        ("encoder/norm/.*", 2.0),
        ("encoder/.*", 0.1),
        (".*norm.*", 3.0),
    ]

    def test_the_first_pattern_that_matches_in_full_wins(self) -> None:
        expected = {
            "encoder/norm/scale": 2,
            "encoder/w": 0.1,
            "encoder/frozen": 0,
            "head/norm/frozen": 0,
            "head/norm/scale": 3,
            "x/encoder/w": None,
        }
        tables = from_big_vision(self.LR_MULTS)
        assert tables["weight_decay"] == olm.Rules({"": 0.0})  # As config.wd there.
        assert found(tables["multipliers"], *expected) == list(expected.values())

    def test_is_the_same_table_in_the_same_order(self) -> None:
        assert from_big_vision((["a", 2], ("a", 3)))["multipliers"] == olm.Rules(
            [(re.compile("a"), 2.0), (re.compile("a"), 3.0)]
        )

    def test_steps_are_those_of_big_vision_s_chain(self) -> None:
        """There neither the rate nor the multipliers scale the decay."""
        names = ["encoder/kernel", "encoder/bias", "encoder/frozen", "head/kernel"]
        params = {name: jnp.array([1.0, -2.0]) for name in names}
        gradients = jax.tree.map(jnp.cos, params)
        lr, wd = 0.01, 0.003
        wd_mults = [("head/.*", 0.5), (".*/frozen", 1.0), (".*/kernel$", 1.0)]

        def mask(name: str) -> Any:
            return {other: other == name for other in names}

        chain = optax.chain(
            optax.scale_by_adam(),
            optax.scale(lr),
            optax.masked(optax.scale(0.1), mask("encoder/kernel")),
            optax.masked(optax.scale(0.1), mask("encoder/bias")),
            optax.add_decayed_weights(wd * 0.5, mask("head/kernel")),
            optax.add_decayed_weights(wd, mask("encoder/frozen")),
            optax.add_decayed_weights(wd, mask("encoder/kernel")),
            optax.masked(optax.set_to_zero(), mask("encoder/frozen")),
            optax.scale(-1.0),
        )
        tables = from_big_vision(
            self.LR_MULTS[:1] + self.LR_MULTS[2:3],
            params,
            weight_decay=wd / lr,
            wd_mults=wd_mults,
        )
        tx = olm.adamw(lr, **tables)
        updates, _ = tx.update(gradients, tx.init(params), params)
        expected, _ = chain.update(gradients, chain.init(params), params)
        for name in names:
            np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5)
        assert [str(rule) for rule in tables["weight_decay"]] == [
            "/.*/kernel$/ and /encoder/.*/",
            "/head/.*/",
            "''",
        ]

    @pytest.mark.parametrize(
        ("rows", "error", "match"),
        [
            (
                [("stem", {"decay_type": "cosine"})],
                TypeError,
                "rule /stem/ must be a re",
            ),
            ([("stem", float("nan"))], ValueError, "rule /stem/ must be finite"),
            ([("stem(", 1.0)], re.error, "missing"),
            ([("stem", 1.0, 2.0)], ValueError, "unpack"),
        ],
    )
    def test_refuses(self, rows: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            from_big_vision(rows)

    def test_decays_need_the_parameters(self) -> None:
        with pytest.raises(TypeError, match="params must be given, since decays go by"):
            from_big_vision([], weight_decay=0.1)
