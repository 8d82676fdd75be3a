"""How right an output is: as an answer by SQuAD's rules, in Chinese or Japanese too, or as code."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Characters that stand for a word or part of one with no blanks between: Han, kana and bopomofo.
_RANGES = (
    r"\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf"
    r"\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003fffd"
)
CJK = re.compile(f"([{_RANGES}])")
WORD = re.compile(rf"[^\W{_RANGES}]+")
_FULL_WIDTH = re.compile(rf"[{_RANGES}\u3000-\u303f\uff00-\uff65]")
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def exact_match(output: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references but for case, punctuation, articles and blanks.

    The rules of SQuAD v1.1 (arXiv:1606.05250). Note that they hold the letter A for an article: an
    answer "A" is as good as none.
    """
    return float(answer_tokens(output) in [answer_tokens(each) for each in references])


def token_f1(output: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the answer's tokens; of the references the best.

    By the rules of SQuAD v1.1 an answer without tokens scores 0, even beside a reference that has
    none. In Chinese it is on a bag of characters, as in MLQA (arXiv:1910.07475); the script of
    CMRC 2018 (arXiv:1810.07366) counts the longest run of characters that both have instead.
    """
    given = Counter(answer_tokens(output))
    return max(_f1(given, Counter(answer_tokens(each))) for each in references)


def code_match(output: str, references: Sequence[str]) -> float:
    """1 where the output is one of the references but for how many blanks stand where some do."""
    return float(output.split() in [each.split() for each in references])


def answer_tokens(text: str) -> list[str]:
    """What SQuAD v1.1 compares of an answer; each CJK character is a token of its own.

    ASCII punctuation goes. Where the text has a CJK character or a full-width mark, so does all
    punctuation of Unicode and the full-width twin of each ASCII mark; elsewhere, as in SQuAD's
    script, a curly quotation mark stays.
    """
    text = text.lower()
    is_mark = _is_any_mark if _FULL_WIDTH.search(text) else _is_ascii_mark
    text = "".join(character for character in text if not is_mark(character))
    return CJK.sub(r" \1 ", _ARTICLE.sub(" ", text)).split()


def _is_ascii_mark(character: str) -> bool:
    return character in string.punctuation


def _is_any_mark(character: str) -> bool:
    narrow = unicodedata.normalize("NFKC", character)
    return narrow in string.punctuation or unicodedata.category(character).startswith("P")


def _f1(given: Counter[str], asked: Counter[str]) -> float:
    same = (given & asked).total()
    return 2 * same / (given.total() + asked.total()) if same else 0.0
