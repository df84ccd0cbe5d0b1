"""What a parameter outside the blocks is, by the words in its name."""

import re
from typing import Literal

Path = tuple[str, ...]
Role = Literal["stem", "norm", "head"]

# Compiled by their first use, since most programs that import this have none for them.
_HEAD = r"heads?|logits?|classif\w*|pool\w*|pred\w*|unembed\w*|fc\d*"
_OUTPUT = r"out|outputs?"
_STEM = (
    r"\w*embed\w*|emb|patch\w*|pos|posemb|position\w*|tokens?|stem|root|init|initial|"
    r"inputs?|wte|wpe"
)
_NORM = r"\w*norm\w*|[lbg]n\d*"
_FIRST_CONVOLUTION = r"conv_?0|conv[12]|[bg]n1"
_STEM_OR_HEAD_MODULE = (
    r"(?s:.*_)?(?:heads?|classifier|stem|patch_embed(?:ding)?s?)(?:_\d+)?"
)
_CAMEL_CASE_HUMP = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"


def role_of(path: Path) -> Role:
    """The role of a parameter, said by the first segment that says any.

    Args:
      path: the segments of its name, without those it shares with the blocks.

    Returns:
      `"head"` if no segment says anything, as in timm, MAE and BEiT.
    """
    segments = [segment for segment in path if segment != "~"]
    if segments and re.fullmatch(_FIRST_CONVOLUTION, _snake_case(segments[0])):
        return "stem"
    for depth, segment in enumerate(segments, 1):
        if segment == "cls":  # A class token, or the module of BERT's predictions.
            return "stem" if depth == len(segments) else "head"
        role = role_of_segment(segment)
        if role:
            return role
    return "head"


def role_of_segment(segment: str) -> Role | None:
    """The role that the words of one segment say, or `None`."""
    words = re.split(r"[\W_]+", _snake_case(segment))

    def has(vocabulary: str) -> bool:
        return any(re.fullmatch(vocabulary, word) for word in words)

    if has(_NORM) and "pre" in words:  # In front of the head, or of the blocks.
        return "norm" if has(_HEAD) else "stem"
    if has(_HEAD):
        return "head"
    if has(_STEM) and not has(_OUTPUT):
        return "stem"
    if has(_NORM):
        return "norm"
    return "head" if has(_OUTPUT) else None


def belongs_to_stem_or_head(path: Path) -> bool:
    """True if numbers behind these segments count the layers of a stem or a head."""
    segments = map(_snake_case, path)
    return any(re.fullmatch(_STEM_OR_HEAD_MODULE, segment) for segment in segments)


def _snake_case(segment: str) -> str:
    return re.sub(_CAMEL_CASE_HUMP, "_", segment).lower()
