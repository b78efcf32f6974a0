"""
Data sets of the Hub: which commit, which of its files, and what happens when the Hub does not answer.

    openai/gsm8k main train   ->   commit 740312ad...   ->   [main/train-00000-of-00001.parquet] in the Hub's cache

    revision in the mixture   the Hub answers        it does not
    a branch, a tag, none     its commit today       an error, which says how to continue with what is in the cache
    a whole commit id         not asked: a commit never changes, once its files are in the cache they are used
    HF_HUB_OFFLINE=1          not asked: the commit that was used last

A temporary refusal (too many requests, a server error, no connection) is retried for up to half a minute.
"""

import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prep.files import default_cache_dir, new_file, sha256_of
from prep.text import one_line

TIMEOUT = 10.0  # seconds for an answer
WAITS = (1.0, 2.0, 4.0)  # seconds between tries, unless the Hub asks for more
CLIENTS = ("httpx", "httpcore", "h11", "requests", "urllib3")  # and httpx2, httpcore2 of huggingface_hub 2
LONGEST = 20.0  # seconds after which no further try is begun

Answer = TypeVar("Answer")
Files = tuple[list[Path], str]  # of a split, and the commit that they are of


@dataclass(frozen=True)
class HubSplit:
    """What a build asks for; messages begin with its name."""

    repo: str
    subset: str
    split: str
    revision: str | None
    kind: ClassVar[str] = "data set"
    local: ClassVar[str] = "give --data-root DIR with a local copy"
    offline: ClassVar[str] = "give --data-root DIR"
    pin: ClassVar[str] = ', or pin that commit (revision = "{}")'

    def __str__(self) -> str:
        return f"{self.repo} ({self.subset}, {self.split}) on the Hub"


def is_offline() -> bool:
    """Whether the Hub must not be asked; the values are those that huggingface_hub takes for yes"""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def in_cache(repo: str, subset: str, split: str, revision: str | None, cache_dir: Path) -> bool:
    """Whether files of a split were fetched before and are still there"""
    return read_note(cache_dir / "hub", HubSplit(repo, subset, split, revision)) is not None


def hub_files(repo: str, subset: str, split: str, revision: str | None, cache_dir: Path | None = None) -> Files:
    """
    Files of a split on the Hub, downloaded or from its cache, and the commit that they are of. FileNotFoundError where
    there is no such split, ConnectionError or ValueError where it cannot be fetched.
    """
    request = HubSplit(repo, subset, split, revision)
    notes = (cache_dir or default_cache_dir()) / "hub"
    noted = read_note(notes, request)
    if noted and (is_offline() or noted[1] == revision):
        return noted
    if is_offline():
        raise FileNotFoundError(
            f"{request} is not in the cache, and HF_HUB_OFFLINE is set: build once without it, or {request.offline}."
        )
    _check_no_such_folder(request)
    with quiet():
        commit = ask(request, noted, lambda: _commit(request))
        files, splits = ask(request, noted, lambda: _download(request, commit))
        if not files:
            raise FileNotFoundError(f"{request} has no such split, it has: {', '.join(splits)}.")
        if (files, commit) != noted:
            mend(request, files, lambda: ask(request, noted, lambda: _download(request, commit)))
    for name in {revision, commit}:
        write_note(notes, HubSplit(repo, subset, split, name), files, commit)
    return files, commit


def ask(request: HubSplit, noted: Files | None, question: Callable[[], Answer]) -> Answer:
    """What the Hub answers; asked again where it does not for a reason that may pass"""
    begin = time.monotonic()
    for tries, wait in enumerate((*WAITS, None), 1):
        try:
            return question()
        except Exception as error:  # its client and `datasets` let through whatever their HTTP library raises
            _check_local(request, error)
            response = _response(error)
            if wait is None or not _may_pass(error) or time.monotonic() - begin > LONGEST:
                raise _explained(request, noted, error, tries) from None
            retry_after = str(getattr(response, "headers", {}).get("Retry-After", ""))
            time.sleep(min(max(wait, float(retry_after) if retry_after.isdigit() else 0.0), LONGEST))
    raise AssertionError("the last try returns or raises")


def _commit(request: HubSplit) -> str:
    """The commit of a revision today"""
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(request.repo, revision=request.revision, timeout=TIMEOUT).sha)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from"""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: Exception) -> Any:
    """The answer of the Hub that an error came from, None if there was none"""
    return next(
        filter(lambda answer: answer is not None, (getattr(each, "response", None) for each in _chain(error))), None
    )


def _status(error: Exception) -> int | None:
    return getattr(_response(error), "status_code", None)


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered later: too many requests, a failing server, no connection or a broken one"""
    if status := _status(error):
        return status in (408, 429) or status >= 500
    return any(
        isinstance(each, ConnectionError | TimeoutError)
        or type(each).__module__.startswith(CLIENTS)
        or "Consistency check failed" in str(each)  # of huggingface_hub: a file that ended early
        for each in _chain(error)
    )


def _check_local(request: HubSplit, error: Exception) -> None:
    """OSError if what failed is a file of this machine"""
    if isinstance(error, OSError) and error.filename and error.errno:
        raise type(error)(
            f"{request} cannot be stored, {error.filename}: {error.strerror}. Set HF_HOME to a directory that can be written."
        ) from None


def _explained(request: HubSplit, noted: Files | None, error: Exception, tries: int) -> OSError | ValueError:
    """An error of the Hub with what to do about it"""
    status = _status(error)
    if any(
        isinstance(each, json.JSONDecodeError) or type(each).__name__ == "FileMetadataError" for each in _chain(error)
    ):
        return ConnectionError(
            f"{request} cannot be read: what answers is no Hub, it gives no JSON. Check HF_ENDPOINT and the network (a login "
            f"page or a proxy answers so), or {request.local}."
        )
    if status in (401, 403):
        return ConnectionError(
            f"{request} refuses ({status}): it may be private or gated, or the name is wrong. Set HF_TOKEN to a token that may "
            f"read it, or {request.local}."
        )
    if status == 404:
        is_revision = type(error).__name__ == "RevisionNotFoundError"
        reason = f"it has no revision {request.revision!r}" if is_revision else f"no such {request.kind}"
        return FileNotFoundError(f"{request} not found: {reason}. Check the name, or {request.offline}.")
    if not _may_pass(error):
        if type(error).__name__ == "HFValidationError":
            return ValueError(f"{request} is not a valid name: {one_line(error)} Give OWNER/NAME.")
        return ValueError(
            f"{request} cannot be read: {_reason(error)}. Check the names, the network (HF_ENDPOINT, HF_TOKEN) and HF_HOME, "
            f"or {request.local}."
        )
    reasons = {None: f"no answer ({_reason(error)})", 429: "too many requests (429)"}
    advice = f"try later, check the network (HF_ENDPOINT, HF_TOKEN), or {request.local}."
    if noted:
        commit = noted[1]
        advice = (
            f"set HF_HUB_OFFLINE=1 to build from the cache, which has commit {commit[:12]}{request.pin.format(commit)}, or "
            "try later."
        )
    reason = reasons.get(status, f"its server fails ({status})")
    return ConnectionError(f"{request} cannot be reached, {reason}, in {tries} tries: {advice}")


def _reason(error: Exception) -> str:
    """What an error says, without the page of the web that a library adds"""
    return one_line(error).partition(" For more information check")[0].rstrip(".")


def _check_no_such_folder(request: HubSplit) -> None:
    if Path(request.repo).is_dir():
        raise ValueError(
            f"{request} cannot be read from here: `datasets` would take the directory {Path(request.repo).absolute()} for it. "
            "Build from another directory, or, if it is a copy of the Hub's, give --data-root ."
        )


def _download(request: HubSplit, commit: str) -> tuple[list[Path], list[str]]:
    """The files of a split, in the Hub's cache, [] if there is no such split; and the splits that there are"""
    import datasets  # 0.7 s to import
    from huggingface_hub import HfFileSystem, constants

    HfFileSystem.clear_instance_cache()  # it may hold the listing of a try that failed
    card = Path(
        constants.HF_HUB_CACHE, f"datasets--{request.repo.replace('/', '--')}", "snapshots", commit, "README.md"
    )
    datasets.disable_progress_bars()
    subset = None if request.subset == "default" else request.subset
    try:
        builder = datasets.load_dataset_builder(request.repo, name=subset, revision=commit)
    finally:
        if card.is_file() and not is_whole(card):  # whatever was made of it
            _remove(card)
            raise ConnectionError("README.md is not what the Hub says it is, its hash differs")
    splits = builder.config.data_files or {}
    urls = list(splits.get(request.split, ()))
    paths = datasets.DownloadManager(dataset_name=request.repo).download(urls)
    return [Path(path) for path in paths], [str(name) for name in splits]


def mend(request: HubSplit, files: list[Path], download: Callable[[], Any]) -> None:
    """Fetch damaged files again. ValueError where one is damaged again"""
    damaged = [path for path in files if not is_whole(path)]
    for path in damaged:
        _remove(path)
    if damaged:
        download()
    for path in damaged:
        if not is_whole(path):
            _remove(path)
            raise ValueError(
                f"{request}: {path.name} was downloaded twice and is not what the Hub says it is, its hash differs: check the "
                f"network (a proxy), or {request.local}."
            )


def _remove(path: Path) -> None:
    """Remove a file from the Hub's cache: its contents, and the link to them"""
    if path.is_symlink():
        (path.parent / os.readlink(path)).unlink(
            missing_ok=True
        )  # one link further: others may share what that leads to
    path.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """
    Whether a file of the Hub's cache is what the Hub says it is: its contents there have the Hub's hash for a name, sha256
    or, of small files, git's (mirrors give sha1). True where the name is no hash.
    """
    name = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", name):
        return sha256_of(path) == name
    if re.fullmatch("[0-9a-f]{40}", name):
        data = path.read_bytes()
        return name in (hashlib.sha1(start + data).hexdigest() for start in (b"blob %d\0" % len(data), b""))
    return True


# ---- what was used last, for builds that must not ask the Hub ----


def _note_path(notes: Path, request: HubSplit) -> Path:
    endpoint = os.environ.get("HF_ENDPOINT", "")
    key = json.dumps([endpoint, request.repo, request.subset, request.split, request.revision])
    return notes / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def read_note(notes: Path, request: HubSplit) -> Files | None:
    """What was used last, if all its files are still there"""
    try:
        note = json.loads(_note_path(notes, request).read_text(encoding="utf-8"))
        files, commit = [Path(name) for name in note["files"]], str(note["commit"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (files, commit) if all(path.is_file() for path in files) else None


def write_note(notes: Path, request: HubSplit, files: list[Path], commit: str) -> None:
    path = _note_path(notes, request)
    # a cache that cannot be written is reported where blocks are written
    with suppress(OSError), new_file(notes, path.name) as (file, keep):
        file.write(json.dumps({"files": [str(file) for file in files], "commit": commit}).encode())
        keep(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that the libraries write at each try: the outcome is one line of ours"""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
