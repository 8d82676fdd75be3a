"""The objectives again, one piece at a time; only the random draws are taken as a whole."""

import torch
from torch import Tensor

from gpt4o_lit.objectives import Draws, Vocabulary

Rows = list[list[int]]


def runs(documents: list[int]) -> list[tuple[int, int]]:
    """(first, end) of each stretch of one document."""
    found, first = [], 0
    for place in range(1, len(documents) + 1):
        if place == len(documents) or documents[place] != documents[first]:
            found.append((first, place))
            first = place
    return found


def causal_twin(tokens_BT1: Tensor, documents_BT1: Tensor) -> Rows:
    """Targets."""
    targets = []
    for tokens, documents in zip(tokens_BT1.tolist(), documents_BT1.tolist(), strict=True):
        row = []
        for place in range(len(tokens) - 1):
            same = documents[place] == documents[place + 1] != -1
            row.append(tokens[place + 1] if same else -100)
        targets.append(row)
    return targets


def fim_twin(
    tokens_BT: Tensor,
    documents_BT: Tensor,
    vocabulary: Vocabulary,
    rate: float,
    spm_rate: float,
    draws: Draws,
) -> Rows:
    """Rearranged tokens."""
    drawn = draws.rand(tokens_BT.shape[1], 4).tolist()
    marks = vocabulary.fim_ids
    result = []
    for row, (tokens, documents) in enumerate(
        zip(tokens_BT.tolist(), documents_BT.tolist(), strict=True)
    ):
        out: list[int] = []
        for first, end in runs(documents):
            document = tokens[first:end]
            head = document[:1] if document[0] == vocabulary.bos_id else []
            tail = document[-1:] if document[-1] == vocabulary.eos_id else []
            body = document[len(head) : len(document) - len(tail)]
            chosen, order, one, other = drawn[row][first]
            if documents[first] == -1 or chosen >= rate or len(body) < 4:
                out += document
                continue
            body = body[:-3]
            low, high = sorted(int(torch.tensor(cut) * (len(body) + 1)) for cut in (one, other))
            before, middle, after = body[:low], body[low:high], body[high:]
            if order < spm_rate:
                body = [marks["prefix"], marks["suffix"], *after, marks["middle"], *before, *middle]
            else:
                body = [marks["prefix"], *before, marks["suffix"], *after, marks["middle"], *middle]
            out += head + body + tail
        result.append(out)
    return result


def masked_twin(
    tokens_BT: Tensor,
    documents_BT: Tensor,
    vocabulary: Vocabulary,
    shares: tuple[float, float, float],
    whole_words: bool,
    draws: Draws,
) -> tuple[Rows, Rows]:
    """Tokens and targets."""
    rate, mask_share, random_share = shares
    chosen, how, piece = draws.rand(3, tokens_BT.shape[1]).transpose(0, 1).tolist()
    ordinary = [i for i in range(vocabulary.size) if i not in vocabulary.special_ids]
    hidden, targets = [], []
    for row, (tokens, documents) in enumerate(
        zip(tokens_BT.tolist(), documents_BT.tolist(), strict=True)
    ):
        hidden.append(list(tokens))
        targets.append([-100] * len(tokens))
        word = 0
        for place, token in enumerate(tokens):
            maskable = token in ordinary and documents[place] != -1
            goes_on = (
                whole_words
                and place > 0
                and maskable
                and documents[place] == documents[place - 1]
                and tokens[place - 1] in ordinary
                and not vocabulary.starts_word[token]
            )
            word = word if goes_on else place
            if not maskable or chosen[row][word] >= rate:
                continue
            targets[row][place] = token
            if how[row][place] < mask_share:
                hidden[row][place] = vocabulary.mask_id
            elif how[row][place] < mask_share + random_share:
                hidden[row][place] = ordinary[int(piece[row][place] * len(ordinary))]
    return hidden, targets


def prefix_twin(
    tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws
) -> tuple[Rows, list[list[bool]]]:
    """Targets and prefix."""
    drawn = draws.rand(documents_BT1.shape[1] - 1).tolist()
    targets = causal_twin(tokens_BT1, documents_BT1)
    prefixes = []
    for row, documents in enumerate(documents_BT1[:, :-1].tolist()):
        prefix = [False] * len(documents)
        for first, end in runs(documents):
            length = int(drawn[row][first] * (end - first))
            for place in range(first, first + length):
                prefix[place] = documents[place] != -1
                if place < first + length - 1:
                    targets[row][place] = -100
        prefixes.append(prefix)
    return targets, prefixes


def lengths_twin(total: int, parts: int, draws: Draws) -> Rows:
    """T5's `_random_segmentation`: cut where the smallest draws lie."""
    result = []
    for drawn in draws.rand(total - 1).tolist():
        cuts = sorted(sorted(range(total - 1), key=lambda place: drawn[place])[: parts - 1])
        bounds = [0, *(cut + 1 for cut in cuts), total]
        result.append([bounds[i + 1] - bounds[i] for i in range(parts)])
    return result


def spans_twin(
    tokens_BT: Tensor,
    documents_BT: Tensor,
    vocabulary: Vocabulary,
    num_hidden: int,
    num_spans: int,
    draws: Draws,
) -> dict[str, Rows]:
    """All fields of the example by name."""
    num_rows, seq_len = tokens_BT.shape
    hidden_lengths = lengths_twin(num_hidden, num_spans, draws)
    seen_lengths = lengths_twin(seq_len - num_hidden, num_spans, draws)
    names = ("tokens", "targets", "documents", "source", "source_documents")
    example: dict[str, Rows] = {name: [] for name in names}
    for row in range(num_rows):
        tokens, documents = tokens_BT[row].tolist(), documents_BT[row].tolist()
        source, said = [], []
        used: dict[int, int] = {}
        place = 0
        for seen, hidden in zip(seen_lengths[row], hidden_lengths[row], strict=True):
            source += [(tokens[i], documents[i]) for i in range(place, place + seen)]
            place += seen
            home = documents[place]
            sentinel = vocabulary.sentinel_ids[used.get(home, 0)]
            used[home] = used.get(home, 0) + 1
            source.append((sentinel, home))
            said.append((sentinel, home))
            for i in range(place, place + hidden):
                said.append((tokens[i], home if documents[i] == home else -1))
            place += hidden
        said.append((vocabulary.eos_id, said[-1][1]))
        read, asked = [], []
        for i, (token, home) in enumerate(said):
            follows = i > 0 and said[i - 1][1] == home
            read.append(said[i - 1][0] if follows else vocabulary.pad_id)
            asked.append(token if home != -1 else -100)
        example["tokens"].append(read)
        example["targets"].append(asked)
        example["documents"].append([home for _, home in said])
        example["source"].append([token for token, _ in source])
        example["source_documents"].append([home for _, home in source])
    return example
