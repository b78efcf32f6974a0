r"""
Split patterns translated between the regex engines of tiktoken and Hugging Face's tokenizers, where both can mean the same.

    tiktoken (fancy-regex)     tokenizers (Oniguruma)
    \p{N}{1,3}+                (?>\p{N}{1,3})         a possessive interval; there it would mean (\p{N}{1,3})+
    \s++$                      \s++\z                 the end of the text; there $ is the end of any line
    [^\r\n\p{L}]?+\p{L}++      the same

A pattern made of what _TOKEN lists, and nothing else, splits any text alike in both: each class and escape was compared over
all 1,112,064 code points (tests/tokenizer/test_huggingface.py). The rest (\w, look-behind, back references, set operations)
is refused, and so is a fold such as (?i:ss), which in Oniguruma matches the ß of "groß".
"""

import re
from typing import Final

_CATEGORIES = (
    "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Co Cn "
    "Han Hiragana Katakana Latin"
)
_ESCAPE = rf"\\[pP]\{{(?:{_CATEGORIES.replace(' ', '|')})\}}|\\[sSdrnt]|\\[!-/:-@\[-`{{-~]"
_LITERAL = r"[^\\\[\]^&~-]"
_CLASS = rf"\[\^?(?:{_ESCAPE}|{_LITERAL}(?:-{_LITERAL})?)+\]"
_FOLD = r"\(\?i:[a-z'|\[\]]*\)"
_ATOM = rf"{_ESCAPE}|{_CLASS}|{_FOLD}|[^\\\[\](){{}}|?*+.^$]"
_INTERVAL = r"\{\d+(?:,\d*)?\}"

_TOKEN: Final = re.compile(
    rf"(?P<atomic>\(\?>(?P<body>(?:{_ATOM}){_INTERVAL})\))|(?P<atom>{_ATOM})|(?P<open>\((?:\?[:!=])?)|(?P<close>\))"
    rf"|(?P<bar>\|)|(?P<interval>{_INTERVAL})(?P<possessive>\+?)|(?P<many>[?*+]\+?)|(?P<end>\$)|(?P<last>\\z)"
)
_WIDE_FOLD: Final = re.compile(r"ss|st|f[fil]")  # two letters that are one after case folding: ß, ﬆ, ﬀ, ﬁ, ﬂ


def to_oniguruma(pattern: str) -> str:
    r"""
    The pattern of the same meaning for Hugging Face. ValueError names a part that has none.

    >>> to_oniguruma(r"\p{N}{1,3}+| ?\p{L}++|\s++$|\s")
    '(?>\\p{N}{1,3})| ?\\p{L}++|\\s++\\z|\\s'
    """
    out: list[str] = []
    for kind, token in _scan(pattern):
        if kind == "interval" and token.endswith("+"):
            out[-1] = f"(?>{out[-1]}{token[:-1]})"
        elif kind in ("atomic", "last"):
            raise _refused(pattern, token)
        else:
            out.append(r"\z" if kind == "end" else token)
    return "".join(out)


def from_oniguruma(pattern: str) -> str:
    r"""
    The pattern of the same meaning for tiktoken; undoes `to_oniguruma`. ValueError names a part that has none.

    >>> from_oniguruma(r"(?>\p{N}{1,3})|\s++\z")
    '\\p{N}{1,3}+|\\s++$'
    """
    out: list[str] = []
    for kind, token in _scan(pattern):
        if kind == "atomic":
            out.append(token[len("(?>") : -1] + "+")
        elif kind == "end" or (kind == "interval" and token.endswith("+")):
            raise _refused(pattern, token)
        else:
            out.append("$" if kind == "last" else token)
    return "".join(out)


def _scan(pattern: str) -> list[tuple[str, str]]:
    """(kind, token) of each piece of the pattern. ValueError names the first that is not known to mean the same."""
    tokens: list[tuple[str, str]] = []
    position, before = 0, ""
    while position < len(pattern):
        match = _TOKEN.match(pattern, position)
        kind = str(match.lastgroup) if match else ""
        kind = {"possessive": "interval", "body": "atomic"}.get(kind, kind)
        if match is None or (kind == "atom" and match[0].startswith("(?i:") and _WIDE_FOLD.search(match[0])):
            raise _refused(pattern, pattern[position : position + 12])
        possessive_group = kind == "interval" and match["possessive"] and before != "atom"
        repeats_nothing = kind in ("interval", "many") and before not in ("atom", "close")
        if repeats_nothing or possessive_group:
            raise _refused(pattern, pattern[max(0, position - 6) : match.end()])
        tokens.append((kind, match[0]))
        position, before = match.end(), kind
    return tokens


def _refused(pattern: str, token: str) -> ValueError:
    return ValueError(
        f"{token!r} in the pattern {pattern!r:.60} is not known to mean the same to tiktoken and to Hugging Face: "
        "use a .tiktoken file with --pattern"
    )
