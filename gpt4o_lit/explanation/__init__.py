"""A look inside: attention, rollout, logit lens and attributions of one text."""

from gpt4o_lit.explanation.attribution import Attribution, attribute
from gpt4o_lit.explanation.explain import Explanation, explain
from gpt4o_lit.explanation.labels import Labels
from gpt4o_lit.explanation.lens import Guess, logit_lens
from gpt4o_lit.explanation.page import write_page
from gpt4o_lit.explanation.record import Record, record, rollout

__all__ = [
    "Attribution",
    "Explanation",
    "Guess",
    "Labels",
    "Record",
    "attribute",
    "explain",
    "logit_lens",
    "record",
    "rollout",
    "write_page",
]
