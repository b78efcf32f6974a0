"""A model's tokenizer from a directory, the Hub, or a build that kept its files: the same, or refused in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from prep.tokenizer.huggingface import export_hf
from prep.tokenizer.load import add_special_tokens, info, load_tokenizer
from prep.tokenizer.nanochat import export_nanochat
from prep.tokenizer.tokenizer import SPECIAL_TOKENS
from tests.conftest import midprep_command
from tests.tokenizer.models import BOS, QWEN_SPECIAL, THINK, content, ids_of, judge, write_model
from tests.torture.fault_hub import REPO, FaultHub

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
CONFIG = {
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": {"content": "<|endoftext|>"},
    "chat_template": TEMPLATE,
}


def test_a_directory_gives_names_template_and_the_models_vocabulary(tmp_path: Path) -> None:
    root = write_model(tmp_path / "qwen", "qwen3", tokenizer_config_json=CONFIG, config_json={"vocab_size": 4096})
    tokenizer = load_tokenizer(root)
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.bos_id) == ("qwen", 4096, None)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (None, "<|im_end|>", "<|endoftext|>")
    assert (tokenizer.chat_template, tokenizer.normalizer, tokenizer.adds_bos) == (TEMPLATE, "NFC", False)
    assert set(tokenizer.special_tokens) == set(QWEN_SPECIAL)  # nothing grows behind the vocabulary
    assert set(tokenizer.added_tokens) == set(THINK)
    assert set(tokenizer.files) == {"tokenizer.json", "tokenizer_config.json"}
    assert load_tokenizer(root / "tokenizer.json").vocab_size == 4096
    assert len(tokenizer.token_bytes()) == 4096
    assert tokenizer.special_id("<|im_end|>") == 4002
    with pytest.raises(ValueError, match=r"no special token '<think>' .only as one that stands for ordinary text too"):
        tokenizer.special_id("<think>")


def test_a_template_of_its_own_file_wins_and_older_names_are_read(tmp_path: Path) -> None:
    older = {"eos_token": "<|endoftext|>", "pad_token": None}
    root = write_model(
        tmp_path, "qwen3", tokenizer_config_json=CONFIG | {"eos_token": None}, special_tokens_map_json=older,
        chat_template_jinja="é", config_json={"text_config": {"vocab_size": 5000}},
    )  # fmt: skip
    tokenizer = load_tokenizer(root)
    assert (tokenizer.chat_template, tokenizer.eos_token, tokenizer.vocab_size) == ("é", "<|endoftext|>", 5000)
    assert load_tokenizer(root, vocab_size=6000).vocab_size == 6000


def test_the_bos_that_a_post_processor_or_the_config_puts_is_read(tmp_path: Path) -> None:
    llama = load_tokenizer(write_model(tmp_path / "llama", "llama3"))
    assert (llama.bos_token, llama.adds_bos, llama.bos_id) == (BOS, True, llama.special_id(BOS))
    config = {"bos_token": "<|endoftext|>", "add_bos_token": True}
    qwen = load_tokenizer(write_model(tmp_path / "qwen", "qwen3", tokenizer_config_json=config))
    assert (qwen.adds_bos, qwen.bos_id) == (True, qwen.special_id("<|endoftext|>"))
    names_it = write_model(tmp_path / "named", "qwen3", tokenizer_config_json={"bos_token": "<|endoftext|>"})
    assert load_tokenizer(names_it).bos_id is None


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "template": f"the {name}"} for name in names]


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    root = write_model(tmp_path, "qwen3", tokenizer_config_json={"chat_template": named("rag", "default")})
    assert load_tokenizer(root).chat_template == "the default"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"chat_template": named("rag", "tool_use")}, "its chat templates are rag, tool_use, none is named default"),
    ({"chat_template": 7}, "its chat_template is int, wanted text"),
    ({"eos_token": 7}, "token 7 is no text"),
    ({"eos_token": "<think>"}, "eos_token '<think>' is no special token in tokenizer.json (special: false)"),
    ({"add_eos_token": True}, "it puts a token after each text (add_eos_token)"),
    (
        {"added_tokens_decoder": {"4003": {"content": "<tool_call>", "special": True}}},
        "its added token '<tool_call>' (id 4003, special: true) is not so in tokenizer.json",
    ),
    (
        {"added_tokens_decoder": {"9000": {"content": "<new>", "special": False}}},
        "its added token '<new>' (id 9000, special: false) is not so in tokenizer.json",
    ),
]


@pytest.mark.parametrize(("config", "words"), REFUSED)
def test_a_config_that_contradicts_is_refused_in_one_line(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_tokenizer(write_model(tmp_path, "qwen3", tokenizer_config_json=config))
    assert f"tokenizer_config.json: {words}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [100, "many", -1, 4008])
def test_a_vocabulary_that_ends_before_the_last_id_is_refused(size: Any, tmp_path: Path) -> None:
    root = write_model(tmp_path, "qwen3", config_json={"vocab_size": size})
    with pytest.raises(
        ValueError, match=r"vocabulary of .* ends before|has vocab_size .*, wanted a positive number"
    ) as error:
        load_tokenizer(root)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="it has id 4,008, the model's vocabulary of 4,008 ends before"):
        load_tokenizer(write_model(tmp_path / "plain", "qwen3"), vocab_size=4008)


def post_processor(*steps: str | None) -> dict[str, Any]:
    single = [{"Sequence": {"id": "A"}} if step is None else {"SpecialToken": {"id": step}} for step in steps]
    ids = {text: {"id": text, "ids": [4000 + i], "tokens": [text]} for i, text in enumerate(QWEN_SPECIAL)}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": ids}


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        (post_processor(None, "<|im_end|>"), "its post_processor puts [None, '<|im_end|>'] around a text"),
        (post_processor("<|im_end|>", "<|im_end|>", None), "around a text (None), wanted one special token before it"),
        (post_processor("<think>", None), "around a text (None), wanted one special token before it"),
        ({"type": "RobertaProcessing"}, "its post_processor is 'RobertaProcessing'"),
        ({"type": "Sequence", "processors": [post_processor("<|im_end|>", None)] * 2}, "puts 2 tokens before a text"),
    ],
)
def test_a_post_processor_that_puts_more_than_a_bos_is_refused(processor: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_tokenizer(write_model(tmp_path, "qwen3", tokenizer_json=content("qwen3") | {"post_processor": processor}))
    assert words in str(error.value)
    plain = content("qwen3") | {"post_processor": post_processor(None)}
    assert load_tokenizer(write_model(tmp_path / "none", "qwen3", tokenizer_json=plain)).adds_bos is False


# ---- what a build keeps ----


def test_a_build_keeps_the_files_as_they_are_and_gives_back_the_same_tokenizer(tmp_path: Path) -> None:
    root = write_model(
        tmp_path / "qwen",
        "qwen3",
        tokenizer_config_json=CONFIG,
        chat_template_jinja=TEMPLATE,
        config_json={"vocab_size": 4096},
    )
    tokenizer, kept = load_tokenizer(root), tmp_path / "kept"
    kept.mkdir()
    entries = tokenizer.write(kept)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (kept / name).read_bytes() == (root / name).read_bytes()
    assert sorted(entries) == sorted(path.name for path in kept.iterdir())
    for name in (kept, kept / "tokenizer.json", kept / "tokenizer.tiktoken"):
        again = load_tokenizer(name)
        assert (again.sha256, again.vocab_size, again.eos_token) == (tokenizer.sha256, 4096, "<|im_end|>")
        assert (again.chat_template, again.files) == (TEMPLATE, tokenizer.files)
    assert tokenizers.Tokenizer.from_file(str(kept / "tokenizer.json")).token_to_id("<think>") == 4007
    path = kept / "tokenizer.tiktoken"
    path.write_bytes(path.read_bytes().replace(b"IA== 32", b"IA== 31"))
    with pytest.raises(ValueError, match=r"tokenizer.tiktoken has not the ranks of tokenizer.json: damaged"):
        load_tokenizer(kept)


def test_without_files_a_build_notes_added_tokens_and_normalizer(tmp_path: Path) -> None:
    grown = add_special_tokens(load_tokenizer(write_model(tmp_path / "qwen", "qwen3")))
    (tmp_path / "kept").mkdir()
    grown.write(tmp_path / "kept")
    again = load_tokenizer(tmp_path / "kept")
    assert (again.sha256, again.added_tokens, again.normalizer) == (grown.sha256, grown.added_tokens, "NFC")


# ---- export ----


def test_export_writes_back_its_own_files_or_what_has_equal_ids(tmp_path: Path) -> None:
    root = write_model(tmp_path / "qwen", "qwen3", tokenizer_config_json=CONFIG)
    tokenizer = load_tokenizer(root)
    for path in export_hf(tokenizer, tmp_path / "same"):
        assert path.read_bytes() == (root / path.name).read_bytes()
    grown = add_special_tokens(tokenizer)
    assert [grown.special_tokens[text] for text in SPECIAL_TOKENS] == list(range(4009, 4018))
    assert (grown.vocab_size, grown.bos_id) == (4018, 4009)
    export_hf(grown, tmp_path / "grown")
    assert load_tokenizer(tmp_path / "grown").sha256 == grown.sha256
    written = judge(json.loads((tmp_path / "grown" / "tokenizer.json").read_text()))
    for text in ("a</think>\u0338 e\u0301", "<|bos|>hello", "2+2?\n\n"):
        assert ids_of(written, text) == ids_of(judge(content("qwen3")), text)


def test_padding_of_the_model_makes_room_for_what_is_added(tmp_path: Path) -> None:
    root = write_model(tmp_path, "qwen3", config_json={"vocab_size": 4096})
    assert add_special_tokens(load_tokenizer(root)).vocab_size == 4096


def test_nanochats_pickle_holds_neither_added_tokens_nor_nfc(tmp_path: Path) -> None:
    qwen, llama = (load_tokenizer(write_model(tmp_path / name, name)) for name in ("qwen3", "llama3"))
    with pytest.raises(
        ValueError, match="has added tokens and NFC, which nanochat's pickle cannot hold: use --format hf"
    ):
        export_nanochat(add_special_tokens(qwen), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"has no <\|bos\|>, which nanochat needs: --add-special-tokens adds the missing 9"
    ):
        export_nanochat(llama, tmp_path / "out")
    export_nanochat(add_special_tokens(llama), tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").sha256 == add_special_tokens(llama).sha256


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(midprep_command(*arguments), capture_output=True, text=True, timeout=120, **more)


def test_the_command_exports_and_shows_what_a_model_has(tmp_path: Path) -> None:
    root = write_model(tmp_path / "qwen", "qwen3", tokenizer_config_json=CONFIG)
    done = run("tokenizer", "export", tmp_path / "out", "--tokenizer", root, "--format", "hf", "--add-special-tokens")
    assert done.returncode == 0, done.stderr
    shown = run("tokenizer", "info", tmp_path / "out", "--vocab-size", "5000", "--json")
    about = json.loads(shown.stdout)
    assert (about["vocab_size"], about["normalizer"], about["added_tokens"]["<think>"]) == (5000, "NFC", 4007)
    text = run("tokenizer", "info", root).stdout
    assert "normalizer       NFC\n" in text
    assert "bos_id           none\n" in text
    assert f"chat_template    {info(load_tokenizer(root))['chat_template']}" in text


# ---- the Hub ----


def load_there(environment: dict[str, str], name: str = REPO) -> subprocess.CompletedProcess[str]:
    load = f"import prep; t = prep.load_tokenizer({name!r}); print(t.name, t.vocab_size, t.source)"
    code = f"try:\n    {load}\nexcept (ValueError, OSError) as e:\n    print('refused:', e)"
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": root},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def hub() -> Any:
    with FaultHub() as hub:
        hub.files = {
            "tokenizer.json": json.dumps(content("qwen3", 300)).encode(),
            "tokenizer_config.json": json.dumps(CONFIG).encode(),
            "config.json": b'{"vocab_size": 512}',
            "model.safetensors": b"0" * 1000,
        }
        yield hub


def test_a_hub_id_fetches_the_tokenizers_files_only_and_is_there_offline(hub: FaultHub, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    assert "is not in the cache, and HF_HUB_OFFLINE is set" in load_there(environment | {"HF_HUB_OFFLINE": "1"}).stdout
    assert hub.requests == []
    found = load_there(environment)
    assert found.stdout == f"gsm8k 512 {REPO} on the Hub, commit {hub.commit}\n", found.stdout + found.stderr
    assert found.stderr == ""
    assert not any("safetensors" in request for request in hub.requests)
    hub.requests.clear()
    assert load_there(environment | {"HF_HUB_OFFLINE": "1"}).stdout == found.stdout
    assert hub.requests == []


def test_a_pinned_commit_is_fetched_once_and_another_revision_is_none(hub: FaultHub, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    pinned = load_there(environment, f"{REPO}@{hub.commit}")
    assert pinned.stdout == f"gsm8k 512 {REPO} on the Hub, commit {hub.commit}\n", pinned.stdout + pinned.stderr
    hub.requests.clear()
    assert load_there(environment, f"{REPO}@{hub.commit}").stdout == pinned.stdout
    assert hub.requests == []
    assert load_there(environment, f"{REPO}@main").stdout == pinned.stdout
    assert hub.requests != []
    assert "it has no revision 'v9'" in load_there(environment, f"{REPO}@v9").stdout


def test_a_hub_that_refuses_or_has_no_tokenizer_is_one_line(hub: FaultHub, tmp_path: Path) -> None:
    hub.fault = "401"
    out = load_there(hub.environment(tmp_path / "a")).stdout
    assert f"refused: {REPO} (no path here) on the Hub refuses (401)" in out
    assert "or give a directory that has its tokenizer.json.\n" in out
    hub.fault = "html"
    assert "what answers is no Hub" in load_there(hub.environment(tmp_path / "b")).stdout
    hub.fault = ""
    del hub.files["tokenizer.json"]
    assert "has no tokenizer.json: save one with transformers" in load_there(hub.environment(tmp_path / "c")).stdout


def test_a_damaged_download_is_fetched_again(hub: FaultHub, tmp_path: Path) -> None:
    hub.fault, hub.only, hub.times = "flip", "/tokenizer.json", 2
    hub.requests.clear()
    out = load_there(hub.environment(tmp_path)).stdout
    assert out.startswith("gsm8k 512"), out


def test_token_bytes_reach_to_the_end_of_the_models_vocabulary(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_model(tmp_path, "llama3", config_json={"vocab_size": 70_000}))
    lengths = tokenizer.token_bytes()
    assert (len(lengths), lengths.dtype, info(tokenizer)["token_dtype"]) == (70_000, np.uint16, "uint32")
