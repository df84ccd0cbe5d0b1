"""The figures, by their artists: bars, lines, labels, and that none overlap."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

import optax_lrmult as olm
from tests.report.pictures import TABLE, VIT, shapes

plot_multipliers, plot_schedule = olm.report.plot_multipliers, olm.report.plot_schedule

NET = {
    "stem": shapes(kernel=(3, 8)),
    "block_1": shapes(kernel=(8, 8), bias=(8,)),
    "head": shapes(kernel=(8, 2), bias=(2,)),
}
NET_TABLE = {"stem": 0, "bias": 2, "block_1": 0.1}
RATE = optax.linear_schedule(1.0, 0.5, 100)
STACK = {"embed": shapes(w=(4,)), "layers": shapes(a=(3, 4), b=(3, 2))}
FLAT = {f"p{i}_x": jax.ShapeDtypeStruct((2,), "float32") for i in range(200)}


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def sizes(ax: Axes) -> dict[str, float]:
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    return dict(zip(names(ax), ends, strict=True))


def texts(ax: Axes) -> list[str]:
    return [text.get_text().strip() for text in ax.texts]


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}


class TestBars:
    def test_size_order_and_colour(self) -> None:
        ax = plot_multipliers(NET, NET_TABLE)
        found = sizes(ax)
        assert list(found) == ["stem", "bias", "block_1", "(no rule)"]
        np.testing.assert_allclose([*found.values()][1:], [2, 0.1, 1])
        assert texts(ax) == ["0", "2", "0.1", "1"]
        assert ax.get_xscale() == "log"
        assert ax.yaxis_inverted()
        _, faster, slower, _ = (bar.get_facecolor() for bar in ax.patches)
        assert faster != slower

    def test_frozen_is_hatched_to_the_end_of_the_axis(self) -> None:
        ax = plot_multipliers(NET, NET_TABLE)
        assert [bar.get_hatch() for bar in ax.patches] == ["////", None, None, None]
        assert sizes(ax)["stem"] == pytest.approx(ax.get_xlim()[0])

    def test_a_negative_one_has_a_colour_of_its_own(self) -> None:
        ax = plot_multipliers(NET, {"head": -0.5, "stem": 0.5})
        assert sizes(ax)["head"] == sizes(ax)["stem"] == 0.5
        assert texts(ax) == ["-0.5", "0.5", "1"]
        assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()

    def test_a_schedule_at_step_0(self) -> None:
        table = {
            "stem": optax.linear_schedule(0, 1, 9),
            "head": lambda step: 0.5 + step,
        }
        ax = plot_multipliers(NET, table)
        assert texts(ax) == ["0 at step 0", "0.5 at step 0", "1"]

    def test_layers_and_a_function_have_a_bar_for_each_value(self) -> None:
        ax = plot_multipliers(STACK, {"layers": olm.per_layer([0, 0.5, 2])})
        assert names(ax) == ["layers[0]", "layers[1]", "layers[2]", "(no rule)"]
        assert texts(ax) == ["0", "0.5", "2", "1"]
        ax = plot_multipliers(STACK, olm.Rules(lambda name: 0.5 if "a" in name else 2))
        assert texts(ax) == ["2", "0.5"]

    def test_layer_decay_goes_from_the_stem_to_the_head(self) -> None:
        found = list(
            sizes(plot_multipliers(VIT, olm.recipes.layer_decay(0.75, VIT))).values()
        )
        np.testing.assert_allclose(found[0], 0.75**13)
        np.testing.assert_allclose(found[-1], 1)
        assert found == sorted(found)
        assert len(found) == 15

    def test_many_bars_have_few_names_and_no_numbers(self) -> None:
        ax = plot_multipliers(FLAT, {f"p{i}_": 0.5 + i for i in range(200)})
        assert len(ax.patches) == 200
        assert names(ax)[:3] == ["p0_", "p5_", "p10_"]
        assert list(ax.get_yticks()[:3]) == [0, 5, 10]
        assert texts(ax) == []
        assert ax.figure.get_size_inches()[1] <= 8

    def test_one_leaf_no_leaf_and_all_sizes(self) -> None:
        assert sizes(plot_multipliers(jnp.ones(3), {"": 0.5})) == {"''": 0.5}
        assert sizes(plot_multipliers({}, {"a": 1})) == {}
        low, high = plot_multipliers(NET, {"stem": 1e-30, "head": 1e30}).get_xlim()
        assert low < 1e-30 < 1e30 < high


class TestLines:
    def test_are_the_rates_of_the_rules(self) -> None:
        table = NET_TABLE | {"stem": optax.linear_schedule(0, 1, 100)}
        ax = plot_schedule(NET, table, RATE, 101)
        assert ax.get_yscale() == "log"
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(101))
        assert list(lines(ax)) == ["stem", "bias", "block_1", "(no rule)"]
        for step in (0, 7, 100):
            expected = olm.report.learning_rates(NET, table, RATE, step)
            for key, drawn in lines(ax).items():
                np.testing.assert_allclose(drawn[step], expected[key], rtol=1e-6)

    def test_a_number_and_a_schedule_in_python(self) -> None:
        ax = plot_schedule(NET, {"stem": lambda s: 0.5 if s < 5 else 1}, 0.5, 10)
        assert list(lines(ax)["stem"]) == [0.25] * 5 + [0.5] * 5
        assert list(lines(ax)["(no rule)"]) == [0.5] * 10

    def test_a_long_training_is_sampled_to_its_last_step(self) -> None:
        steps = plot_schedule(NET, None, RATE, 1_000_000).lines[0].get_xdata()
        assert len(steps) == 200
        assert (steps[0], steps[-1]) == (0, 999_999)

    def test_each_line_has_a_name_and_what_is_always_0_another(self) -> None:
        ax = plot_schedule(NET, NET_TABLE, 0.1, 10)
        assert texts(ax) == ["always 0: stem", "block_1", "(no rule)", "bias"]
        colours = {line.get_label(): line.get_color() for line in ax.lines}
        assert {text.get_text(): text.get_color() for text in ax.texts[1:]} == colours
        assert texts(plot_schedule(NET, {"stem": 0.5}, 0.0, 5)) == [
            "always 0: stem, (no rule)"
        ]

    def test_names_stand_where_the_lines_end(self) -> None:
        table = {"stem": optax.linear_schedule(1, 0.01, 9), "head": 0.1}
        ax = plot_schedule(NET, table, 1.0, 10)
        assert texts(ax) == ["stem", "head", "(no rule)"]
        for text, end in zip(ax.texts, (0.01, 0.1, 1), strict=True):
            place = ax.transAxes.transform(text.get_position())
            assert ax.transData.inverted().transform(place)[1] == pytest.approx(end)

    def test_negative_is_dashed_at_its_size(self) -> None:
        table = {"stem": -0.5, "head": optax.linear_schedule(-1, 1, 2)}
        ax = plot_schedule(NET, table, 0.1, 3)
        assert [line.get_linestyle() for line in ax.lines] == ["--", "--", "-"]
        np.testing.assert_allclose(lines(ax)["stem"], [0.05] * 3)
        np.testing.assert_allclose(lines(ax)["head"], [0.1, 0, 0.1])

    def test_rules_that_differ_in_numbers_share_a_colour_and_a_name(self) -> None:
        table = {f"block_{i}/": 0.5**i for i in range(12)}
        ax = plot_schedule(VIT, table, RATE, 10)
        assert len(ax.lines) == 13
        assert len({line.get_color() for line in ax.lines}) == 2
        assert len({round(line.get_alpha(), 6) for line in ax.lines}) == 12
        assert texts(ax) == ["block_{0..11}/", "(no rule)"]
        ax = plot_schedule(STACK, {"layers": olm.per_layer([0.1, 0.2, 0])}, 1.0, 2)
        assert list(lines(ax)) == ["layers[0]", "layers[1]", "(no rule)"]
        assert texts(ax) == ["always 0: layers[2]", "layers[{0,1}]", "(no rule)"]

    def test_one_step_and_no_parameters(self) -> None:
        ax = plot_schedule(NET, {"stem": 0.5}, 0.1, 1)
        assert ax.lines[0].get_marker() == "o"
        assert list(plot_schedule({}, {}, 0.1, 5).lines) == []


@pytest.mark.parametrize(
    ("params", "table"),
    [
        (NET, NET_TABLE),
        (VIT, TABLE),
        (VIT, {c: i + 0.1 for i, c in enumerate("_abcdefghijklmnopqrstuv")}),
        (FLAT, {f"p{i}_": 0.5 + i for i in range(0, 200, 3)}),
        (
            {c: shapes(w=(2,)) for c in "abcdefghijklmno"},
            {f"{c}/": 1 + i / 100 for i, c in enumerate("abcdefghijklmno")},
        ),
        (
            {
                "q" * 40: shapes(a=(2,)),
                "r" * 40: shapes(d=(2,)),
                r"_w$\oops$": shapes(c=(2,)),
            },
            {"q" * 40: 0.1, "r" * 40: 0.2, r"_w$\oops$": 0.01},
        ),
    ],
)
def test_no_label_overlaps_another_or_leaves_the_figure(
    params: Any, table: Any
) -> None:
    table = olm.Rules(table)
    alive = {str(row.rule) for row in olm.assign(params, table)}
    table = olm.Rules([rule for rule in table if str(rule) in alive])
    for ax in (plot_multipliers(params, table), plot_schedule(params, table, RATE, 9)):
        ax.figure.draw_without_rendering()
        for labels in ([*ax.get_yticklabels()], [*ax.get_xticklabels()], ax.texts):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            boxes = [box for box in boxes if ax.figure.bbox.overlaps(box)]
            for one, other in itertools.combinations(boxes, 2):
                width = min(one.x1, other.x1) - max(one.x0, other.x0)
                height = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(width, height) <= 0.5, (one, other)
            assert all(box.x1 <= ax.figure.bbox.x1 for box in boxes)
            assert all(box.y1 <= ax.figure.bbox.y1 for box in boxes)
        assert ax.get_window_extent().width > 250
        assert ax.get_title(loc="left")
        assert ax.get_xlabel()


def test_on_axes_that_are_there_and_by_other_names() -> None:
    _, (left, right) = pyplot.subplots(1, 2)
    labels = {"a": "all", "b": "all"}
    params = shapes(a=(2,), b=(2,))
    assert plot_multipliers(params, {"all": 3}, param_labels=labels, ax=left) is left
    assert (
        plot_schedule(params, {"all": 3}, 0.1, 5, param_labels=labels, ax=right)
        is right
    )
    assert pyplot.get_fignums() == [1]
    assert sizes(left) == {"all": 3}
    assert list(lines(right)) == ["all"]


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(TypeError, match="float"):
        jax.jit(lambda m: plot_multipliers(NET, {"stem": m}))(0.1)
    with pytest.raises(ValueError, match="finite"):
        plot_schedule(NET, {"stem": np.nan}, 0.1, 5)
