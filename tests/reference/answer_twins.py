"""Answers judged the slow way, character by character, after the scripts of SQuAD v1.1 and MLQA."""

import re
import unicodedata

ASCII_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
FULL_WIDTH_MARKS = "".join(chr(ord(mark) + 0xFEE0) for mark in ASCII_MARKS)


def squad_tokens(text: str) -> list[str]:
    """Of normalize_answer in evaluate-v1.1.py."""
    kept = "".join(character for character in text.lower() if character not in ASCII_MARKS)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def chinese_tokens(text: str) -> list[str]:
    """Of mixed_segmentation in mlqa_evaluation_v1.py: runs of others, and Chinese one by one."""
    tokens, run = [], ""
    for character in text.lower():
        is_mark = unicodedata.category(character)[0] == "P"
        if is_mark or character in ASCII_MARKS or character in FULL_WIDTH_MARKS:
            continue
        if "\u4e00" <= character <= "\u9fff":
            tokens += [*run.split(), character]
            run = ""
        else:
            run += character
    return tokens + run.split()


def f1_twin(given: list[str], asked: list[str]) -> float:
    """The common tokens are found one at a time and struck out."""
    left, same = list(asked), 0
    for token in given:
        if token in left:
            left.remove(token)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(asked)
    return 2 * precision * recall / (precision + recall)
