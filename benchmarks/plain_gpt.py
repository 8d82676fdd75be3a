"""A GPT in plain PyTorch, in the form that nanoGPT made common: the peer without a framework."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# B batch, T tokens, D dim, N heads, H head_dim


class PlainBlock(nn.Module):
    """Layer norm, causal attention, layer norm, GELU feed-forward; no biases."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.LayerNorm(dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, length, dim = x_BTD.shape
        heads = (batch, length, self.num_heads, dim // self.num_heads)
        qkv = self.qkv(self.attention_norm(x_BTD)).split(dim, dim=2)
        q, k, v = (part.view(heads).transpose(1, 2) for part in qkv)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.output(mixed.transpose(1, 2).reshape(batch, length, dim))
        return x_BTD + self.down(F.gelu(self.up(self.ffn_norm(x_BTD))))


class PlainGPT(nn.Module):
    """Token and position embeddings, blocks, a tied output matrix; returns the mean loss."""

    def __init__(
        self, num_layers: int, dim: int, num_heads: int, vocab_size: int, max_seq_len: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(max_seq_len, dim)
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        places = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTD = self.tokens(tokens_BT) + self.positions(places)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV = self.head(self.norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
