"""The network: an encoder, a decoder, or both, between token vectors and a head."""

from torch import Tensor, nn

from gpt4o_lit.model.cache import KVCache
from gpt4o_lit.model.config import TransformerConfig
from gpt4o_lit.model.head import Head
from gpt4o_lit.model.initialize import initialize_
from gpt4o_lit.model.linear import Embedding
from gpt4o_lit.model.mask import compute_dtype, cross_mask
from gpt4o_lit.model.stack import Stack

# B batch, T target tokens, S source tokens, D dim, V vocab


class Transformer(nn.Module):
    """Which stacks the config gives decides what it is: decoder, encoder, or encoder-decoder.

    `documents_BT` holds an id per token: equal ids are one document, documents never see one
    another, and positions restart with each; -1 is padding. None: each row is one document.

    Raises:
        ValueError: the config has no stack, or no vocab_size.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if not config.has_stacks:
            raise ValueError(
                "encoder and decoder are both missing, but a Transformer needs a stack; "
                "give encoder, decoder or both"
            )
        if config.vocab_size is None:
            raise ValueError(
                "transformer.vocab_size is missing; set it to the number of the tokenizer's pieces"
            )
        self.config = config
        self.tokens = Embedding(config.vocab_size, config.dim)
        both = config.encoder is not None and config.decoder is not None
        length = config.max_seq_len
        self.encoder = (
            Stack(config.encoder, causal=False, cross=False, max_seq_len=length)
            if config.encoder
            else None
        )
        self.decoder = (
            Stack(config.decoder, causal=True, cross=both, max_seq_len=length)
            if config.decoder
            else None
        )
        self.head = Head(config, self.tokens)
        self.initialize()

    def initialize(self) -> None:
        """Fill the weights from PyTorch's random generator; does nothing on the meta device."""
        if self.tokens.weight.is_meta:
            return
        initialize_(self, self.config.init_std)
        if not self.config.ties_head:
            nn.init.normal_(self.head.weight, std=self.config.init_std)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        source_BS: Tensor | None = None,
        documents_BT: Tensor | None = None,
        source_documents_BS: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        cache: KVCache | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits of shape (B, T, V); the arguments are those of `hidden`."""
        return self.head(
            self.hidden(
                tokens_BT,
                source_BS=source_BS,
                documents_BT=documents_BT,
                source_documents_BS=source_documents_BS,
                prefix_BT=prefix_BT,
                cache=cache,
                types_BT=types_BT,
            )
        )

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        source_BS: Tensor | None = None,
        documents_BT: Tensor | None = None,
        source_documents_BS: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        cache: KVCache | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of shape (B, T, D).

        Args:
            tokens_BT: Read by the decoder, or by the encoder where there is no decoder.
            source_BS: Read by the encoder of an encoder-decoder; with a cache needed only at first.
            documents_BT: Documents of `tokens_BT`.
            source_documents_BS: Documents of `source_BS`.
            prefix_BT: True where a token is seen by every token of its document (prefix LM).
            cache: Keys and values so far; `tokens_BT` go on behind them and are added to it.
            types_BT: Types of `tokens_BT`, for an encoder alone that has `num_token_types`.
                None: all are of the first.

        Raises:
            ValueError: a row is longer than max_seq_len, or a source is missing or not wanted.
        """
        self._check(tokens_BT, source_BS, cache)
        if self.decoder is None:
            return self.encode(tokens_BT, documents_BT, types_BT)
        memory_BSD, memory_mask = None, None
        if self.encoder is not None:
            if source_BS is not None and (cache is None or not cache.cross):
                memory_BSD = self.encode(source_BS, source_documents_BS)
                if cache is not None:
                    cache.source_documents_BS = source_documents_BS
            if cache is not None:
                source_documents_BS = cache.source_documents_BS
            targets = None if cache is not None else documents_BT
            dtype = compute_dtype(self.tokens.weight)
            memory_mask = cross_mask(targets, source_documents_BS, dtype)
        hidden_BTD = self.decoder(
            self.tokens(tokens_BT), documents_BT, prefix_BT, memory_BSD, memory_mask, cache
        )
        if cache is not None:
            cache.advance(tokens_BT.shape[1], documents_BT)
        return hidden_BTD

    def encode(
        self,
        source_BS: Tensor,
        source_documents_BS: Tensor | None = None,
        types_BS: Tensor | None = None,
    ) -> Tensor:
        """The encoder's hidden states of shape (B, S, D)."""
        assert self.encoder is not None, "encode needs an encoder"
        return self.encoder(self.tokens(source_BS), source_documents_BS, types_BT=types_BS)

    def _check(self, tokens_BT: Tensor, source_BS: Tensor | None, cache: KVCache | None) -> None:
        longest = self.config.max_seq_len
        length = tokens_BT.shape[1] + (cache.used if cache is not None else 0)
        longest_given = max(length, 0 if source_BS is None else source_BS.shape[1])
        if longest_given > longest:
            raise ValueError(
                f"a row has {longest_given} tokens, more than max_seq_len ({longest}); "
                "shorten it or raise max_seq_len"
            )
        if cache is not None:
            cache.require_room(tokens_BT.shape[1])
        both = self.encoder is not None and self.decoder is not None
        if source_BS is not None and not both:
            raise ValueError(
                "source_BS is given, but the network is no encoder-decoder; leave it out"
            )
        if both and source_BS is None and (cache is None or not cache.cross):
            raise ValueError(
                "an encoder-decoder needs source_BS, the tokens that its encoder reads"
            )
