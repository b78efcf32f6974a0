"""
Conversations as text for a terminal: coloured, or with brackets where there is no colour.

    colour    trained green, context plain, special tokens cyan, padding dim
    plain     <|assistant_start|>[[4<|assistant_end|>]]     [[ ... ]] is trained, <| ... |> is a special token

Data is shown and never obeyed: control characters, terminal escapes, invisible and direction-changing characters are
written as \\x1b or \\u202e, and no text is parsed as markup. In plain text "[[", "]]" and "<|" of the data get a backslash,
so that brackets mean what they say.
"""

import re
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from prep.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES = {"trained": "bold green", "context": "", "special": "cyan", "special trained": "bold cyan"}
LEGEND_COLOUR = [
    ("trained", STYLES["trained"]), ("context", ""), ("special token", "cyan"), ("padding", "dim"),
]  # fmt: skip
# before a "[" or "]" of the data that could be taken for one of ours, and inside its "<|"
LOOKALIKE = re.compile(r"(?<![^\[])(?=\[)|(?=\](?:\]|\Z))|(?<=<)(?=\|)")
LEGEND_PLAIN = "[[trained]]  context  <|special token|>"


def plain(segments: list[dict[str, Any]]) -> str:
    r"""
    >>> plain([{"text": "2+2?", "special": False, "trained": False}, {"text": "[[4]]", "special": False, "trained": True}])
    '2+2?[[\\[\\[4\\]\\]]]'
    """
    out, trained = list[str](), False
    for segment in segments:
        if segment["trained"] != trained:
            trained = segment["trained"]
            out.append("[[" if trained else "]]")
        text = visible(segment["text"])
        out.append(text if segment["special"] else LOOKALIKE.sub(r"\\", text))
    return "".join(out) + ("]]" if trained else "")


def coloured(segments: list[dict[str, Any]], found: str | None = None) -> "Text":
    """Segments as styled text; every `found` in it stands out."""
    from rich.text import Text

    text = Text()
    for segment in segments:
        kind = "special" if segment["special"] else "context"
        trained = "special trained" if segment["special"] else "trained"
        text.append(visible(segment["text"]), STYLES[trained if segment["trained"] else kind])
    if found:
        text.highlight_regex(re.escape(visible(found)), "reverse")
    return text


def header(shown: dict[str, Any]) -> str:
    """
    The line over a conversation:

        conversation 17  gsm8k row 5,321  |  row 12, position 0  |  184 tokens, 104 trained (57%)
    """
    copy = f" copy {shown['repeat'] + 1}" if shown["repeat"] else ""
    end = f" to row {shown['row'] + shown['rows'] - 1:,}" if shown["rows"] > 1 else ""
    return (
        f"conversation {shown['conversation']:,}  {visible(shown['source'])} row {shown['index']:,}{copy}  |  "
        f"row {shown['row']:,}, position {shown['position']:,}{end}  |  {shown['length']:,} tokens, "
        f"{shown['trainable']:,} trained ({shown['trained_share']:.0%})"
    )


def row_header(row: dict[str, Any]) -> str:
    return (
        f"row {row['row']:,}  {row['num_documents']} conversations  |  {row['num_tokens']:,} tokens, "
        f"{row['num_padding']:,} padding  |  targets: {row['num_targets']:,} mid, {row['num_trainable']:,} sft"
    )


def step_lines(shown: dict[str, Any]) -> Iterator[str]:
    """A step: what it is, then one line a row of it"""
    tokens = f"{shown['total_batch_size']:,} tokens"
    yield (
        f"step {shown['step']} of {shown['num_steps']} ({shown['mode']}, epoch {shown['epoch']})  |  "
        f"{shown['rows_per_step']} rows, {tokens}, {shown['targets']:,} targets  |  "
        f"learning rate x {shown['lr_multiplier']:.4g}"
    )
    if shown["fillers"]:
        yield f"{shown['fillers']} rows of it have no targets: the last step is filled up"
    yield (
        f"{shown['world_size']} ranks x {shown['device_batch_size']} rows x {shown['accumulation']} micro-batches "
        f"(--world-size, --device-batch-size)"
    )
    yield f"{'rank':>4} {'micro':>5} {'row':>9} {'tokens':>7} {'targets':>8} {'padding':>8}  sources"
    for row in shown["rows"]:
        where = f"{row['rank']:>4} {row['micro_batch']:>5}"
        if "num_tokens" not in row:
            yield f"{where} {'-':>9} {0:>7} {0:>8} {'':>8}  (no row: fills up the step)"
            continue
        sources = ", ".join(f"{visible(name)} {number}" for name, number in row["sources"].items())
        yield (
            f"{where} {row['row']:>9,} {row['num_tokens']:>7,} {row['targets']:>8,} {row['num_padding']:>8,}  {sources}"
        )


def make_console(width: int) -> "Console":
    """Standard output, at least `width` wide; what a terminal has no character for is a question mark"""
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.width = max(console.width, width)
    return console


def make_table(*columns: str, left: int = 1) -> "Table":
    """A table whose first `left` columns are words, the others numbers"""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


class Printer:
    """Prints what `prep.inspect.show` gives: in colour where the terminal has it, else in brackets."""

    def __init__(self, want_plain: bool) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.plain = want_plain or self.console.no_color or self.console.color_system is None
        self.legend_due = True

    def say(self, line: str, style: str = "") -> None:
        """A line of ours"""
        if self.plain:
            print(line)
        else:
            from rich.text import Text

            self.console.print(Text(line, style))

    def conversation(self, shown: dict[str, Any], found: str | None = None) -> None:
        self.legend()
        self.say(header(shown), "bold")
        self._segments(shown["segments"], found)
        if "origin" in shown:
            self.say("source row as it came:", "bold")
            self.say(visible(shown["origin"]))
        self.say("")

    def tried(self, shown: dict[str, Any]) -> None:
        """A row of a file that is looked at before a build"""
        if "rejected" in shown:
            self.say(f"row {shown['row']}: rejected, {shown['rejected']}: {visible(shown['content'])}", "bold red")
            self.say("")
            return
        self.legend()
        share = f"{shown['trainable']:,} trained ({shown['trained_share']:.0%})"
        self.say(f"row {shown['row']}  |  {shown['length']:,} tokens, {share}", "bold")
        self._segments(shown["segments"])
        self.say("")

    def _segments(self, segments: list[dict[str, Any]], found: str | None = None) -> None:
        if self.plain:
            print(plain(segments))
        else:
            self.console.print(coloured(segments, found))

    def row(self, shown: dict[str, Any]) -> None:
        self.legend()
        self.say(row_header(shown), "bold")
        self.say("")
        for document in shown["documents"]:
            self.conversation(document)
        if shown["num_padding"]:
            self.say(f"padding: {shown['num_padding']:,} tokens, never a target", "dim")

    def step(self, shown: dict[str, Any]) -> None:
        lines = step_lines(shown)
        self.say(next(lines), "bold")
        for line in lines:
            self.say(line)

    def legend(self) -> None:
        if not self.legend_due:
            return
        self.legend_due = False
        if self.plain:
            print(LEGEND_PLAIN)
            return
        from rich.text import Text

        self.console.print(Text("  ").join(Text(word, style) for word, style in LEGEND_COLOUR))
