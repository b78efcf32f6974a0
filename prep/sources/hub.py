"""
Data sets of the Hub: which commit, which of its files, and what happens when the Hub does not answer.

    openai/gsm8k main train   ->   commit 740312ad...   ->   [main/train-00000-of-00001.parquet] in the Hub's cache

    revision in the mixture   the Hub answers       it does not
    a branch, a tag, none     what it is now        an error, which says how to go on with what is in the cache
    a whole commit id         not asked: a commit never changes, once its files are in the cache they are used
    HF_HUB_OFFLINE=1          not asked: the commit that was used last

A refusal that passes (too many requests, a server's own error, no connection) is tried again for up to half a minute.
"""

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prep.files import default_cache_dir, new_file
from prep.text import one_line

TIMEOUT = 10.0  # seconds for an answer
WAITS = (1.0, 2.0, 4.0)  # seconds between tries, unless the Hub asks for more
LONGEST = 20.0  # seconds after which no other try is begun

Found = tuple[list[Path], str]  # files and commit


def is_offline() -> bool:
    """Whether the Hub must not be asked; the values are those that huggingface_hub takes for yes"""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def hub_files(repo: str, subset: str, split: str, revision: str | None, cache_dir: Path | None = None) -> Found:
    """
    Files of a split on the Hub, downloaded or from its cache, and the commit they are of. FileNotFoundError where there is
    no such thing, ConnectionError or ValueError where it cannot be had.
    """
    where = f"{repo} ({subset}, {split}) on the Hub"
    notes = (cache_dir or default_cache_dir()) / "hub"
    known = _recall(notes, repo, subset, split, revision)
    if known and (is_offline() or known[1] == revision):
        return known
    if is_offline():
        raise FileNotFoundError(
            f"{where} is not in the cache, and HF_HUB_OFFLINE is set: build once without it, or give --data-root DIR."
        )
    with _quiet():
        commit = _commit(where, repo, revision, known)
        files = _download(where, repo, subset, split, commit)
    for name in {revision, commit}:
        _note(notes, repo, subset, split, name, (files, commit))
    return files, commit


def _commit(where: str, repo: str, revision: str | None, known: Found | None) -> str:
    from huggingface_hub import HfApi

    begin = time.monotonic()
    for number, wait in enumerate([*WAITS, None], start=1):
        try:
            return str(HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT).sha)
        except Exception as error:  # its client lets through whatever its HTTP library raises
            _check_local(where, error)
            response = getattr(error, "response", None)
            status = getattr(response, "status_code", None)
            passes = status == 429 or ((status or 500) >= 500 and not isinstance(error, ValueError))
            if wait is None or not passes or time.monotonic() - begin > LONGEST:
                raise _in_words(where, repo, revision, known, error, status, number) from None
            asked = str(getattr(response, "headers", {}).get("Retry-After", ""))
            time.sleep(min(max(wait, float(asked) if asked.isdigit() else 0.0), LONGEST))
    raise AssertionError("the last try returns or raises")


def _check_local(where: str, error: Exception) -> None:
    """OSError if what failed is a file of this machine"""
    if isinstance(error, OSError) and error.filename and error.errno:
        raise type(error)(
            f"{where} cannot be kept, {error.filename}: {error.strerror}. Set HF_HOME to a directory that can be written."
        ) from None


def _in_words(
    where: str, repo: str, revision: str | None, known: Found | None, error: Exception, status: int | None, tries: int
) -> OSError | ValueError:
    """What an error of the Hub means to the one who builds"""
    if isinstance(error, ValueError) and status is None:
        return ValueError(f"{where} cannot be asked for: {one_line(error)} Give OWNER/NAME.")
    if status in (401, 403):
        return ConnectionError(
            f"{where} refuses ({status}): it may be private or gated, or the name is wrong. Set HF_TOKEN to a token that may "
            "read it, or give --data-root DIR with a local copy."
        )
    if status == 404:
        what = (
            f"it has no revision {revision!r}"
            if type(error).__name__ == "RevisionNotFoundError"
            else "no such data set"
        )
        return FileNotFoundError(f"{where} not found: {what}. Check the name, or give --data-root DIR.")
    words = {None: f"no answer ({one_line(error).rstrip('.')})", 429: "too many requests (429)"}
    text = f"{where} cannot be reached, {words.get(status, f'its server fails ({status})')}, in {tries} tries: "
    if known:
        return ConnectionError(
            f"{text}set HF_HUB_OFFLINE=1 to build from the cache, which has commit {known[1][:12]}, or pin that commit "
            f'(revision = "{known[1]}"), or try later.'
        )
    return ConnectionError(
        f"{text}try later, check the network (HF_ENDPOINT, HF_TOKEN), or give --data-root DIR with a local copy."
    )


def _download(where: str, repo: str, subset: str, split: str, commit: str) -> list[Path]:
    import datasets  # 0.7 s to import

    if Path(repo).is_dir():
        raise ValueError(
            f"{where} cannot be read from here: `datasets` would take the directory {Path(repo).absolute()} for it. Build from "
            "another directory, or, if it is a copy of the Hub's, give --data-root ."
        )
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(repo, name=None if subset == "default" else subset, revision=commit)
        files = builder.config.data_files or {}
        urls = list(files.get(split, ()))
        paths = datasets.DownloadManager(dataset_name=repo).download(urls)
    except Exception as error:  # `datasets` lets through whatever its HTTP library raises
        _check_local(where, error)
        raise ValueError(
            f"{where} cannot be read: {one_line(error)} Check the names, the network (HF_ENDPOINT, HF_TOKEN) and HF_HOME, or "
            "give --data-root DIR with a local copy."
        ) from None
    if not urls:
        raise FileNotFoundError(f"{where} has no such split, it has: {', '.join(map(str, files))}.")
    return [Path(path) for path in paths]


# ---- what was found before ----


def _note_path(notes: Path, repo: str, subset: str, split: str, revision: str | None) -> Path:
    endpoint = os.environ.get("HF_ENDPOINT", "")
    key = json.dumps([endpoint, repo, subset, split, revision])
    return notes / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _recall(notes: Path, repo: str, subset: str, split: str, revision: str | None) -> Found | None:
    """What was found last under this name, if all its files are still there"""
    try:
        note: dict[str, Any] = json.loads(_note_path(notes, repo, subset, split, revision).read_text(encoding="utf-8"))
        files, commit = [Path(name) for name in note["files"]], str(note["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (files, commit) if all(path.is_file() for path in files) else None


def _note(notes: Path, repo: str, subset: str, split: str, revision: str | None, found: Found) -> None:
    path = _note_path(notes, repo, subset, split, revision)
    about = {
        "repo": repo,
        "subset": subset,
        "split": split,
        "commit": found[1],
        "files": [str(file) for file in found[0]],
    }
    # a cache that cannot be written is found out, and said, where runs go
    with suppress(OSError), new_file(notes, path.name) as (file, keep):
        file.write(json.dumps(about).encode())
        keep(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that the libraries write at each try: what comes of it is one line of ours"""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
