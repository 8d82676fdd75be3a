"""What the pieces of a row are to one another, for a network that has vectors for it."""

from torch import Tensor

from gpt4o_lit.model.transformer import Transformer

# B texts, T pieces


def token_types(network: Transformer, tokens_BT: Tensor, eos_id: int) -> Tensor | None:
    """Types of pieces, (B, T); None for a network that has fewer than two.

    0: the first text of a row and the eos behind it. 1: what follows, as BERT's segments
    (arXiv:1810.04805). Where there are three types, 2: what follows and is in the first text too,
    a question say, as the exact match of DrQA (arXiv:1704.00051).
    """
    stack = network.config.encoder
    if stack is None or stack.num_token_types < 2:
        return None
    is_eos_BT = tokens_BT == eos_id
    after_BT = is_eos_BT.cumsum(1) - is_eos_BT.long() > 0
    if stack.num_token_types == 2:
        return after_BT.long()
    same_BTT = tokens_BT[:, :, None] == tokens_BT[:, None, :]
    shared_BT = (same_BTT & ~after_BT[:, None, :]).any(2) & ~is_eos_BT
    return after_BT.long() + (after_BT & shared_BT).long()
