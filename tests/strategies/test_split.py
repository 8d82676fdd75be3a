"""What is cut in parts is whole again when they are put together, and fits what computes."""

import pytest
import torch

from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.strategies.split import Split, require_shares, splits_of


@pytest.mark.parametrize("split", [Split(0), Split(1), Split(0, (4, 2, 2)), Split(0, (4, 4))])
def test_parts_put_together_are_the_whole(split: Split) -> None:
    whole = torch.randn(8, 6)
    parts = [split.own(whole, rank, 2) for rank in range(2)]
    assert torch.equal(split.joined(parts), whole)
    assert sum(part.numel() for part in parts) == whole.numel()


def test_each_process_has_its_own_rows_of_each_matrix() -> None:
    whole = torch.arange(8)[:, None]  # queries 0 to 3, keys 4 and 5, values 6 and 7
    assert Split(0, (4, 2, 2)).own(whole, 1, 2).flatten().tolist() == [2, 3, 5, 7]


def test_all_large_matrices_are_cut_and_no_norm_is() -> None:
    stack = StackConfig(
        num_layers=1,
        dim=8,
        attention=AttentionConfig(num_heads=2, qkv_bias=True, output_bias=True, qk_norm=True),
        feed_forward=FeedForwardConfig(bias=True),
    )
    network = Transformer(TransformerConfig(encoder=stack, decoder=stack, vocab_size=10))
    splits = splits_of(network)
    for name, weight in network.named_parameters():
        narrows = name.endswith(("output.bias", "down.bias"))  # added once, to the sum
        assert (name in splits) == ("norm" not in name and not narrows), name
        if name in splits:
            assert weight.shape[splits[name].dim] % 2 == 0


def network(**changed: int) -> TransformerConfig:
    sizes = {"heads": 4, "kv_heads": 2, "ffn_dim": 12, "pieces": 10} | changed
    stack = StackConfig(
        num_layers=1,
        dim=24,
        attention=AttentionConfig(num_heads=sizes["heads"], num_kv_heads=sizes["kv_heads"]),
        feed_forward=FeedForwardConfig(ffn_dim=sizes["ffn_dim"]),
    )
    return TransformerConfig(decoder=stack, vocab_size=sizes["pieces"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"heads": 3, "kv_heads": 3}, r"decoder.attention.num_heads \(3\) .* set it to 4"),
        ({"kv_heads": 1}, r"decoder.attention.num_kv_heads \(1\) .* set it to 2"),
        ({"ffn_dim": 13}, r"decoder.feed_forward.ffn_dim \(13\) .* set it to 14"),
        ({"pieces": 367}, r"vocab_size \(367\) .* set it to 368"),
    ],
)
def test_what_cannot_be_dealt_out_is_refused_with_the_mend(
    changed: dict[str, int], told: str
) -> None:
    require_shares(network(), 2)
    with pytest.raises(ValueError, match=told):
        require_shares(network(**changed), 2)
