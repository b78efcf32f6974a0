"""Rows of a shard, joined from stretches of runs: any lengths, any dtype, however long a run is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.build import write
from prep.build.write import Column, lay_out

WIDTH = 24  # bytes of short stretches lie in a view itself: 12 bytes are 12 of a mask, 6 of 16 bits, 3 of 32


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4"])
@pytest.mark.parametrize("reach", [1 << 30, 64])  # 64: every run lies in several buffers
@given(st.data())
def test_rows_are_their_pieces_one_after_the_other(dtype: str, reach: int, data: st.DataObject) -> None:
    runs = [np.arange(100 * i, 100 * i + size, dtype=dtype) for i, size in enumerate((100, 1, 77))]
    rows, wanted = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        left, row = WIDTH, list[int]()
        docs = []
        while left > 1 and data.draw(st.booleans(), "one more piece"):
            run = data.draw(st.integers(0, 2))
            lead = data.draw(st.integers(0, 1))
            first = data.draw(st.integers(0, len(runs[run]) - 1))
            length = data.draw(st.integers(1, min(left - lead, len(runs[run]) - first)))
            docs.append((run, first, length, lead))
            row += [7] * lead + runs[run][first : first + length].tolist()
            left -= length + lead
        rows.append((docs, left))
        wanted.append(row + [7] * left)
    pieces = np.array([doc for docs, _ in rows for doc in docs], dtype=np.int64).reshape(-1, 4)
    per_row, free = np.array([len(docs) for docs, _ in rows]), np.array([left for _, left in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "REACH", reach)
        column = Column(runs, np.full(WIDTH, 7, dtype=dtype))
        run_of, first, length, lead = pieces.T
        found = column.rows(*lay_out(run_of, first, length, lead, per_row, free, len(runs)))
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == wanted
