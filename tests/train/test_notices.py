"""What a run says of its speed before it starts."""

from pathlib import Path

import pytest

from prep import cpu
from train.setup import notices_of_speed


@pytest.mark.parametrize(("flags", "slow"), [("fpu avx512_bf16", True), ("fpu amx_bf16 amx_tile", False), (None, True)])
def test_bfloat16_on_a_cpu_without_amx_is_said(
    flags: str | None, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        cpu.CPUINFO.write_text(f"processor : 0\nflags : {flags}\n")
    said = "bfloat16 is slower than float32 on this CPU, which has no AMX: leave out --dtype"
    assert list(notices_of_speed("bfloat16", "cpu", False)) == ([said] if slow else [])
    assert list(notices_of_speed("float32", "cpu", False)) == []
    assert list(notices_of_speed("bfloat16", "cuda", False)) == []


def test_compiling_is_said() -> None:
    assert ["compile the model" in line for line in notices_of_speed("float32", "cpu", True)] == [True]
