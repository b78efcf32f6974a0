"""
Which functions one build enters, in the order of first entry: how far a reader has to walk after one conversation.

    python bench/trail.py [DATA_ROOT] [-v]      SmolTalk from a local copy of the Hub; without one, the sample mixture

    231 functions, 40 files, 126 changes of file, 87 of them back; 5,729 lines

A change of file is a step from one entered function to the next in another file; a step back leads to a file already
seen. Lines are those of all files entered. Tokenizer, cache and output are new; one process, no worker.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from prep.build.job import build, make_job  # noqa: E402
from prep.build.options import BuildOptions  # noqa: E402
from prep.mixture.mixture import load_mixture  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402

PREP = str(ROOT / "prep") + "/"


def walk(data_root: Path | None) -> list[tuple[str, str]]:
    """(file below prep/, function) of every function that a build enters, by first entry"""
    entered: dict[tuple[str, str], None] = {}

    def note(frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PREP) and "<" not in code.co_name:
            entered.setdefault((code.co_filename.removeprefix(PREP), code.co_qualname))

    with tempfile.TemporaryDirectory() as folder:
        one_entry = Path(folder) / "smoltalk.toml"
        one_entry.write_text('[[train]]\ntask = "smoltalk"\n', encoding="utf-8")
        sys.setprofile(note)
        options = BuildOptions(cache_dir=Path(folder) / "cache", quiet=True)
        mixture = load_mixture(str(one_entry) if data_root else "sample")
        build(make_job(mixture, load_tokenizer(), options, data_root), Path(folder) / "out")
        sys.setprofile(None)
    return list(entered)


def main(arguments: list[str]) -> None:
    places = [Path(word) for word in arguments if not word.startswith("-")]
    entered = walk(places[0] if places else None)
    files = [file for file, _ in entered]
    num_files = len(set(files))
    num_changes = sum(before != after for before, after in zip([None, *files], files, strict=False))
    num_lines = sum(len((ROOT / "prep" / file).read_text(encoding="utf-8").splitlines()) for file in set(files))
    if "-v" in arguments:
        print(*(f"{file:<28} {name}" for file, name in entered), sep="\n")
    print(
        f"{len(entered)} functions, {num_files} files, {num_changes} changes of file, {num_changes - num_files} of them "
        f"back; {num_lines:,} lines"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
