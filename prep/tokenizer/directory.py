"""
A model's tokenizer with what stands around it: a directory of Hugging Face's, OWNER/NAME on the Hub, or a build that kept it.

    tokenizer.json            vocabulary, merges, pattern, added tokens               kept in a build
    tokenizer_config.json     bos, eos and pad token; a chat template in older ones   kept
    special_tokens_map.json   the same names, in older ones                           kept
    chat_template.jinja       wins over a template in tokenizer_config.json           kept
    config.json               vocab_size of the model                                 read only

Files that contradict each other are refused: which of them a program follows depends on its version. Of a Hub id just these
files are fetched, of the commit that it has today.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from prep.files import default_cache_dir
from prep.same_tokenizer import ranks_file
from prep.sources.hub import TIMEOUT, HubSplit, ask, is_offline, mend, quiet, read_note, write_note
from prep.tokenizer.huggingface import read_hf, read_json
from prep.tokenizer.spec import TokenizerSpec

BESIDE: Final[tuple[str, ...]] = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
NAMES: Final = ("bos_token", "eos_token", "pad_token")


def read_directory(path: Path) -> TokenizerSpec:
    """What a tokenizer.json holds, with the files beside it if it has that name. ValueError in one line."""
    spec = read_hf(path, read_json(path))
    files = {"tokenizer.json": path.read_bytes()}
    if path.name != "tokenizer.json":
        return replace(spec, files=files)
    root = path.parent
    files |= {name: (root / name).read_bytes() for name in BESIDE if (root / name).is_file()}
    config = read_json(root / BESIDE[0]) if BESIDE[0] in files else {}
    older = read_json(root / BESIDE[1]) if BESIDE[1] in files else {}
    try:
        _check_added(config.get("added_tokens_decoder") or {}, spec)
        names = {name: _token_text(config.get(name) or older.get(name)) for name in NAMES}
        for name, text in names.items():
            if text in spec.added_tokens:
                raise ValueError(f"{name} {text!r:.40} is no special token in tokenizer.json (special: false)")
        if config.get("add_eos_token"):
            raise ValueError("it puts a token after each text (add_eos_token)")
        if spec.adds_bos and names["bos_token"] not in (None, spec.bos_token):
            raise ValueError(
                f"bos_token is {names['bos_token']!r:.40}, tokenizer.json puts {spec.bos_token!r:.40} first"
            )
        names["bos_token"] = spec.bos_token or names["bos_token"]
        adds_bos = spec.adds_bos or bool(config.get("add_bos_token") and names["bos_token"])
        template = _template(config.get("chat_template"), files.get(BESIDE[2]))
    except ValueError as error:
        raise ValueError(f"{root / BESIDE[0]}: {error}.") from None
    vocab_size = _vocab_size(root / "config.json")
    bos, eos, pad = (names[name] for name in NAMES)
    spec = replace(spec, bos_token=bos, eos_token=eos, pad_token=pad, adds_bos=adds_bos)
    return replace(spec, chat_template=template, files=files, vocab_size=vocab_size)


def read_kept(root: Path) -> TokenizerSpec:
    """The tokenizer of a build that kept Hugging Face's files. ValueError where its ranks are others."""
    spec = read_directory(root / "tokenizer.json")
    if ranks_file(spec.ranks) != (root / "tokenizer.tiktoken").read_bytes():
        raise ValueError(f"{root / 'tokenizer.tiktoken'} has not the ranks of tokenizer.json: damaged, build it again.")
    return with_built_size(spec, root)


def with_built_size(spec: TokenizerSpec, root: Path) -> TokenizerSpec:
    """The spec with the vocab_size of a build's token_bytes.npy, if that is more than its ids need"""
    try:
        num_ids = np.load(root / "token_bytes.npy", mmap_mode="r").shape[0]
    except (OSError, ValueError, IndexError):  # `midprep verify` says what is wrong with it
        return spec
    return replace(spec, vocab_size=num_ids) if num_ids > last_id(spec) + 1 else spec


def last_id(spec: TokenizerSpec) -> int:
    """The largest id that is one, -1 without any"""
    tokens = (spec.ranks, spec.special_tokens, spec.added_tokens)
    return max((id_ for ids in tokens for id_ in ids.values() if isinstance(id_, int)), default=-1)


def _check_added(decoder: Any, spec: TokenizerSpec) -> None:
    """ValueError where tokenizer_config.json has an added token that tokenizer.json has not, or has otherwise"""
    for id_, token in decoder.items() if isinstance(decoder, dict) else ():
        text, is_special = _token_text(token), isinstance(token, dict) and token.get("special") is True
        found = (spec.special_tokens if is_special else spec.added_tokens).get(text or "")
        if str(found) != str(id_):
            kind = f"id {id_}, special: {str(is_special).lower()}"
            raise ValueError(f"its added token {text!r:.40} ({kind}) is not so in tokenizer.json")


def _token_text(token: Any) -> str | None:
    """A token is written as text, or as an object with `content`"""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str | None):
        raise ValueError(f"token {token!r:.60} is no text")
    return text or None


def _template(given: Any, file: bytes | None) -> str | None:
    """The chat template: of chat_template.jinja, else the one of the config, of several the one named default"""
    if file is not None:
        try:
            return file.decode()
        except UnicodeDecodeError:
            raise ValueError("chat_template.jinja beside it is not UTF-8 text: convert it to UTF-8") from None
    if isinstance(given, list):
        named = {item.get("name"): item.get("template") for item in given if isinstance(item, dict)}
        if "default" not in named:
            shown = ", ".join(str(name) for name in named)
            raise ValueError(f"its chat templates are {shown:.80}, none is named default: leave one, as chat_template")
        given = named["default"]
    if not isinstance(given, str | None):
        raise ValueError(f"its chat_template is {type(given).__name__}, wanted text")
    return given


def _vocab_size(path: Path) -> int:
    """The model's vocab_size; 0 where no file says it. Models of text and images have it in text_config."""
    if not path.is_file():
        return 0
    config = read_json(path)
    inner = config.get("text_config")
    size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"{path} has vocab_size {size!r:.40}, wanted a positive number: or give --vocab-size.")
    return size or 0


# ---- the Hub ----


class HubTokenizer(HubSplit):
    """The files of a model that belong to its tokenizer; messages begin with its name."""

    kind = "model"
    local = offline = "give a directory that has its tokenizer.json"
    pin = ", or pin that commit (NAME@{})"

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{at} (no path here) on the Hub"


def hub_tokenizer(repo: str, revision: str | None = None, cache_dir: Path | None = None) -> tuple[Path, str]:
    """
    The tokenizer.json of OWNER/NAME at a branch, tag or commit, with the files beside it, and the commit that they are of.
    Of a whole commit that is in the cache nobody is asked. FileNotFoundError where there is none, ConnectionError or
    ValueError where it cannot be fetched.
    """
    request = HubTokenizer(repo, "tokenizer", "", revision)
    notes = (cache_dir or default_cache_dir()) / "hub"
    noted = read_note(notes, request)
    if noted and (is_offline() or noted[1] == revision):
        return noted[0][0], noted[1]
    if is_offline():
        raise FileNotFoundError(
            f"{request} is not in the cache, and HF_HUB_OFFLINE is set: load it once without it, or {request.local}."
        )
    with quiet():
        commit, names = ask(request, noted, lambda: _listing(repo, revision))
        if "tokenizer.json" not in names:
            raise FileNotFoundError(
                f"{request} has no tokenizer.json: save one with transformers (AutoTokenizer, save_pretrained), and give "
                "that directory."
            )
        wanted = [name for name in ("tokenizer.json", *BESIDE, "config.json") if name in names]
        files = ask(request, noted, lambda: _download(repo, wanted, commit))
        mend(request, files, lambda: ask(request, noted, lambda: _download(repo, wanted, commit)))
    for name in {revision, commit}:
        write_note(notes, HubTokenizer(repo, "tokenizer", "", name), files, commit)
    return files[0], commit


def _listing(repo: str, revision: str | None) -> tuple[str, set[str]]:
    """The commit of a revision today, and the names of its files"""
    from huggingface_hub import HfApi

    about = HfApi().model_info(repo, revision=revision, timeout=TIMEOUT)
    return str(about.sha), {file.rfilename for file in about.siblings or []}


def _download(repo: str, names: list[str], commit: str) -> list[Path]:
    """Files of a commit, in the Hub's cache"""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return [Path(hf_hub_download(repo, name, revision=commit)) for name in names]
