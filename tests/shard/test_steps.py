"""The rows of one step are found without those before it, and are those of the plain rule."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis.strategies import floats, integers, lists, none, one_of

from prep.shard.steps import make_plan, step_sums, steps_plainly, sum_of_run


@given(
    counts=lists(integers(0, 9), min_size=1, max_size=30),
    rows_per_step=integers(1, 40),
    num_iterations=one_of(none(), integers(1, 12)),
    num_epochs=floats(0.1, 3.5),
    seed=integers(0, 5),
)
def test_the_rows_of_each_step_are_those_of_the_plain_rule(
    counts: list[int], rows_per_step: int, num_iterations: int | None, num_epochs: float, seed: int
) -> None:
    assume(any(counts))
    plan = make_plan(np.array(counts), rows_per_step, num_iterations, num_epochs, seed)
    plainly = steps_plainly(plan)
    assert len(plainly) == plan.num_steps
    assert [plan.rows_of_step(step).tolist() for step in range(plan.num_steps)] == plainly
    targets = [sum(counts[row] for row in rows if row >= 0) for rows in plainly]
    assert [plan.targets_of_step(step) for step in range(plan.num_steps)] == targets
    assert step_sums(plan, plan.num_targets).tolist() == targets
    assert sum_of_run(plan, plan.num_targets) == sum(targets)


def test_a_run_of_no_step_is_refused_and_one_of_very_many_is_summed_at_once() -> None:
    counts = np.arange(1, 8)
    with pytest.raises(ValueError, match=r"1e-10 epochs of 7 rows are no step: give more --num-epochs"):
        make_plan(counts, 2, None, 1e-10, 42)
    plan = make_plan(counts, 7, 10**11, 1.0, 42)
    assert sum_of_run(plan, plan.num_targets) == 28 * 10**11
