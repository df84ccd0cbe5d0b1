"""The preview as HTML, for the light and the dark theme of a notebook."""

from collections.abc import Sequence
from html import escape

from optax_lrmult._rows import Row, Section

# Text has the notebook's own colour; what a multiplier does has one for each theme. A
# notebook that says which theme it has comes before the wish of the system.
_TONES = ("frozen", "slower", "faster", "negative", "varying")
_LIGHT = ("#767676", "#00629b", "#8a5100", "#b3261e", "#8a3a8f")
_DARK = ("#9a9a9a", "#6cc4ff", "#f0b35a", "#ff8a80", "#e3a0e8")
_DARK_THEMES = (
    "[data-jp-theme-light=false]",
    "[data-theme=dark]",
    "[theme=dark]",
    ".vscode-dark",
    ".vscode-high-contrast:not(.vscode-high-contrast-light)",
)
_LIGHT_THEMES = (
    "[data-jp-theme-light=true]",
    "[data-theme=light]",
    "[theme=light]",
    ".vscode-light",
    ".vscode-high-contrast-light",
)


def _variables(colours: Sequence[str]) -> str:
    pairs = zip(_TONES, colours, strict=True)
    return ";".join(f"--{tone}:{colour}" for tone, colour in pairs)


def _below(themes: Sequence[str]) -> str:
    return ",".join(f"{theme} .optax-lrmult" for theme in themes)


# The class stands twice where JupyterLab's own style would win.
_STYLE = f"""\
.optax-lrmult{{{_variables(_LIGHT)};color:inherit;font-size:13px}}
@media (prefers-color-scheme:dark){{.optax-lrmult{{{_variables(_DARK)}}}}}
{_below(_LIGHT_THEMES)}{{{_variables(_LIGHT)}}}
{_below(_DARK_THEMES)}{{{_variables(_DARK)}}}
.optax-lrmult div{{overflow:auto;margin-bottom:1em}}
.optax-lrmult div:first-of-type{{max-height:36em}}
.optax-lrmult table{{border-collapse:collapse;font:inherit;margin:0}}
.optax-lrmult tr{{background:none}}
.optax-lrmult :is(th,td){{padding:.2em 1.4em .2em 0;\
white-space:nowrap;border:0;color:inherit}}
.optax-lrmult th{{border-bottom:1px solid;font-weight:600}}
.optax-lrmult td{{font-family:ui-monospace,Menlo,Consolas,monospace}}
.optax-lrmult td.rule{{max-width:28ch;overflow:hidden;text-overflow:ellipsis}}
.optax-lrmult.optax-lrmult :is(th,td){{text-align:left}}
.optax-lrmult.optax-lrmult .right{{text-align:right}}
.optax-lrmult .sum td{{opacity:.7}}
.optax-lrmult p{{margin:.4em 0;color:var(--faster)}}"""


def as_html(sections: Sequence[Section], notes: Sequence[str]) -> str:
    """A table for each section, and a paragraph for each note."""
    colours = "\n".join(
        f".optax-lrmult .{tone} :is(td:first-child,.multiplier){{color:var(--{tone})}}"
        for tone in _TONES
    )
    tables = "".join(map(_table, sections))
    paragraphs = "".join(f"<p>note: {escape(note)}</p>" for note in notes)
    style = f"<style>{_STYLE}\n{colours}</style>"
    return f'<div class="optax-lrmult">{style}{tables}{paragraphs}</div>'


def _table(section: Section) -> str:
    head = f"<thead><tr>{_cells('th', section, section.header)}</tr></thead>"
    rows = "".join(_row(section, row) for row in section.rows)
    return f"<div><table>{head}<tbody>{rows}</tbody></table></div>"


def _row(section: Section, row: Row) -> str:
    return f'<tr class="{row.tone or "sum"}">{_cells("td", section, row.cells)}</tr>'


def _cells(tag: str, section: Section, cells: Sequence[str]) -> str:
    columns = zip(section.header, section.alignment, cells, strict=True)
    return "".join(
        f'<{tag} class="{name}{" right" if how == ">" else ""}">{escape(cell)}</{tag}>'
        for name, how, cell in columns
    )
