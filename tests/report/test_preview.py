"""The preview as golden text, in colour and as data, and its notes."""

import csv
import functools
import html
import io
import json
import os
import pty
import re
from pathlib import Path
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import optax_lrmult as olm


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(s, "float32") for name, s in names.items()}


class Warmup:
    def __call__(self, step: Any) -> Any:
        return jnp.minimum(1.0, step / 10)

    def __repr__(self) -> str:
        return "Warmup(10)"


NET = {
    "block_2": shapes(kernel=(4, 4), bias=(4,)),
    "block_10": shapes(kernel=(4, 4), bias=(4,)),
    "stack": shapes(kernel=(3, 8)),
    "head": shapes(kernel=(4, 1000)),
}
TABLE = {
    "bias": 0,
    re.compile("block_2/.*"): 0.0625,
    "head": Warmup(),
    "stack": olm.per_layer([0, 0.5, 1]),
}
BLOCK = {"attn": shapes(kernel=(64, 192)), "mlp": shapes(kernel=(64, 256))}
VIT = {f"block_{i}": BLOCK for i in range(12)} | {
    "embed": shapes(kernel=(48, 64)),
    "head": shapes(kernel=(64, 10), bias=(10,)),
}
BLOCKS = {olm.prefix(f"block_{i}"): 0.75 ** (12 - i) for i in range(12)}
VIT_TABLE = olm.Rules(
    {"bias": 0, olm.prefix("embed"): 0.75**13} | BLOCKS | {olm.prefix("head"): 1}
)


class TestTable:
    def test_every_kind_of_multiplier(self) -> None:
        assert (
            str(olm.preview(NET, TABLE))
            == """\
name               shape      rule          multiplier
block_{2,10}/bias  (4,)       'bias'        0
block_2/kernel     (4, 4)     /block_2/.*/  0.0625
block_10/kernel    (4, 4)     -             -
head/kernel        (4, 1000)  'head'        0, then Warmup(10)
stack/kernel       (3, 8)     'stack'       0 .. 1 per layer

rule          parameters   share  frozen at step 0
'head'             4,000   98.4%             4,000
'stack'               24    0.6%                 8
/block_2/.*/          16    0.4%                 0
no rule               16    0.4%                 0
'bias'                 8    0.2%                 8
all                4,064  100.0%             4,016"""
        )

    def test_layer_decay_beside_no_decay_for_biases(self) -> None:
        decay = {"bias": 0, "": 0.1}
        text = olm.preview(VIT, VIT_TABLE, weight_decay=decay, b1=0.9)
        assert (
            str(text)
            == """\
name                       shape      rule                    multiplier       rule    decay   b1
block_{0..11}/attn/kernel  (64, 192)  prefix 'block_{0..11}'  0.03168 .. 0.75  ''        0.1  0.9
block_{0..11}/mlp/kernel   (64, 256)  prefix 'block_{0..11}'  0.03168 .. 0.75  ''        0.1  0.9
embed/kernel               (48, 64)   prefix 'embed'          0.02376          ''        0.1  0.9
head/bias                  (10,)      'bias'                  0                'bias'    0    0.9
head/kernel                (64, 10)   prefix 'head'           1                ''        0.1  0.9

rule of multiplier      parameters   share  frozen
prefix 'block_{0..11}'     344,064   98.9%       0
prefix 'embed'               3,072    0.9%       0
prefix 'head'                  640    0.2%       0
'bias'                          10    0.0%      10
all                        347,786  100.0%      10

rule of decay  parameters   share  frozen
''                347,776  100.0%       0
'bias'                 10    0.0%      10
all               347,786  100.0%      10"""
        )

    def test_a_parameter_table_by_rows_with_rates(self) -> None:
        """Rates and betas of nanochat, at the base rate of its Muon."""
        attention = shapes(c_q=(768, 768), c_k=(768, 768), c_v=(768, 768))
        mlp = shapes(c_fc=(768, 3072), c_proj=(3072, 768))
        block = {"attn": attention | shapes(c_proj=(768, 768)), "mlp": mlp}
        params = {"h": [block] * 12} | shapes(
            wte=(50304, 768),
            lm_head=(768, 50304),
            resid_lambdas=(12,),
            x0_lambdas=(12,),
        )
        adam = {"labels": "adam", "b1": 0.8, "eps": 1e-10}
        rows = {
            "wte": {**adam, "multipliers": 10, "weight_decay": 0.001, "b2": 0.995},
            "lm_head": {**adam, "multipliers": 0.2, "weight_decay": 0.01, "b2": 0.96},
            "resid": {**adam, "multipliers": 0.25, "weight_decay": 0.05, "b2": 0.95},
            "x0": {
                **adam,
                "multipliers": 25,
                "weight_decay": 0,
                "b1": 0.96,
                "b2": 0.95,
            },
            "": {"labels": "muon", "multipliers": 1, "weight_decay": 0.2},
        }
        text = olm.preview(params, **olm.groups(rows), learning_rate=0.02)
        assert (
            str(text)
            == """\
name                   shape         rule       label   rate  decay    b1     b2    eps
h/{0..11}/attn/c_k     (768, 768)    ''         muon   0.02   0.2    -     -      -
h/{0..11}/attn/c_proj  (768, 768)    ''         muon   0.02   0.2    -     -      -
h/{0..11}/attn/c_q     (768, 768)    ''         muon   0.02   0.2    -     -      -
h/{0..11}/attn/c_v     (768, 768)    ''         muon   0.02   0.2    -     -      -
h/{0..11}/mlp/c_fc     (768, 3072)   ''         muon   0.02   0.2    -     -      -
h/{0..11}/mlp/c_proj   (3072, 768)   ''         muon   0.02   0.2    -     -      -
lm_head                (768, 50304)  'lm_head'  adam   0.004  0.01   0.8   0.96   1e-10
resid_lambdas          (12,)         'resid'    adam   0.005  0.05   0.8   0.95   1e-10
wte                    (50304, 768)  'wte'      adam   0.2    0.001  0.8   0.995  1e-10
x0_lambdas             (12,)         'x0'       adam   0.5    0      0.96  0.95   1e-10

rule        parameters   share
''          84,934,656   52.4%
'lm_head'   38,633,472   23.8%
'wte'       38,633,472   23.8%
'resid'             12    0.0%
'x0'                12    0.0%
all        162,201,624  100.0%"""
        )

    def test_a_rule_by_its_words(self) -> None:
        config = [
            {"name": ["block_2/bias", "block_10/bias"], "words": "biases", "value": 0}
        ]
        text = str(olm.preview(NET, weight_decay=olm.Rules.from_config(config)))
        assert re.search(r"block_\{2,10\}/bias +\(4,\) +biases +0\n", text)
        assert re.search(r"\nbiases +8 +0.2%\n", text)

    def test_without_a_table(self) -> None:
        assert (
            str(olm.preview({"b": jnp.ones((2, 3)), "a": 1.0}))
            == """\
name  shape
a     ()
b     (2, 3)

rule  parameters   share
all            7  100.0%"""
        )

    def test_a_bare_array_and_a_rule_for_all(self) -> None:
        text = str(olm.preview(jnp.ones(3), {"": 0.5}))
        assert text.startswith("name  shape  multiplier\n      (3,)          0.5\n")
        assert "all            0    0.0%" in str(olm.preview({})).replace(
            "   0.0%", "    0.0%"
        )

    def test_a_number_for_all_stands_behind_the_tables(self) -> None:
        text = str(olm.preview(NET, weight_decay=0.1, b1=0.9, b2={"head": 0.95}))
        assert text.split("\n")[0].split() == [
            "name",
            "shape",
            "rule",
            "b2",
            "decay",
            "b1",
        ]

    def test_a_decay_of_0_is_not_frozen(self) -> None:
        assert "frozen" not in str(olm.preview(NET, weight_decay=0))

    def test_numbers_of_all_sizes(self) -> None:
        table = {"block_2/b": 1e-30, "block_2": -3e-4, "block_10": 2e7, "head": 12.25}
        lines = str(olm.preview(NET, table)).splitlines()
        assert [line[line.index("'") :] for line in lines[1:5]] == [
            "'block_2/b'      1e-30",
            "'block_2'       -0.0003",
            "'block_10'       2e+07",
            "'block_10'       2e+07",
        ]

    def test_rates_of_schedules_layers_and_what_has_no_rule(self) -> None:
        text = str(
            olm.preview(
                NET,
                {"head": lambda step: 0.5, "stack": olm.per_layer([1, 3, 2])},
                learning_rate=0.1,
            )
        )
        assert re.search(r"head/kernel .* 0\.05, then .*<lambda>\n", text)
        assert re.search(r"stack/kernel .* 0\.1 to 0\.3 per layer\n", text)
        assert re.search(r"block_\{2,10\}/kernel .* -  +0\.1\n", text)
        assert "rate" in str(olm.preview(NET, learning_rate=0.1))

    @pytest.mark.parametrize(
        ("schedule", "name"),
        [
            (optax.linear_schedule(0.5, 1, 9), "polynomial_schedule"),
            (optax.warmup_cosine_decay_schedule(0.5, 1, 3, 9), "join_schedules"),
            (functools.partial(Warmup.__call__, Warmup()), "Warmup.__call__"),
        ],
    )
    def test_a_schedule_has_the_name_of_what_makes_it(
        self, schedule: Any, name: str
    ) -> None:
        text = str(olm.preview(shapes(w=(2,)), {"w": schedule}))
        assert text.splitlines()[1].endswith(f", then {name}")

    def test_says_that_a_multiplier_is_traced(self) -> None:
        texts = []
        table = {"head": lambda step: 1 / (1 + step), "stack": 2}
        jax.jit(
            lambda m: texts.append(str(olm.preview(NET, {"bias": m} | table))) or m
        )(0.5)
        assert "traced float32" in texts[0]
        assert re.search(r"'head' +1, then", texts[0])

    def test_a_decay_that_init_will_ask_for_is_noted(self) -> None:
        for table in (
            {"bias": 0},
            olm.groups({"bias": {"weight_decay": 0}})["weight_decay"],
        ):
            text = str(olm.preview(NET, weight_decay=table))
            assert "and 1 more need a decay, too: add a row '' for the rest." in text
        assert "need a decay" not in str(olm.preview(NET, weight_decay={"": 0.1}))

    @pytest.mark.parametrize("rate", [optax.linear_schedule(1, 0, 9), "0.1"])
    def test_a_base_rate_is_a_number(self, rate: Any) -> None:
        with pytest.raises(TypeError, match="learning_rate must be a "):
            olm.preview(NET, {"bias": 2}, learning_rate=rate)

    def test_the_axes_that_muon_gets_stand_without_words(self) -> None:
        params = shapes(**{"h/0/query/kernel": (8, 2, 4), "wte": (9, 8)})
        text = str(olm.preview(params, labels=olm.recipes.hidden_matrices(params)))
        assert re.search(r"h/0/query/kernel .* \(-3, \(-2, -1\)\)\n", text)

    def test_labels_are_values_of_any_kind(self) -> None:
        labels = {"bias": None, "head": "adam", "stack": (0, 1)}
        text = str(olm.preview(NET, labels=labels))
        cells = {
            line.split()[0]: re.split("  +", line)[3] for line in text.splitlines()[1:5]
        }
        assert cells == {
            "block_{2,10}/bias": "None",
            "block_{2,10}/kernel": "-",
            "head/kernel": "adam",
            "stack/kernel": "(0, 1)",
        }

    # How many columns of a terminal a name takes.
    WIDTHS = {
        "ブロック/重み": 13,
        "e\u0301/w": 3,  # an accent that follows its letter
        "ไทย์": 3,  # a mark above
        "\u1112\u1161\u11ab": 2,  # the parts of a syllable of Hangul
        "👍/w": 4,
        "👍\U0001f3fd": 2,  # with a colour of skin
        "👩\u200d💻": 2,  # joined
        "❤\ufe0f": 2,  # as an emoji
        "zero\u200bwidth": 9,
    }

    def test_columns_stay_aligned_with_wide_characters(self) -> None:
        preview = olm.preview(dict.fromkeys(self.WIDTHS, jnp.ones(2)), {"重": 0.5})
        page = html.unescape(re.sub(r"<[^>]*>", "", preview._repr_html_()))
        for text in (str(preview), page):
            lines = text.splitlines()[1 : 1 + len(self.WIDTHS)]
            for line in lines:
                name, _, rest = line.partition(" ")
                between = len(rest) - len(rest.lstrip()) + 1
                assert self.WIDTHS[name] + between == 13 + 2, line


class TestWhatItReads:
    def test_shapes_are_enough(self) -> None:
        params = {"stem": {"kernel": jnp.ones((2, 2))}, "head": jnp.ones(3)}
        on_shapes = olm.preview(jax.eval_shape(lambda: params), {"stem": 0.5})
        assert on_shapes == olm.preview(params, {"stem": 0.5})
        assert repr(on_shapes) == str(on_shapes)

    def test_a_model_of_nnx(self) -> None:
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        text = str(olm.preview(nnx.state(model, nnx.Param), {"bias": 0}))
        assert re.search(r"bias +\(3,\) +'bias' +0\n", text)

    def test_a_model_of_equinox(self) -> None:
        model = equinox.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
        arrays = equinox.filter(model, equinox.is_array)
        text = str(olm.preview(arrays, {"layers/0": 0.5}, b2={"bias": 0.9}))
        assert re.search(
            r"layers/0/bias +\(2,\) +'layers/0' +0\.5 +'bias' +0\.9\n", text
        )
        with pytest.raises(TypeError, match=r"equinox\.filter"):
            olm.preview(model)

    def test_what_a_mask_hides_has_no_line(self) -> None:
        params = {"a": jnp.ones(2), "b": optax.MaskedNode()}
        text = str(olm.preview(params, {"b": 0.5}))
        assert "b " not in text
        assert "note" not in text

    def test_other_names(self) -> None:
        labels = jax.tree.map(lambda _: "all", NET)
        text = str(olm.preview(NET, {"all": 3}, param_labels=labels))
        assert re.search(r"\nall +\(4,\) +'all' +3\n", text)

    def test_the_tables_are_those_of_the_transformations(self) -> None:
        with pytest.raises(ValueError, match=r"b2 of rule 'head' must be in"):
            olm.preview(NET, b2={"head": 1})
        with pytest.raises(ValueError, match=r"Rule 'hed' .* of weight_decay matches"):
            olm.preview(NET, weight_decay={"hed": 0.5})
        with pytest.raises(TypeError, match="The table multipliers must be"):
            olm.preview(NET, lambda name: 0.5)
        with pytest.raises(TypeError, match="The table labels must be"):
            olm.preview(NET, labels=lambda name: "adam")
        with pytest.warns(UserWarning, match="'hed'"):
            olm.preview(NET, {"hed": 0.5}, on_unmatched="warn")


class TestNotes:
    PARAMS = {f"layer_{i}": shapes(kernel=(2,)) for i in (1, 2, 10, 11)}

    def notes(self, table: Any, params: Any = None, **tables: Any) -> list[str]:
        return olm.preview(params or self.PARAMS, table, **tables).notes

    def test_stand_below_the_tables(self) -> None:
        text = str(olm.preview(self.PARAMS, {"layer_1": 2}))
        assert text.endswith(
            "\n\nnote: Rule 'layer_1' takes 'layer_10', 'layer_11' too: 'layer_1/' would not."
        )

    def test_a_rule_that_decides_nothing(self) -> None:
        table = [("kernel", 1), ("layer_10", 2), ("layer_2/", 3), ("", 4)]
        assert self.notes(table) == [
            "Rule 'layer_10' decides nothing, since all its names go to 'kernel'.",
            "Rule 'layer_2/' decides nothing, since all its names go to 'kernel'.",
            "Rule '' decides nothing, since all its names go to 'kernel'.",
        ]
        table = [("layer_1", 1), ("layer_2", 2), (olm.glob("**"), 2)]
        assert self.notes(table)[-1] == (
            "Rule glob '**' decides nothing, since all its names go to 'layer_1' and 'layer_2'."
        )

    def test_the_tables_of_one_parameter_table_have_one_note(self) -> None:
        adam, muon = {"labels": "adam", "b2": 0.9}, {"labels": "muon"}
        columns = olm.groups({"kernel": muon, "layer_2": adam, "": adam})
        assert [note[:26] for note in self.notes(None, **columns)] == [
            "Rule 'layer_2' decides not",
            "Rule '' decides nothing, s",
        ]

    def test_a_number_that_goes_on(self) -> None:
        assert self.notes({"layer_1/": 1, "layer_1": 2}) == [
            "Rule 'layer_1' takes 'layer_10', 'layer_11', but there is no 'layer_1'."
        ]
        params = shapes(w_1=(2,), w_12=(2,))
        assert self.notes({"w_1": 2}, params) == ["Rule 'w_1' takes 'w_12' too."]

    @pytest.mark.parametrize("text", ["layer_1/", "layer_", "layer_10", "layer_2"])
    def test_a_number_that_is_whole_is_no_mistake(self, text: str) -> None:
        assert self.notes({text: 2}) == []
        assert self.notes({olm.prefix("layer_1"): 2}) == []

    def test_a_head_that_is_tied(self) -> None:
        params = shapes(embed=(2,), block_0=(2,), block_1=(2,), norm=(2,))
        falls = {"embed": 0.125, "block_0": 0.25, "": 0.5}
        assert self.notes(falls, params) == [
            "Multipliers fall by the factor 0.5 from layer to layer, but none is 1. If the "
            "head is tied to the embedding, it learns as slowly as the embedding."
        ]
        stacked = {"embed": 0.125, "block": olm.per_layer([0.25, 0.5]), "norm": 0.5}
        params = shapes(embed=(2,), block=(2,), norm=(2,))
        assert len(self.notes(stacked, params)) == 1
        assert self.notes(stacked | {"norm": 1}, params) == []
        assert self.notes({"embed": 0.25, "": 0.5}, params) == []
        assert self.notes(stacked | {"block": 0.3}, params) == []


class TestColour:
    TABLE = {
        "block_2/bias": -1,
        "block_2": 0.5,
        "bias": 2,
        "head": Warmup(),
        "stack": olm.per_layer([0, 0, 0]),
    }
    CODES = {
        "block_2/bias": "31",  # negative, red
        "block_2/kernel": "36",  # slower, cyan
        "block_10/bias": "33",  # faster, yellow
        "head/kernel": "35",  # a schedule, magenta
        "stack/kernel": "2",  # frozen, faint
    }

    @staticmethod
    def in_terminal(preview: Any) -> str:
        """What `show` writes where its file is a terminal."""
        main, terminal = pty.openpty()
        with os.fdopen(main, "rb") as screen, os.fdopen(terminal, "w") as file:
            preview.show(file)
            print(end="\0", file=file, flush=True)
            text = b""
            while not text.endswith(b"\0"):  # It may come in pieces.
                text += screen.read1()
            return text.decode().replace("\r\n", "\n").removesuffix("\n\0")

    @pytest.fixture(autouse=True)
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("COLUMNS", "200")

    def test_is_by_multiplier_and_changes_nothing_else(self) -> None:
        preview = olm.preview(NET, self.TABLE)
        text = self.in_terminal(preview)
        for name, code in self.CODES.items():
            assert re.search(rf"^\033\[{code}m{name} .*\033\[0m$", text, re.MULTILINE)
        assert "\nblock_10/kernel " in text  # Without a rule it is 1, in no colour.
        assert text.startswith("\033[1mname ")
        assert re.sub(r"\033\[\d*m", "", text) == str(preview)

    @pytest.mark.parametrize(
        ("values", "code"),
        [([0, 0.5, 2], "35"), ([0.1, 0.5, 0.2], "36"), ([0.5, 1, 1], "36")],
    )
    def test_of_layers_is_theirs_if_they_agree(
        self, values: list[float], code: str
    ) -> None:
        text = self.in_terminal(olm.preview(NET, {"stack": olm.per_layer(values)}))
        assert f"\033[{code}mstack/kernel" in text

    def test_plain_if_the_user_wants_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        preview = olm.preview(NET, self.TABLE)
        monkeypatch.setenv("NO_COLOR", "1")
        assert self.in_terminal(preview) == str(preview)

    def test_plain_and_whole_in_a_pipe(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        preview = olm.preview(VIT, VIT_TABLE)
        preview.show()
        assert capsys.readouterr().out == f"{preview}\n"

    @pytest.mark.parametrize("columns", [90, 76, 40])
    def test_names_give_way_to_the_width(
        self, monkeypatch: pytest.MonkeyPatch, columns: int
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("NO_COLOR", "1")
        _, *others = self.in_terminal(olm.preview(VIT, VIT_TABLE)).splitlines()
        assert len(others[0]) <= max(columns, 69)
        assert others[0].startswith(
            {90: "block_{0..11}/attn/kernel ", 76: "block_{0..1…attn/kernel "}.get(
                columns, "block_{…/kernel "
            )
        )
        assert others[0].endswith("(64, 192)  prefix 'block_{0..11}'  0.03168 .. 0.75")

    def test_wide_names_give_way_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        monkeypatch.setenv("NO_COLOR", "1")
        params = shapes(**{"長い名前" * 5: (2,), "short": (2,)})
        text = self.in_terminal(olm.preview(params, {"short": 0.5}))
        _, short, wide, *_ = text.splitlines()
        assert wide.startswith("長い名…い名前  (2,)")
        assert short.startswith("short          (2,)")  # Of 13 columns, and 2 between.

    def test_a_page_has_the_same_text(self) -> None:
        params = shapes(**{"<script>": (2,), "a&b": (2,)})
        for preview in (
            olm.preview(NET, self.TABLE),
            olm.preview(params, {"<": -1, "a&": 0.5}),
        ):
            page = preview._repr_html_()
            assert re.fullmatch(r"<pre [^>]*>.*</pre>", page, re.DOTALL)
            assert html.unescape(re.sub(r"<[^>]*>", "", page)) == str(preview)
        assert "&lt;script&gt;" in page
        assert page.count("<span") == page.count("</span>") == 4


class TestData:
    TABLE = TABLE | {"stack": olm.per_layer([0, 0.5, Warmup()])}

    def test_dictionary(self) -> None:
        data = olm.preview(NET, self.TABLE, b2=0.9, labels={"head": "adam"}).to_dict()
        assert json.loads(json.dumps(data)) == data
        assert data["parameters"][0] == {
            "name": "block_2/bias",
            "shape": [4],
            "dtype": "float32",
            "size": 4,
            "labels": None,
            "labels_rule": None,
            "multipliers": 0.0,
            "multipliers_rule": "'bias'",
            "b2": 0.9,
            "b2_rule": "''",
        }
        found = {row["name"]: row["multipliers"] for row in data["parameters"]}
        assert found["block_10/kernel"] is None
        assert found["head/kernel"] == "Warmup(10)"
        assert found["stack/kernel"] == [0.0, 0.5, "Warmup(10)"]
        assert data["notes"] == []

    def test_csv(self, tmp_path: Path) -> None:
        preview = olm.preview(NET, self.TABLE, eps={"head": 1 / 3})
        text = preview.to_csv(tmp_path / "table.csv")
        assert (tmp_path / "table.csv").read_text(encoding="utf-8") == text
        rows = {row["name"]: row for row in csv.DictReader(io.StringIO(text))}
        assert len(rows) == 6
        assert rows["block_2/kernel"]["shape"] == "[4, 4]"
        assert float(rows["head/kernel"]["eps"]) == 1 / 3
        assert rows["block_10/kernel"]["multipliers_rule"] == ""
        assert olm.preview({}).to_csv() == "\n"
