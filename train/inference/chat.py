"""
Talk to a checkpoint: a history, the terminal, one answer.

    > How many r are in strawberry?
    ... 'strawberry'.count('r') 3 ...          calls and what they gave in colour, or between <|python_start|> and its like

A history longer than the context loses its oldest turns, said once. What model and user write is data: it reaches the
terminal through `prep.screen` alone. Ctrl-C ends an answer, and what was said of it stays in the history; at the prompt it
ends the chat.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prep.screen import console
from prep.text import visible
from train.inference.generate import Reader, Sampling, fit_history
from train.inference.speaker import Speaker

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"text": "", "python": "cyan", "python_output": "green", "special": "dim"}
AROUND = {
    "python": ("<|python_start|>", "<|python_end|>"),
    "python_output": ("<|output_start|>", "<|output_end|>"),
}
HELP = "/clear forgets the conversation, /system TEXT begins one with a system message, /quit or Ctrl-D ends the chat"
LIMIT = "the answer reached its limit: --max-tokens, or the model's context"
ROOM_SHARE = 4  # of the context, a quarter is left for the answer, or max_tokens where that is less

Message = dict[str, Any]
Pieces = Generator[tuple[str, str], None, None]  # kind, text


@dataclass
class Chat:
    """A conversation with a speaker. `reader` has read the last answer: its parts, whether it ended, its problems."""

    speaker: Speaker
    sampling: Sampling
    max_tokens: int
    messages: list[Message] = field(default_factory=list)
    num_dropped: int = 0  # oldest turns that the last prompt had no room for
    reader: Reader | None = None

    def ask(self, question: str) -> Pieces:
        """The answer, piece by piece; it is in the history however far it came. ValueError: the question is too long."""
        return self.go_on([*self.messages, {"role": "user", "content": question}])

    def go_on(self, messages: list[Message]) -> Pieces:
        """The answer to a conversation that ends with the user's message, which becomes the history"""
        context = self.speaker.context
        room = min(self.max_tokens, context // ROOM_SHARE)
        prompt, self.num_dropped = fit_history(messages, self.speaker.tokenizer, context, room, self.speaker.template)
        self.reader = reader = Reader(prompt, self.speaker.tokenizer)
        # another turn, other chances
        sampling = replace(self.sampling, seed=self.sampling.seed + len(messages))
        try:
            for token in self.speaker.answer([prompt], self.max_tokens, sampling):
                yield from reader.read(token.id)
            yield from reader.finish()
        finally:
            self.messages = [*messages, {"role": "assistant", "content": reader.parts}]

    def clear(self, system: str | None = None) -> None:
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def result(self) -> dict[str, Any]:
        """The last answer for `--json`"""
        assert self.reader is not None
        text = "".join(part["text"] for part in self.reader.parts if part["type"] == "text")
        return {
            "answer": text,
            "parts": self.reader.parts,
            "ended": self.reader.ended,
            "problems": self.reader.problems,
            "checkpoint": str(self.speaker.root),
            "step": self.speaker.step,
        }


class Screen:
    """Where an answer is shown: in colour where the terminal has it, else with the names of the format's tokens."""

    def __init__(self) -> None:
        self.console: Console = console()
        self.plain = self.console.no_color or self.console.color_system is None
        self.kind = "text"
        self.last = ""  # character that was shown
        self.begun = False  # an answer, which a line end has to follow

    def show(self, kind: str, text: str) -> None:
        """A piece of an answer"""
        self.begun = True
        self.turn_to(kind)
        self.write(self.unlike_tokens(text) if self.plain and kind != "special" else text, kind)

    def turn_to(self, kind: str) -> None:
        """Close the part that is open and open another; with colour, a call and its answer have a sign between them"""
        if kind == self.kind:
            return
        if self.plain:
            self.write(AROUND.get(self.kind, ("", ""))[1] + AROUND.get(kind, ("", ""))[0])
        elif kind == "python_output":
            self.write(" = ", "special")
        self.kind, self.last = kind, ""

    def unlike_tokens(self, text: str) -> str:
        """A backslash in "<|", so that no text is taken for a token; its two characters may come one after the other"""
        shown = ("\\" if self.last == "<" and text.startswith("|") else "") + text.replace("<|", "<\\|")
        self.last = text[-1:] or self.last
        return shown

    def end(self) -> None:
        """After an answer, also one that was interrupted"""
        self.turn_to("text")
        self.write("\n" if self.begun else "")
        self.begun = False

    def write(self, text: str, kind: str = "text") -> None:
        from rich.text import Text

        # visible, as rich leaves out some control characters without a trace
        self.console.print(Text(visible(text), STYLES[kind]), end="")

    def say(self, line: str) -> None:
        """What is not said by the model"""
        self.write(f"({line})\n", "special")


def answer_once(chat: Chat, question: str, screen: Screen | None) -> None:
    """One answer, shown as it comes where there is a screen"""
    try:
        with closing(chat.ask(question)) as pieces:
            for kind, text in pieces:
                if screen is not None:
                    screen.show(kind, text)
    finally:
        if screen is not None:
            screen.end()


def talk(chat: Chat, screen: Screen, read: Callable[[str], str] = input) -> None:
    """Questions and answers, until the end of the input, /quit, or Ctrl-C at the prompt"""
    screen.say(f"{chat.speaker.root}, step {chat.speaker.step}; {HELP}")
    told = False
    with suppress(EOFError, KeyboardInterrupt), interruptible():
        while True:
            line = read("> ").strip()
            if line == "/quit":
                return
            if line.startswith("/"):
                screen.say(obey(chat, line))
            elif line:
                told = talk_once(chat, screen, line, told)
    screen.write("\n")


def talk_once(chat: Chat, screen: Screen, question: str, told: bool) -> bool:
    """One turn; whether it has been told that turns were left out"""
    try:
        answer_once(chat, question, screen)
    except KeyboardInterrupt:
        screen.say("interrupted")
    except ValueError as error:  # a question that is too long: the chat goes on
        screen.say(str(error))
        return told
    else:
        if chat.reader is not None and not chat.reader.ended:
            screen.say(LIMIT)
    if chat.num_dropped and not told:
        screen.say(
            f"the conversation is longer than the context of {chat.speaker.context:,} tokens: oldest turns left out"
        )
    return told or chat.num_dropped > 0


def obey(chat: Chat, line: str) -> str:
    """Run a command of the chat; what to say of it"""
    command, _, rest = line.partition(" ")
    if command == "/clear":
        system = [message["content"] for message in chat.messages if message["role"] == "system"]
        chat.clear(*system)
        return "cleared" + ("; the system message stays, /system without a text removes it" if system else "")
    if command == "/system":
        chat.clear(rest.strip() or None)
        return "a new conversation, " + (f"with the system message {rest.strip()!r}" if rest.strip() else "without one")
    return f"{command} is no command: {HELP}"


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block Ctrl-C raises KeyboardInterrupt, as often as it is pressed"""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
