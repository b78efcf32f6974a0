"""
nanochat's own two files: read without running anything in them, and written so that nanochat loads them.

    tokenizer.pkl      a pickled tiktoken.Encoding: pickle.load(f).encode_ordinary("2+2?")
    token_bytes.pt     torch.load(f) -> (V,) int32: bytes of each token, 0 for special tokens

The pickle is read by `prep.same_tokenizer`, which the trainer uses too.
"""

import io
import pickle
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prep import shard
from prep.same_tokenizer import by_id, read_pickle
from prep.tokenizer.spec import TokenizerSpec, check_spec
from prep.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer


def read_nanochat(path: Path) -> TokenizerSpec:
    """nanochat's tokenizer.pkl, checked against the token_bytes.pt beside it. ValueError in one line."""
    state = read_pickle(path)
    keys = ("name", "mergeable_ranks", "pat_str", "special_tokens")
    if state.keys() != set(keys):
        shown = ", ".join(f"{key!r:.40}" for key in list(state)[:8])
        raise ValueError(f"{path} holds {shown}; a pickled tiktoken.Encoding holds {', '.join(keys)}")
    spec = TokenizerSpec(*(state[key] for key in keys))
    if spec.name == "rustbpe":  # nanochat names every tokenizer after the program that trained it
        spec = replace(spec, name="nanochat")
    check_spec(spec)
    lengths_path = path.with_name("token_bytes.pt")
    if lengths_path.is_file():
        num_lengths = count_token_bytes(lengths_path)
        num_tokens = max(*spec.ranks.values(), *spec.special_tokens.values()) + 1
        if num_lengths != num_tokens:
            raise ValueError(
                f"{lengths_path} is for {num_lengths:,} tokens, {path.name} has {num_tokens:,}: copy both from nanochat."
            )
    return spec


# ---- token_bytes.pt ----


def count_token_bytes(path: Path) -> int:
    """
    The number of int32 in a file of torch's, from the directory of the zip archive that it is: a build needs no more, and
    torch takes 1 s to import. ValueError if it is not such an archive of one int32 tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (storage,) = [entry for entry in archive.infolist() if "/data/" in entry.filename]
            (pickled,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            with archive.open(pickled) as file:
                is_int32 = b"IntStorage" in file.read(1024)
    except Exception:  # zipfile has eight kinds of errors for a damaged archive
        is_int32 = False
    if not is_int32 or storage.file_size % 4:
        raise ValueError(f"{path} refused, nothing in it was run: wanted torch's file of one int32 vector.")
    return storage.file_size // 4


# ---- writing ----


def export_nanochat(tokenizer: Tokenizer, root: Path) -> list[Path]:
    """
    Write tokenizer.pkl and token_bytes.pt into `root`, equal files for equal tokenizers. Returns their paths. ValueError for
    a tokenizer that a pickle cannot hold, or that lacks some of nanochat's special tokens.
    """
    import tiktoken
    import torch

    if tokenizer.added_tokens or tokenizer.normalizer:
        what = " and ".join(["added tokens"] * bool(tokenizer.added_tokens) + ["NFC"] * bool(tokenizer.normalizer))
        raise ValueError(
            f"tokenizer {tokenizer.name} has {what}, which nanochat's pickle cannot hold: use --format hf."
        )
    if missing := [text for text in SPECIAL_TOKENS if text not in tokenizer.special_tokens]:
        raise ValueError(
            f"tokenizer {tokenizer.name} has no {missing[0]}, which nanochat needs: --add-special-tokens adds the missing "
            f"{len(missing)} after its last id."
        )
    encoding = tiktoken.Encoding(
        "rustbpe",  # as nanochat names it
        pat_str=tokenizer.pattern,
        mergeable_ranks=dict(by_id(tokenizer.ranks)),
        special_tokens=dict(by_id(tokenizer.special_tokens)),
    )
    pickle_path, lengths_path = root / "tokenizer.pkl", root / "token_bytes.pt"
    lengths, buffer = torch.from_numpy(tokenizer.token_bytes().astype("int32")), io.BytesIO()
    torch.save(lengths, buffer)
    with suppress(Exception):  # another version of torch may have written the same numbers in other bytes
        if torch.equal(torch.load(lengths_path, weights_only=True), lengths):
            buffer = io.BytesIO(lengths_path.read_bytes())
    return write_files({pickle_path: pickle.dumps(encoding, protocol=4), lengths_path: buffer.getvalue()})


def write_files(files: dict[Path, bytes]) -> list[Path]:
    """Write all, or none where a file of other content is in the way: models may depend on it"""
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise ValueError(f"{path} exists with other content: move it away, or export to another directory.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(path, content)
    return list(files)
