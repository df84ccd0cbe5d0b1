"""The figures, by their artists: bars, lines, labels, and that none overlap."""

import itertools
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from pictures import TABLE, VIT, shapes

import optax_lrmult as olm

NET = {
    "stem": shapes(kernel=(3, 8)),
    "block_1": shapes(kernel=(8, 8), bias=(8,)),
    "head": shapes(kernel=(8, 2), bias=(2,)),
}
NET_TABLE = {"stem": 0, "bias": 2, "block_1": 0.1}
RATE = optax.linear_schedule(1.0, 0.5, 100)
STACK = {"embed": shapes(w=(4,)), "layers": shapes(a=(3, 4), b=(3, 2))}
FLAT = {
    f"p{i}_{'xyz'[i % 3]}": jax.ShapeDtypeStruct((2,), "float32") for i in range(1000)
}


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def bars(ax: Axes) -> dict[str, Any]:
    """The bars by the names on the axis; a bar without a name has its neighbour's."""
    found: dict[str, Any] = {}
    labels = [label.get_text() for label in ax.get_yticklabels()]
    for index, bar in enumerate(ax.patches):
        same = len([1 for text in labels[: index + 1] if text == ""])
        found[labels[index] or f"{labels[index - 1]} again {same}"] = bar
    return found


def sizes(ax: Axes) -> dict[str, float]:
    return {name: float(bar.get_width()) for name, bar in bars(ax).items()}


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend(ax: Axes) -> dict[str, Any]:
    found = ax.get_legend()
    assert found is not None
    names = (text.get_text() for text in found.get_texts())
    return dict(zip(names, found.legend_handles, strict=True))


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}


class TestBars:
    def test_size_colour_and_order(self) -> None:
        ax = olm.plot_multipliers(NET, NET_TABLE)
        found = sizes(ax)
        assert list(found) == [
            "stem/kernel",
            "block_1/bias",
            "block_1/kernel",
            "head/bias",
            "head/kernel",
        ]
        assert [*found.values()][1:] == [2, 0.1, 2, 1]
        assert ax.get_xscale() == "log"
        assert texts(ax) == ["0, frozen", "2", "0.1", "2", "1"]
        assert ax.yaxis_inverted()
        colours = [bar.get_edgecolor() for bar in ax.patches]
        assert colours[1] == colours[3]
        assert len(set(colours)) == 4

    def test_legend_has_the_rules(self) -> None:
        ax = olm.plot_multipliers(NET, NET_TABLE)
        found = legend(ax)
        assert list(found) == ["stem", "bias", "block_1", "(no rule)"]
        kernel = bars(ax)["block_1/kernel"]
        assert found["block_1"].get_facecolor() == kernel.get_facecolor()
        assert found["stem"].get_hatch() == "////"

    def test_frozen_is_hatched_across_the_axis_and_nothing_else_is(self) -> None:
        found = bars(ax := olm.plot_multipliers(NET, NET_TABLE))
        assert found["stem/kernel"].get_hatch() == "////"
        assert found["stem/kernel"].get_width() > ax.get_xlim()[1]
        assert {bar.get_hatch() for bar in ax.patches[1:]} == {None}

    def test_rules_that_count_up_share_a_colour(self) -> None:
        ax = olm.plot_multipliers(VIT, olm.layer_decay(0.75, VIT))
        assert list(legend(ax)) == [
            "cls_token|embed|pos_embed",
            "block_{0..11}",
            "norm",
            "head",
        ]
        found = sizes(ax)
        names = [f"block_{i}" for i in range(12)]
        assert list(found) == [
            "cls_token",
            "embed",
            "pos_embed",
            *names,
            "norm",
            "head",
        ]
        np.testing.assert_allclose(found["block_0"], 0.75**12)
        blocks = [bars(ax)[name].get_facecolor() for name in names]
        assert len(set(blocks)) == 1

    def test_a_negative_one_says_so(self) -> None:
        ax = olm.plot_multipliers(NET, {"head": -0.5})
        assert sizes(ax)["head/kernel"] == 0.5
        assert texts(ax)[-1] == "-0.5, climbs"

    def test_a_schedule_at_step_0(self) -> None:
        table = {
            "stem": optax.linear_schedule(0, 1, 9),
            "head": lambda step: 0.5 + step,
        }
        ax = olm.plot_multipliers(NET, table)
        half = "0.5 at step 0"
        assert texts(ax) == ["0 at step 0", "1", "1", half, half]
        found = bars(ax)
        assert found["stem/kernel"].get_hatch() == "////"
        assert found["head/kernel"].get_alpha() != 1
        assert found["head/kernel"].get_facecolor()[3] == 0.4

    def test_a_traced_one_has_no_size(self) -> None:
        found = []

        @jax.jit
        def drawn(m: jax.Array) -> jax.Array:
            schedule = optax.linear_schedule(0.5, 1, 9)
            table = {"stem": m, "head": schedule, "block": olm.per_layer([m] * 8)}
            found.append(olm.plot_multipliers(NET, table))
            return m

        drawn(0.5)
        labels = texts(found[0])
        assert labels[0] == "traced"
        assert labels[-1] == "0.5 at step 0"
        assert labels.count("traced") == 17
        assert bars(found[0])["stem/kernel"].get_linestyle() == "--"

    def test_per_layer_has_a_bar_for_each_slice(self) -> None:
        ax = olm.plot_multipliers(STACK, {"layers": olm.per_layer([0, 0.5, 2])})
        assert texts(ax) == ["1", *["0, frozen", "0.5", "2"] * 2]
        assert list(sizes(ax))[1:3] == ["layers/a[0]", "layers/a[1]"]

    def test_large_models_are_grouped_by_depth(self) -> None:
        ax = olm.plot_multipliers(VIT, {"mlp": 0.5})
        assert len(ax.patches) == 29
        assert ax.patches[3].get_y() < ax.patches[4].get_y()
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels[:4] == ["cls_token", "embed", "pos_embed", "block_0"]
        assert labels[4:7] == ["", "block_1", ""]

    def test_what_all_names_begin_with_is_left_out(self) -> None:
        ax = olm.plot_multipliers({"params": {"net": NET}}, NET_TABLE)
        assert sizes(ax) == sizes(olm.plot_multipliers(NET, NET_TABLE))

    def test_1000_parameters(self) -> None:
        ax = olm.plot_multipliers(FLAT, lambda name: 1.0 + len(name))
        assert len(ax.patches) == 1000
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels[:3] == ["p0_x", "p25_y", "p50_z"]
        assert list(ax.get_yticks()[:3]) == [0, 25, 50]
        assert ax.figure.get_size_inches()[1] <= 8

    def test_many_rules_have_a_scale_of_colours_and_a_short_legend(self) -> None:
        letters = "abcdefghijklmnop"
        params = shapes(**{f"{c}/w": (2,) for c in letters})
        ax = olm.plot_multipliers(params, {f"{c}/": 0.5 for c in letters})
        assert len({bar.get_facecolor() for bar in ax.patches}) == 16
        assert list(legend(ax))[-2:] == ["i/", "... and 7 more"]

    def test_one_leaf_no_leaf_and_all_frozen(self) -> None:
        ax = olm.plot_multipliers(jnp.ones(3), {"": 0.5})
        assert [bar.get_width() for bar in ax.patches] == [0.5]
        assert sizes(olm.plot_multipliers({}, {"a": 1})) == {}
        ax = olm.plot_multipliers(NET, {"": 0})
        assert {bar.get_hatch() for bar in ax.patches} == {"////"}
        assert ax.get_xlim()[0] < 1 < ax.get_xlim()[1]

    def test_very_small_and_very_large(self) -> None:
        ax = olm.plot_multipliers(NET, {"stem": 1e-30, "head": 1e30})
        assert ax.get_xlim()[0] < 1e-30
        assert ax.get_xlim()[1] > 1e30


class TestLines:
    def test_are_the_rates_of_the_rules(self) -> None:
        table = NET_TABLE | {"stem": optax.linear_schedule(0, 1, 100)}
        ax = olm.plot_schedule(NET, table, RATE, 101)
        assert ax.get_yscale() == "log"
        steps = ax.lines[0].get_xdata()
        np.testing.assert_array_equal(steps, np.arange(101))
        for key, drawn in lines(ax).items():
            expected = [
                olm.learning_rates(NET, table, RATE, step)[key] for step in (0, 7, 100)
            ]
            np.testing.assert_allclose(drawn[[0, 7, 100]], expected, rtol=1e-6)
        assert list(lines(ax)) == ["stem", "bias", "block_1", "(no rule)"]

    def test_a_number_and_a_schedule_in_python(self) -> None:
        ax = olm.plot_schedule(NET, {"stem": lambda s: 0.5 if s < 5 else 1}, 0.5, 10)
        assert list(lines(ax)["stem"]) == [0.25] * 5 + [0.5] * 5
        assert list(lines(ax)["(no rule)"]) == [0.5] * 10

    def test_a_long_training_is_sampled_to_its_last_step(self) -> None:
        ax = olm.plot_schedule(NET, None, RATE, 1_000_000)
        steps = ax.lines[0].get_xdata()
        assert len(steps) == 200
        assert (steps[0], steps[-1]) == (0, 999_999)

    def test_frozen_is_a_dotted_line_at_the_bottom(self) -> None:
        ax = olm.plot_schedule(NET, {"stem": 0}, 0.1, 10)
        line = ax.lines[0]
        assert line.get_linestyle() == ":"
        assert 0 < line.get_ydata()[0] < 0.1
        assert line.get_transform() == ax.get_xaxis_transform()
        assert list(legend(ax)) == ["stem (0)", "(no rule)"]

    def test_negative_is_dashed_at_its_size(self) -> None:
        table = {"stem": -0.5, "head": optax.linear_schedule(-1, 1, 2)}
        ax = olm.plot_schedule(NET, table, 0.1, 3)
        found = [(line.get_label(), line.get_linestyle()) for line in ax.lines]
        assert found == [
            ("stem", "--"),
            ("head", "--"),
            ("head", "-"),
            ("(no rule)", "-"),
        ]
        assert list(ax.lines[0].get_ydata()) == [0.05] * 3
        np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.1, 0, np.nan])
        np.testing.assert_allclose(ax.lines[2].get_ydata(), [np.nan, 0, 0.1])
        assert "stem (negative)" in legend(ax)

    def test_rules_that_count_up_share_a_colour(self) -> None:
        ax = olm.plot_schedule(VIT, TABLE, RATE, 10)
        colours = {line.get_label(): line.get_color() for line in ax.lines}
        blocks = [colours[f"block_{i}"] for i in range(12)]
        assert len(set(blocks)) == 1
        assert len(set(colours.values())) == 6
        assert "block_{0..11}" in legend(ax)

    def test_layers_of_a_stack_are_a_line_each(self) -> None:
        ax = olm.plot_schedule(STACK, {"layers": olm.per_layer([0.1, 0.2, 0])}, 1.0, 2)
        assert list(lines(ax)) == ["layers[0]", "layers[1]", "layers[2]", "(no rule)"]
        assert list(legend(ax)) == ["layers", "(no rule)"]

    def test_a_function_is_one_colour(self) -> None:
        ax = olm.plot_schedule(FLAT, lambda name: 1.0 + int(name[1:-2]), 1.0, 2)
        assert len(ax.lines) == 1000
        assert len(legend(ax)) == 1

    def test_a_traced_one_is_in_the_legend_only(self) -> None:
        found = []

        @jax.jit
        def drawn(m: jax.Array) -> jax.Array:
            found.append(olm.plot_schedule(NET, {"stem": m}, RATE, 10))
            return m

        drawn(0.5)
        assert list(legend(found[0])) == ["stem (traced)", "(no rule)"]
        assert np.isnan(lines(found[0])["stem"]).all()
        assert lines(found[0])["(no rule)"][0] == 1

    def test_one_step_is_a_dot_and_nothing_is_empty(self) -> None:
        ax = olm.plot_schedule(NET, {"stem": 0.5}, 0.1, 1)
        assert ax.lines[0].get_marker() == "o"
        assert list(olm.plot_schedule({}, {}, 0.1, 5).lines) == []

    @pytest.mark.parametrize("rate", [0.0, lambda step: 0.0])
    def test_a_rate_of_0(self, rate: Any) -> None:
        ax = olm.plot_schedule(NET, {"stem": 0.5}, rate, 5)
        assert list(legend(ax)) == ["stem (0)", "(no rule) (0)"]


@pytest.mark.parametrize(
    ("params", "table"),
    [
        (NET, NET_TABLE),
        (VIT, TABLE),
        (VIT, {"mlp": 0.5, "embed": -2}),
        (FLAT, {"p1": 0.1, "p2": 0.2, "_x": 0.3}),
        (
            {
                "params": {"q" * 40: shapes(a=(2,), b=(2,)), "r" * 40: shapes(d=(2,))},
                r"_w$\oops$": shapes(c=(2,)),
            },
            {"q" * 40: 0.1, "r" * 40: 0.2, r"_w$\oops$": 0.01},
        ),
    ],
)
class TestLabels:
    def test_none_overlap_or_leave_the_figure(self, params: Any, table: Any) -> None:
        for ax in (
            olm.plot_multipliers(params, table),
            olm.plot_schedule(params, table, 0.1, 9),
        ):
            ax.figure.draw_without_rendering()
            entries = ax.get_legend()
            assert entries is not None
            for labels in (
                [*ax.get_yticklabels()],
                [*ax.get_xticklabels()],
                entries.get_texts(),
                ax.texts,
            ):
                boxes = [text.get_window_extent() for text in labels if text.get_text()]
                inside = [b for b in boxes if ax.figure.bbox.overlaps(b)]
                assert_apart(inside)
            box = entries.get_window_extent()
            assert box.x1 <= ax.figure.bbox.x1
            assert not box.overlaps(ax.get_window_extent())
            assert ax.get_window_extent().width > 250

    def test_every_rule_has_an_entry(self, params: Any, table: Any) -> None:
        count = len({id(row.rule) for row in olm.assign(params, table)})
        shown = legend(olm.plot_multipliers(params, table))
        assert len(shown) == (6 if table is TABLE else count)


def assert_apart(boxes: list[Any]) -> None:
    for one, other in itertools.pairwise(boxes):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(width, height) <= 0.5, (one, other)


def test_draw_on_axes_that_are_there() -> None:
    _, (left, right) = pyplot.subplots(1, 2)
    assert olm.plot_multipliers(NET, NET_TABLE, ax=left) is left
    assert olm.plot_schedule(NET, NET_TABLE, 0.1, 5, ax=right) is right
    assert pyplot.get_fignums() == [1]
    assert len(left.patches) == 5
    assert len(right.lines) == 4


def test_other_names() -> None:
    labels = jax.tree.map(lambda _: "all", jnp.ones(2))
    ax = olm.plot_multipliers(jnp.ones(2), {"all": 3}, param_labels=labels)
    assert sizes(ax) == {"all": 3}
    ax = olm.plot_schedule(jnp.ones(2), {"all": 3}, 0.1, 2, param_labels=labels)
    assert list(lines(ax)) == ["all"]


class TestRefusals:
    @pytest.mark.parametrize("steps", [1.5, True, "9", None])
    def test_steps_of_another_type(self, steps: Any) -> None:
        with pytest.raises(TypeError, match="steps must be an integer"):
            olm.plot_schedule(NET, None, 0.1, steps)

    def test_no_step(self) -> None:
        with pytest.raises(ValueError, match="at least 1, not 0"):
            olm.plot_schedule(NET, None, 0.1, 0)

    def test_rates(self) -> None:
        with pytest.raises(TypeError, match="The value of learning_rate"):
            olm.plot_schedule(NET, None, "fast", 5)
        with pytest.raises(TypeError, match="call it outside of jit"):
            jax.jit(lambda rate: olm.plot_schedule(NET, None, rate, 5))(0.1)

    def test_matplotlib_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        message = re.escape("pip install 'optax-lrmult[plot]'")
        with pytest.raises(ImportError, match=message):
            olm.plot_multipliers(NET, NET_TABLE)
        with pytest.raises(ImportError, match=message):
            olm.plot_schedule(NET, NET_TABLE, 0.1, 5)
