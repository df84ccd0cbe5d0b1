"""A regular expression as its tokens: Python's own reader of them is private."""

import re

# A text, compiled when first used: an import is to be quick.
_TOKENS = (
    r"(?P<note>\(\?#[^)]*\)|\(\?[aiLmsux]+\))|(?P<open>\((?:\?(?:P<\w+>|<?[=!]|[aiLmsux-]*:))?)|"
    r"(?P<repeat>[*+?]\??|\{\d*,\d*\}\??|\{\d+\}\??)|(?P<close>\))|(?P<or>\|)|"
    r"(?P<anchor>[\^$]|\\[AbBZ])|"
    r"(?P<character>\\[xuU][0-9a-fA-F]+|\\N\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.)"
)


def tokens_of(text: str) -> list[tuple[str, str]]:
    """The kind and the text of each token; comments and flags are left out.

    Args:
      text: an expression that compiles, written without `re.VERBOSE`.

    Returns:
      Pairs whose kind is `open`, `close`, `or`, `repeat`, `anchor`, or `character`,
      which is a set, an escape, a dot, or a character itself.
    """
    found = (
        (match.lastgroup or "", match[0])
        for match in re.finditer(_TOKENS, text, re.DOTALL)
    )
    return [pair for pair in found if pair[0] != "note"]
