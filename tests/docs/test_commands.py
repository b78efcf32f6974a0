"""docs/commands.md is what the programs say of themselves."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_command_reference_is_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "make_commands.py"), "--print"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert made == (DOCS / "commands.md").read_text(encoding="utf-8"), (
        "docs/commands.md is out of date: run `make docs`"
    )
    assert max(map(len, made.splitlines())) <= 120
    assert "- `--max-seq-len NUMBER` (default `2048`): " in made
    assert "## midprep tokenizer export" in made
    assert "- `--mode mid|sft` (default `mid`): " in made
