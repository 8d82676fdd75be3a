"""Tasks: what is learned, as Lightning sees it."""

from gpt4o_lit.tasks.classification import Classification
from gpt4o_lit.tasks.extractive_qa import ExtractiveQA
from gpt4o_lit.tasks.instruction_tuning import InstructionTuning
from gpt4o_lit.tasks.preference_tuning import PreferenceTuning
from gpt4o_lit.tasks.pretraining import Pretraining
from gpt4o_lit.tasks.sequence_to_sequence import SequenceToSequence
from gpt4o_lit.tasks.task import Task
from gpt4o_lit.tasks.token_classification import TokenClassification

__all__ = [
    "Classification",
    "ExtractiveQA",
    "InstructionTuning",
    "PreferenceTuning",
    "Pretraining",
    "SequenceToSequence",
    "Task",
    "TokenClassification",
]
