"""Files that are whole or not there, and locks that go with their process."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from prep.files import Lock, write_atomically


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("[enforce fail] unexpected pos 8")]
)
def test_a_full_disk_leaves_what_was_there_and_is_said_in_words(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(OSError, match=r"model.pt could not be written \(.*MB are free there\): make room"):
        write_atomically(path, fail)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.pt", b"old")]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    script = (
        "import sys; from prep.files import Lock; from pathlib import Path\n"
        f"with Lock(Path({str(path)!r}), 'taken', 'go'): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, cwd=Path(__file__).parents[1]) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"taken \(it holds .*\.lock\): wait for it, or go"):
            Lock(path, "taken", "go")
        other.kill()
        other.wait()
    with Lock(path, "taken", "go"):
        assert path.exists()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot be written .*: give another -o"):
        Lock(tmp_path / "out" / ".lock", "", "give another -o")
