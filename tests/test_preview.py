"""The preview as golden text, and the notes on likely mistakes."""

import csv
import io
import json
import os
import pty
import re
import sys
from html.parser import HTMLParser
from typing import Any

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
    assert text.endswith(
        "note: Rule 'head' has the negative multiplier -1: its "
        "parameters climb the loss."
    )


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
    assert " /block_2/kernel|block_10...stack/kernel/ " in text


def test_an_empty_tree_has_a_preview() -> None:
    assert "all                          0   0.0%" in str(olm.preview({}, {}))


def test_function_rules_are_grouped_by_multiplier() -> None:
    def rate(name: str) -> float | None:
        return {"h": 2.0, "s": 0.5}.get(name[0])

    text = str(olm.preview(NET, rate))
    assert re.search(r"rate +2 +4,000", text)
    assert re.search(r"rate +0\.5 +24", text)


BLOCK = {"attn": {"qkv": shapes(kernel=(64, 192))}, "mlp": shapes(kernel=(64, 256))}
VIT = {f"encoderblock_{i}": BLOCK for i in range(12)} | {
    "embedding": shapes(kernel=(48, 64)),
    "head": shapes(kernel=(64, 10), bias=(10,)),
}
VIT_PREVIEW = olm.preview(VIT, {"bias": 0} + olm.layer_decay(0.75, VIT))


def test_a_model_of_twelve_blocks_at_110_columns() -> None:
    assert (
        VIT_PREVIEW.to_text(110)
        == """\
name                                  shape      rule                                  multiplier
embedding/kernel                      (48, 64)   prefix 'embedding'                     0.0237573
encoderblock_{0..11}/attn/qkv/kernel  (64, 192)  prefix 'encoderblock_{0..11}'  0.0316764 .. 0.75
encoderblock_{0..11}/mlp/kernel       (64, 256)  prefix 'encoderblock_{0..11}'  0.0316764 .. 0.75
head/bias                             (10,)      'bias'                                         0
head/kernel                           (64, 10)   prefix 'head'                                  1

rule                      multiplier  parameters   share
prefix 'embedding'         0.0237573       3,072    0.9%
prefix 'encoderblock_0'    0.0316764      28,672    8.2%
prefix 'encoderblock_1'    0.0422351      28,672    8.2%
prefix 'encoderblock_2'    0.0563135      28,672    8.2%
prefix 'encoderblock_3'    0.0750847      28,672    8.2%
prefix 'encoderblock_4'     0.100113      28,672    8.2%
prefix 'encoderblock_5'     0.133484      28,672    8.2%
prefix 'encoderblock_6'     0.177979      28,672    8.2%
prefix 'encoderblock_7'     0.237305      28,672    8.2%
prefix 'encoderblock_8'     0.316406      28,672    8.2%
prefix 'encoderblock_9'     0.421875      28,672    8.2%
prefix 'encoderblock_10'      0.5625      28,672    8.2%
prefix 'encoderblock_11'        0.75      28,672    8.2%
'bias'                             0          10    0.0%
prefix 'head'                      1         640    0.2%
all                                      347,786  100.0%
frozen                                        10    0.0%"""
    )


def test_a_model_of_twelve_blocks_at_72_columns() -> None:
    text = VIT_PREVIEW.to_text(72)
    assert (
        text.split("\n\n")[0]
        == """\
name                  shape      rule                         multiplier
embedding/kernel      (48, 64)   prefix 'embedding'            0.0237573
encoderb...kv/kernel  (64, 192)  prefix 'enc.....11}'  0.0316764 .. 0.75
encoderb...lp/kernel  (64, 256)  prefix 'enc.....11}'  0.0316764 .. 0.75
head/bias             (10,)      'bias'                                0
head/kernel           (64, 10)   prefix 'head'                         1"""
    )
    assert text.split("\n\n")[1] == VIT_PREVIEW.to_text(110).split("\n\n")[1]


def test_a_line_is_as_wide_as_asked_or_as_narrow_as_can_be_read() -> None:
    for width in range(72, 120, 4):
        assert max(map(len, VIT_PREVIEW.to_text(width).splitlines())) <= width
    assert VIT_PREVIEW.to_text(1) == VIT_PREVIEW.to_text(40)
    assert "0.0316764 .. 0.75" in VIT_PREVIEW.to_text(1)
    assert VIT_PREVIEW.to_text(1000) == str(VIT_PREVIEW)


def test_a_bare_array_and_a_name_without_segments_are_cut_too() -> None:
    text = olm.preview(shapes(**{"x" * 100: (2,)}), None).to_text(60)
    assert re.search(r"^x{16}\.\.\.x{16}  ", text, re.MULTILINE)
    assert "\n      ()     -  " in str(olm.preview(1.0, None))


class TestColour:
    TABLE = {
        "block_2/bias": -1,
        "block_2": 0.5,
        "bias": 2,
        "head": Warmup(),
        "stack": olm.per_layer([0, 0, 0]),
    }
    TONES = {
        "block_2/bias": "31",  # negative, red
        "block_2/kernel": "36",  # slower, cyan
        "block_10/bias": "33",  # faster, yellow
        "head/kernel": "35",  # a schedule, magenta
        "stack/kernel": "2",  # frozen, faint
    }

    def test_is_by_multiplier(self) -> None:
        text = olm.preview(NET, self.TABLE).to_text(colour=True)
        for name, code in self.TONES.items():
            assert re.search(rf"^\033\[{code}m{name} .*\033\[0m$", text, re.MULTILINE)
        assert "\nblock_10/kernel  (4, 4) " in text  # 1 has the terminal's own
        assert text.startswith("\033[1mname ")

    def test_adds_codes_and_changes_nothing_else(self) -> None:
        preview = olm.preview(NET, self.TABLE)
        for width in (60, None):
            coloured = preview.to_text(width, colour=True)
            assert re.sub(r"\033\[\d*m", "", coloured) == preview.to_text(width)

    def test_layers_of_different_tones_have_one_of_their_own(self) -> None:
        table = {"stack": olm.per_layer([0, 0.5, 2])}
        assert "\033[35mstack/kernel" in olm.preview(NET, table).to_text(colour=True)
        table = {"stack": olm.per_layer([0.1, 0.5, 0.2])}
        assert "\033[36mstack/kernel" in olm.preview(NET, table).to_text(colour=True)


class TestShow:
    @pytest.fixture(autouse=True)
    def plain_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "70")

    @staticmethod
    def in_terminal() -> str:
        """What `show` writes where standard output is a terminal."""
        main, terminal = pty.openpty()
        with os.fdopen(main, "rb") as screen, os.fdopen(terminal, "w") as file:
            olm.preview(NET, {"head": 0.5}).show(file)
            print(end="\0", file=file, flush=True)
            text = b""
            while not text.endswith(b"\0"):  # It may come in pieces.
                text += screen.read1()
            return text.decode().replace("\r\n", "\n").removesuffix("\0")

    def test_in_a_terminal_in_colour_and_at_its_width(self) -> None:
        expected = olm.preview(NET, {"head": 0.5}).to_text(70, colour=True)
        assert self.in_terminal() == f"{expected}\n"

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_plain_where_the_terminal_or_the_user_wants_none(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        assert "\033" not in self.in_terminal()

    def test_plain_and_whole_in_a_pipe(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        VIT_PREVIEW.show()
        assert capsys.readouterr().out == f"{VIT_PREVIEW}\n"
        monkeypatch.setenv("FORCE_COLOR", "1")
        VIT_PREVIEW.show()
        assert capsys.readouterr().out == f"{VIT_PREVIEW.to_text(colour=True)}\n"

    def test_str_and_repr_are_plain_also_in_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert str(VIT_PREVIEW) == repr(VIT_PREVIEW) == VIT_PREVIEW.to_text()


class TestData:
    TABLE = {
        "bias": 0,
        re.compile("block_2/.*"): 0.1,
        "head": Warmup(),
        "stack": olm.per_layer([0, 0.5, Warmup()]),
    }

    def test_dictionary(self) -> None:
        data = olm.preview(NET, self.TABLE).to_dict()
        assert json.loads(json.dumps(data)) == data
        assert data["parameters"][0] == {
            "name": "block_2/bias",
            "shape": [4],
            "dtype": "float32",
            "size": 4,
            "rule": "'bias'",
            "multiplier": 0.0,
        }
        by_name = {row["name"]: row for row in data["parameters"]}
        assert by_name["block_10/kernel"]["rule"] is None
        assert by_name["head/kernel"]["multiplier"] == "Warmup(10)"
        assert by_name["stack/kernel"]["multiplier"] == [0.0, 0.5, "Warmup(10)"]
        assert (data["total"], data["frozen"], data["notes"]) == (4064, 16, [])

    def test_notes_and_traced_values(self) -> None:
        found = []
        jax.jit(lambda m: found.append(olm.preview(NET, {"hed": m}).to_dict()) or m)(
            1.0
        )
        assert "matches none" in found[0]["notes"][0]
        jax.jit(lambda m: found.append(olm.preview(NET, {"head": m}).to_dict()) or m)(
            1.0
        )
        rows = {row["name"]: row for row in found[1]["parameters"]}
        assert json.dumps(rows["head/kernel"]["multiplier"]) == '"traced float32"'

    def test_csv(self) -> None:
        text = olm.preview(NET, self.TABLE | {"block_1": 0.1}).to_csv()
        assert text.splitlines()[:2] == [
            "name,shape,dtype,size,rule,multiplier",
            "block_2/bias,4,float32,4,'bias',0.0",
        ]
        rows = {row["name"]: row for row in csv.DictReader(io.StringIO(text))}
        assert rows["block_2/kernel"]["shape"] == "4x4"
        assert rows["stack/kernel"]["multiplier"] == "per_layer([0, 0.5, Warmup(10)])"
        assert len(rows) == 6

    def test_csv_has_the_whole_number_and_no_text_without_a_rule(self) -> None:
        text = olm.preview(shapes(a=(2,), b=()), {"a": 1 / 3}).to_csv()
        assert text.splitlines()[1:] == [
            "a,2,float32,2,'a',0.3333333333333333",
            "b,,float32,1,,1.0",
        ]


class Page(HTMLParser):
    """Tags in their order, with what stands in the cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.rows = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.open.append(tag)
        self.tags.append((tag, dict(attrs).get("class")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


class TestHtml:
    def test_has_the_cells_of_the_text(self) -> None:
        page = Page(VIT_PREVIEW._repr_html_())
        assert page.open == []
        texts = [" ".join(" ".join(row).split()) for row in page.rows]
        lines = [" ".join(line.split()) for line in str(VIT_PREVIEW).splitlines()]
        assert texts == [line for line in lines if line and line[:5] != "note:"]
        tones = [name for tag, name in page.tags if tag == "tr" and name]
        assert tones[:3] == ["slower", "slower", "slower"]
        assert tones.count("frozen") == 2
        assert tones[-2:] == ["sum", "sum"]

    def test_escapes(self) -> None:
        params = shapes(**{"<script>alert(1)</script>": (2,), "a&b": (2,)})
        html = olm.preview(params, {"<": -1, re.compile("a&.*"): 2})._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)" in html
        assert "/a&amp;.*/" in html
        assert "note: Rule &#x27;&lt;&#x27; has the negative" in html

    @pytest.mark.parametrize(
        "theme",
        [
            "@media (prefers-color-scheme:dark)",
            "[data-jp-theme-light=false] .optax-lrmult",
            "[data-jp-theme-light=true] .optax-lrmult",
            "[theme=dark] .optax-lrmult",
            ".vscode-dark .optax-lrmult",
            ".vscode-light .optax-lrmult",
        ],
    )
    def test_knows_the_themes_and_loads_nothing(self, theme: str) -> None:
        html = VIT_PREVIEW._repr_html_()
        assert theme in html
        assert not re.search("https?:|url\\(|@import|src=", html)

    def test_a_notebook_that_says_its_theme_comes_after_the_system(self) -> None:
        html = VIT_PREVIEW._repr_html_()
        order = ["{--frozen:#767676", "prefers-color-scheme", "=true]", "=false]"]
        assert sorted(order, key=html.index) == order

    def test_colours_can_be_read_on_both_themes(self) -> None:
        html = VIT_PREVIEW._repr_html_()
        light, dark = re.findall(r"\{(--frozen[^}]+)", html)[:2]
        for colours, ground in ((light, "#ffffff"), (dark, "#1e1e1e")):
            for colour in re.findall(r"#\w{6}", colours):
                assert contrast(colour, ground) >= 4.5


def contrast(colour: str, ground: str) -> float:
    """The ratio of WCAG 2."""
    first, second = sorted(map(luminance, (colour, ground)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_no_parameters_are_said_to_be_none() -> None:
    text = str(olm.preview({}, {"stem": 0.1, "head": 1}))
    assert text.endswith("note: There are no parameters for the rules to match.")
