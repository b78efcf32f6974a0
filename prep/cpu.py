"""What this machine's CPU can do, as Linux tells it: "flags : fpu ... amx_bf16 amx_tile" in /proc/cpuinfo."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 itself; False where nothing tells"""
    try:
        return "amx_bf16" in CPUINFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
