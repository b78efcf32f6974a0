"""
The schedule: every number of a step as a pure function of the step.

    lr    1.0 ------------------------.                     850 rows, 64 a step: 14 steps
                                        `.   to 0           1.0 until 80 % of them, then down in a straight line
    step  0                       80 %    100 %

Nothing here counts, remembers or reads a clock, so a resumed run continues where it was and a plan can be printed
before training starts.
"""

REFERENCE_BATCH = 524_288  # tokens a step, nanochat's
MIN_STEPS = 50


def lr_multiplier(step: int, num_steps: int, warmdown_ratio: float, init_lr_frac: float) -> float:
    """
    >>> [lr_multiplier(step, 20, 0.2, 1.0) for step in (0, 15, 18)]
    [1.0, 1.0, 0.5000000000000001]
    """
    progress, start = step / num_steps, 1 - warmdown_ratio
    down = 1.0 if progress < start or warmdown_ratio == 0 else 1 - (progress - start) / warmdown_ratio
    return init_lr_frac * down


def muon_momentum(step: int) -> float:
    """0.85 at the start, 0.95 from step 300 on."""
    frac = min(step / 300, 1.0)
    return (1 - frac) * 0.85 + frac * 0.95


def default_rows_per_step(num_rows: float, max_seq_len: int) -> int:
    """
    Rows a step: nanochat's 524,288 tokens, or the power of two that gives `num_rows` at least 50 steps.

    >>> default_rows_per_step(850, 2048), default_rows_per_step(10**6, 2048), default_rows_per_step(7, 2048)
    (16, 256, 1)
    """
    rows = 1
    while rows * 2 * max_seq_len <= REFERENCE_BATCH and rows * 2 * MIN_STEPS <= num_rows:
        rows *= 2
    return rows


def choose_device_batch(rows_per_step: int, world_size: int, max_seq_len: int, wanted: int | None, limit: int) -> int:
    """
    Rows of one micro-batch of one rank: `wanted`, or the largest divisor of a rank's share up to `limit`.

    ValueError where a step does not come out even, with the total batch sizes nearest to it that do.
    """
    unit = world_size * (wanted or 1)
    if rows_per_step % unit:
        below, above = rows_per_step // unit * unit, -(-rows_per_step // unit) * unit
        sizes = " or ".join(f"{rows * max_seq_len:,}" for rows in (below, above) if rows)
        raise ValueError(
            f"a total batch of {rows_per_step * max_seq_len:,} tokens is {rows_per_step} rows of {max_seq_len}, not a "
            f"multiple of {world_size} ranks x {wanted or 1} rows: give --total-batch-size {sizes.replace(',', '')}"
        )
    share = rows_per_step // world_size
    return wanted or max(size for size in range(1, min(share, limit) + 1) if share % size == 0)
