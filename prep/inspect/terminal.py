"""
Conversations as text for a terminal: coloured, or with brackets where there is no colour; tables.

    colour    loss tokens green, context plain, special tokens cyan, padding dim
    plain     <|assistant_start|>[[4<|assistant_end|>]]     [[ ... ]] are loss tokens, <| ... |> is a special token

Data is shown and never obeyed: control characters, terminal escapes, invisible and direction-changing characters are
written as \\x1b or \\u202e, and no text is parsed as markup. In plain text "[[", "]]" and "<|" of the data get a backslash,
so that brackets keep their meaning.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prep.inspect.show import RowCounts, Segment, ShownConversation, ShownRow
from prep.screen import console
from prep.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES = {(False, False): "", (False, True): "bold green", (True, False): "cyan", (True, True): "bold cyan"}
LEGEND_COLOUR = [("loss tokens", "bold green"), ("context", ""), ("special token", "cyan"), ("padding", "dim")]
LEGEND_PLAIN = "[[loss tokens]]  context  <|special token|>"
# before a "[" or "]" of the data that could be taken for one of the brackets, and inside its "<|"
LOOKALIKE = re.compile(r"(?<![^\[])(?=\[)|(?=\](?:\]|\Z))|(?<=<)(?=\|)")


def make_console(width: int) -> "Console":
    """Standard output, at least `width` wide"""
    made = console()
    made.width = max(made.width, width)
    return made


def make_table(*columns: str, left: int = 1, name_width: int | None = None) -> "Table":
    """
    A table whose first `left` columns are words, the others numbers. What is longer than `name_width` in the first one goes on
    in the next line.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        folds = name_width is not None and number == 0
        table.add_column(
            column,
            justify="left" if number < left else "right",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
            max_width=name_width if folds else None,
        )
    return table


# ---- conversations ----


def plain(segments: list[Segment]) -> str:
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


def coloured(segments: list[Segment], highlight: str | None = None) -> "Text":
    """Segments as styled text, with every `highlight` in it reversed"""
    from rich.text import Text

    text = Text()
    for segment in segments:
        text.append(visible(segment["text"]), STYLES[segment["special"], segment["trained"]])
    if highlight:
        text.highlight_regex(re.escape(visible(highlight)), "reverse")
    return text


def loss_share(trainable: int, share: float) -> str:
    return f"{trainable:,} loss tokens ({share:.0%})"


def header(shown: ShownConversation) -> str:
    """
    The line over a conversation:

        conversation 17  gsm8k row 5,321  |  row 12, position 0  |  184 tokens, 104 loss tokens (57%)
    """
    copy = f" copy {shown['repeat'] + 1}" if shown["repeat"] else ""
    end = f" to row {shown['row'] + shown['rows'] - 1:,}" if shown["rows"] > 1 else ""
    return (
        f"conversation {shown['conversation']:,}  {visible(shown['source'])} row {shown['index']:,}{copy}  |  "
        f"row {shown['row']:,}, position {shown['position']:,}{end}  |  "
        f"{shown['length']:,} tokens, {loss_share(shown['trainable'], shown['trained_share'])}"
    )


def row_header(row: RowCounts) -> str:
    return (
        f"row {row['row']:,}  {row['num_documents']} conversations  |  {row['num_tokens']:,} tokens, "
        f"{row['num_padding']:,} padding  |  targets: {row['num_targets']:,} mid, {row['num_trainable']:,} sft"
    )


def step_lines(shown: dict[str, Any]) -> Iterator[str]:
    """A step: what it is, then a line for each row of it"""
    yield (
        f"step {shown['step']} of {shown['num_steps']} ({shown['mode']}, epoch {shown['epoch']})  |  "
        f"{shown['rows_per_step']} rows, {shown['total_batch_size']:,} tokens, {shown['targets']:,} targets  |  "
        f"learning rate x {shown['lr_multiplier']:.4g}"
    )
    if shown["fillers"]:
        yield f"{shown['fillers']} of its rows have no targets: they fill up the last step"
    yield (
        f"{shown['world_size']} ranks x {shown['device_batch_size']} rows x {shown['accumulation']} micro-batches "
        "(--world-size, --device-batch-size)"
    )
    yield f"{'rank':>4} {'micro':>5} {'row':>9} {'tokens':>7} {'targets':>8} {'padding':>8}  sources"
    for row in shown["rows"]:
        place = f"{row['rank']:>4} {row['micro_batch']:>5}"
        if "num_tokens" not in row:
            yield f"{place} {'-':>9} {0:>7} {0:>8} {'':>8}  (no row: fills up the step)"
            continue
        sources = ", ".join(f"{visible(name)} {number}" for name, number in row["sources"].items())
        counts = f"{row['row']:>9,} {row['num_tokens']:>7,} {row['targets']:>8,} {row['num_padding']:>8,}"
        yield f"{place} {counts}  {sources}"


class Printer:
    """Prints the values of prep.inspect.show: in colour where the terminal has it, else in brackets."""

    def __init__(self, want_plain: bool) -> None:
        self.console = make_console(0)
        self.plain = want_plain or self.console.no_color or self.console.color_system is None
        self.legend_due = True

    def say(self, line: str, style: str = "") -> None:
        """A line that is not data"""
        if self.plain:
            print(line)
        else:
            self.console.print(line, style=style)

    def conversation(self, shown: ShownConversation, highlight: str | None = None) -> None:
        self.say_legend()
        self.say(header(shown), "bold")
        self.say_segments(shown["segments"], highlight)
        if "origin" in shown:
            self.say("source row, unchanged:", "bold")
            self.say(visible(shown["origin"]))
        self.say("")

    def say_segments(self, segments: list[Segment], highlight: str | None = None) -> None:
        if self.plain:
            print(plain(segments))
        else:
            self.console.print(coloured(segments, highlight))

    def row(self, shown: ShownRow) -> None:
        self.say_legend()
        self.say(row_header(shown), "bold")
        self.say("")
        for document in shown["documents"]:
            self.conversation(document)
        if shown["num_padding"]:
            self.say(f"padding: {shown['num_padding']:,} tokens, never a target", "dim")

    def step(self, shown: dict[str, Any]) -> None:
        for number, line in enumerate(step_lines(shown)):
            self.say(line, "" if number else "bold")

    def example(self, shown: dict[str, Any]) -> None:
        """A source row of a file that is previewed before a build"""
        if "rejected" in shown:
            content = f": {visible(shown['content'])}" if shown["content"] else ""
            self.say(f"row {shown['row']}: rejected, {shown['rejected']}{content}", "bold red")
        else:
            self.say_legend()
            share = loss_share(shown["trainable"], shown["trained_share"])
            self.say(f"row {shown['row']}  |  {shown['length']:,} tokens, {share}", "bold")
            self.say_segments(shown["segments"])
        self.say("")

    def say_legend(self) -> None:
        if self.legend_due and self.plain:
            print(LEGEND_PLAIN)
        elif self.legend_due:
            from rich.text import Text

            self.console.print(Text("  ").join(Text(word, style) for word, style in LEGEND_COLOUR))
        self.legend_due = False
