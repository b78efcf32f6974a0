"""
Which chat template a build has: by name, by what options and a mixture say, by what a manifest notes.

    --chat-template qwen3          a table of prep.chat.tables
    --chat-template FILE           a Jinja template; a stock one that is known by its sha256 is a table
    --chat-template tokenizer      the template that lies beside the tokenizer
    (nothing)                      the mixture's chat_template, else nanochat

A tokenizer that lacks a control of the format is refused: its ids would stand behind the vocabulary of its model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prep.chat.format import ChatFormat
from prep.chat.tables import FORMATS, NANOCHAT
from prep.chat.template import ChatTemplate
from prep.jinja.format import JinjaFormat, JinjaTemplate, known_format
from prep.text import nearest
from prep.tokenizer.tokenizer import Tokenizer

AnyTemplate = ChatTemplate | JinjaTemplate
TEMPLATE_FILE: Final = "chat_template.jinja"  # of a build by a Jinja template
KEYS: Final[tuple[str, ...]] = (
    "chat_template",
    "mask",
    "empty_think",
    "chat_date",
    "train_on",
)  # of a mixture, and options


def choose_template(keys: Mapping[str, Any], tokenizer: Tokenizer) -> AnyTemplate:
    """The template that `keys` say, for a tokenizer that has its controls. ValueError, in one line, where there is none."""
    given = {key: value for key in KEYS if (value := keys.get(key)) is not None}
    form = find_format(given.get("chat_template", NANOCHAT.name), tokenizer, given.get("chat_date", ""))
    train_on = given.get("train_on")
    chosen = tuple(train_on) if isinstance(train_on, list) else train_on
    if isinstance(form, JinjaFormat):
        if "empty_think" in given:
            raise ValueError(
                "--empty-think has no effect with a Jinja template, which writes what it writes: leave it out."
            )
        return JinjaTemplate(form, given.get("mask", "format"), chosen)
    check_controls(form, tokenizer)
    if "empty_think" in given and form.reasoning is None:
        raise ValueError(
            f"--empty-think has no effect in chat format {form.name}, which has no reasoning: leave it out."
        )
    if "chat_date" in given and not form.date:
        raise ValueError(f"--chat-date has no effect in chat format {form.name}, which has no date: leave it out.")
    return ChatTemplate(
        form,
        mask=given.get("mask", "format"),
        empty_think=given.get("empty_think", True),
        train_on=chosen,
        date=given.get("chat_date"),
    )


def find_format(name: str, tokenizer: Tokenizer, date: str = "") -> ChatFormat | JinjaFormat:
    """A table by its name, or the template of a file or of a tokenizer. ValueError for a name that is not known."""
    if name in FORMATS:
        return FORMATS[name]
    if name == "tokenizer":
        if tokenizer.chat_template is None:
            raise ValueError(
                f"--chat-template tokenizer: {tokenizer.name} has no chat template beside it: give a file."
            )
        form = JinjaFormat(f"of {tokenizer.name}", tokenizer.chat_template, date)
    elif (path := Path(name).expanduser()).is_file():
        form = JinjaFormat.read(path, date)
    else:
        known = ", ".join(FORMATS)
        raise ValueError(
            f"--chat-template {name!r} is no file and not known, wanted one of {known}, a Jinja file, or tokenizer."
            f"{nearest(name, FORMATS)}"
        )
    table = known_format(form.source)
    return FORMATS[table] if table else form


def check_controls(form: ChatFormat, tokenizer: Tokenizer) -> None:
    """ValueError for a tokenizer that lacks a control of the format"""
    missing = [control for control in form.controls if control not in tokenizer.special_tokens]
    if not missing:
        return
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    fitting = formats_for(tokenizer)
    if fitting:
        way = f"it has those of {', '.join(fitting)}: --chat-template {fitting[0]}"
    elif form is NANOCHAT:
        way = "midprep tokenizer export DIR --add-special-tokens puts them behind its ids, for a base model to learn"
    else:
        way = f"give the tokenizer of a {form.name} model with --tokenizer"
    raise ValueError(f"tokenizer {tokenizer.name} has no {shown}, which chat format {form.name} uses: {way}.")


def formats_for(tokenizer: Tokenizer) -> list[str]:
    """Names of the formats whose controls a tokenizer has, those with marks of their own first"""
    fits = [form for form in FORMATS.values() if set(form.controls) <= tokenizer.special_tokens.keys()]
    texts = {
        form.name: [mark for mark in ("<think>", "<tool_call>") if mark in tokenizer.added_tokens] for form in fits
    }
    has_think = [form.name for form in fits if form.reasoning and "<think>" in texts[form.name]]
    has_calls = [form.name for form in fits if form.calls and form.name not in has_think]
    wanted = has_think if has_think else has_calls if any(texts.values()) else []
    return [*wanted, *(form.name for form in fits if form.name not in wanted)]


def read_template(manifest: Mapping[str, Any], root: Path) -> AnyTemplate:
    """The template of a build. ValueError for one that this version does not know, or has another table for."""
    noted = manifest.get("chat_template")
    if noted is None:
        return ChatTemplate()
    train_on = noted.get("train_on")
    chosen = tuple(train_on) if isinstance(train_on, list) else train_on
    if "jinja" in noted:
        form = JinjaFormat.read(root / TEMPLATE_FILE, noted.get("date", ""))
        if form.sha256 != noted["sha256"]:
            raise ValueError(
                f"{root / TEMPLATE_FILE} is not the template that the manifest names: damaged, build it again."
            )
        return JinjaTemplate(form, noted["mask"], chosen)
    if noted["name"] not in FORMATS:
        raise ValueError(
            f"{root} has the chat format {noted['name']!r:.40}, which this version of midprep does not know."
        )
    template = ChatTemplate(
        FORMATS[noted["name"]],
        mask=noted["mask"],
        empty_think=noted.get("empty_think", True),
        train_on=chosen,
        date=noted.get("date"),
    )
    if template.describe()["sha256"] != noted["sha256"]:
        raise ValueError(f"the build has another {noted['name']} chat format than this version: build it again.")
    return template


def template_keys(manifest: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What a mixture says to have the template of a build"""
    noted = manifest.get("chat_template", {})
    names = {"name": "chat_template", "date": "chat_date"}
    keys = {names.get(key, key): value for key, value in noted.items() if key not in ("sha256", "jinja")}
    return keys | ({"chat_template": str(root / TEMPLATE_FILE)} if "jinja" in noted else {})


def bos_of(template: AnyTemplate, tokenizer: Tokenizer) -> int | None:
    """The id that every conversation begins with; None where the format has none, or is a Jinja template"""
    if isinstance(template, JinjaTemplate):
        return None
    return tokenizer.special_id(template.format.bos) if template.format.bos else None


def pad_of(template: AnyTemplate, tokenizer: Tokenizer) -> int:
    """What rows are filled with: the bos, else the tokenizer's pad or end token, else what ends a turn"""
    bos = bos_of(template, tokenizer)
    if bos is not None:
        return bos
    last = max(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__, default="")
    controls = () if isinstance(template, JinjaTemplate) else template.format.controls
    names = [tokenizer.pad_token, tokenizer.eos_token, "<|endoftext|>", *controls[-1:], last]
    return next((tokenizer.special_tokens[name] for name in names if name in tokenizer.special_tokens), 0)
