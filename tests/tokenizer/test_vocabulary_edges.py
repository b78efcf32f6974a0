"""Builds at the edges of 16 bits can be trained on: 32,768, 65,535, 65,536 and 65,537 ids."""

import json
import subprocess
import sys
from pathlib import Path

from prep.tokenizer.tokenizer import Tokenizer
from tests.build.test_build import MIXTURE, write_sources
from tests.conftest import build_mixture, toy_tokenizer

SCRIPT = """
import sys
from train.mid import main
for root in sys.argv[1:]:
    main(["--shards", root, "--depth", "1", "--device", "cpu", "--num-iterations", "2", "--total-batch-size", "256",
          "--eval-every", "0", "--out", root + "-run"])
"""


def test_every_edge_is_trained_on(tmp_path: Path) -> None:
    toy = toy_tokenizer()
    write_sources(tmp_path)
    roots = []
    for vocab_size in (32_768, 65_535, 65_536, 65_537):
        special = {name: vocab_size - 9 + i for i, name in enumerate(toy.special_tokens)}
        tokenizer = Tokenizer("edge", toy.ranks, toy.pattern, special)
        roots.append(build_mixture(tmp_path, MIXTURE, tokenizer, str(vocab_size), max_seq_len=128)[0])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, roots)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    for root in roots:
        lines = next(Path(f"{root}-run").rglob("metrics.jsonl")).read_text().splitlines()
        losses = [entry["loss"] for line in lines if "loss" in (entry := json.loads(line))]
        assert len(losses) == 2
        assert losses[1] < losses[0]
