"""The best span is the best of all that are allowed."""

import torch

from gpt4o_lit.evaluation.spans import best_spans


def test_the_best_span_is_the_best_of_all() -> None:
    starts, ends = torch.randn(5, 12), torch.randn(5, 12)
    may = torch.rand(5, 12) < 0.7
    may[:, 3] = True
    scores, begins, lasts = best_spans(starts, ends, may, longest=4)
    for row in range(5):
        allowed = {
            (a, b): float(starts[row, a] + ends[row, b])
            for a in range(12)
            for b in range(a, min(a + 4, 12))
            if may[row, a] and may[row, b]
        }
        best = max(allowed, key=lambda span: allowed[span])
        assert (int(begins[row]), int(lasts[row])) == best
        assert float(scores[row]) == allowed[best]
