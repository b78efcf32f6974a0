"""
Text for people: counts, sizes and times in short, bars, similar names, one-line errors, control characters made visible.
"""

import difflib
import unicodedata
from collections.abc import Iterable

BARS = " ▁▂▃▄▅▆▇█"
SHOWN_CHARACTERS = 500  # of a source row that is shown
KEPT = "\n\t\u200c\u200d\u00ad"  # line ends, tabs; joiners are part of words and emoji in many scripts
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of Unicode that move things or show nothing


def short(number: int) -> str:
    """
    A count; --json has every digit.

    >>> short(7473), short(24877580)
    ('7,473', '24.88M')
    """
    for divisor, unit in ((10**9, "B"), (10**6, "M")):
        if number >= divisor:
            return f"{number / divisor:,.2f}{unit}"
    return f"{number:,}"


def size(num_bytes: float) -> str:
    """
    >>> size(900), size(1536)
    ('900 B', '1.5 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} TiB"


def duration(hours: float) -> str:
    """
    >>> duration(0.01), duration(0.5), duration(12.34)
    ('36 s', '30.0 min', '12.3 h')
    """
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:,.1f} h"


def clock(seconds: float) -> str:
    """
    >>> clock(7), clock(3725)
    ('0:07', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bars(heights: Iterable[float]) -> str:
    """
    Heights of 0 to 1 as a line of bars: 0 is blank, anything above it shows.

    >>> bars([0, 0.01, 0.5, 1])
    ' ▁▄█'
    """
    return "".join(BARS[max(1, round(8 * height))] if height > 0 else BARS[0] for height in heights)


def visible(text: str) -> str:
    r"""
    Text in which no character drives a terminal: control, invisible and direction-changing ones become escapes.

    >>> visible("a\x1b[31mb\r\n")
    'a\\x1b[31mb\\x0d\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def is_hidden(char: str) -> bool:
    """Whether a character drives a terminal, changes the direction of text, or shows nothing"""
    return char not in KEPT and unicodedata.category(char) in HIDDEN


def _visible(char: str) -> str:
    if not is_hidden(char):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for a name that is close to a known one, else ''"""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def with_culprit(reason: str, culprit: str) -> str:
    """
    >>> with_culprit("unknown role", "'Bot'"), with_culprit("missing field", "no 'role'"), with_culprit("duplicate", "")
    ("unknown role 'Bot'", "missing field: no 'role'", 'duplicate')
    """
    return f"{reason}{'' if culprit[:1] in ('', chr(39)) else ':'} {culprit}".rstrip()


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else text + "."
