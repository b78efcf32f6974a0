"""
The schedule: numbers of a step as pure functions of the step.

    lr    1.0 ------------------------.                     850 rows, 64 per step: 14 steps
                                        `.   to 0           1.0 until 80 % of them, then linearly to 0
    step  0                       80 %    100 %

Nothing here has state, so a resumed run continues where it was, and a plan can be printed before the run.
"""

LR_FRAC = {"mid": 1.0, "sft": 0.02}  # --init-lr-frac, by mode


def lr_multiplier(step: int, num_steps: int, warmdown_ratio: float, init_lr_frac: float) -> float:
    """
    >>> [lr_multiplier(step, 20, 0.2, 1.0) for step in (0, 15, 18)]
    [1.0, 1.0, 0.5000000000000001]
    """
    progress, start = step / num_steps, 1 - warmdown_ratio
    down = 1.0 if progress < start or warmdown_ratio == 0 else 1 - (progress - start) / warmdown_ratio
    return init_lr_frac * down


def is_due(steps_done: int, every: int, num_steps: int) -> bool:
    """
    Every so many steps, and after the last; never with 0.

    >>> [steps_done for steps_done in range(1, 8) if is_due(steps_done, 3, 7)], is_due(7, 0, 7)
    ([3, 6, 7], False)
    """
    return every > 0 and (steps_done == num_steps or steps_done % every == 0)


def muon_momentum(step: int) -> float:
    """0.85 at the start, 0.95 from step 300 on."""
    frac = min(step / 300, 1.0)
    return (1 - frac) * 0.85 + frac * 0.95
