"""Output layers fitted anew where heads and channels go: what stays makes good for them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.compression.calibration import Forward, Reduce, blocks_in_turn, gram, measure_inputs
from gpt4o_lit.compression.second_order import DAMPING
from gpt4o_lit.compression.structure import Kept, axes_of
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.linear import Linear

# O outputs, I inputs, K inputs that stay, G inputs that go, J all of them


@torch.no_grad()
def refit_(network: Transformer, kept: Kept, forwards: Sequence[Forward], reduce: Reduce) -> None:
    """Fit each layer behind heads or channels to give without some of them what it gave with all.

    By least squares, as ZipLM does (arXiv:2302.04089); block after block, each on what the fitted
    ones before it give. What goes has no weight afterwards, so that `cut_` changes nothing more.

    Args:
        kept: What stays.
        forwards: Each reads a batch by the whole network, in evaluation mode.
        reduce: Sums a tensor over the processes, which read different batches.
    """
    axes = axes_of(network, kept)
    columns = {
        name.removesuffix(".weight"): axes[name][1]
        for name in axes
        if name.endswith((".output.weight", ".down.weight"))
    }
    with torch.compiler.set_stance("force_eager"):
        for block, _, run in blocks_in_turn(network, forwards):
            inside = {
                name: kept_K
                for name, kept_K in columns.items()
                if name.startswith(f"{block}.") and kept_K is not None
            }
            grams = measure_inputs(network, dict.fromkeys(inside, _gram_with_one), run)
            for name, kept_K in inside.items():
                layer = network.get_submodule(name)
                assert isinstance(layer, Linear)
                fit_(layer, reduce(grams[name]), kept_K)


@torch.no_grad()
def fit_(layer: Linear, gram_JJ: Tensor, kept_K: Tensor) -> None:
    """Give the inputs that stay, and the bias if there is one, what those that go had to say.

    Args:
        gram_JJ: Products of each two inputs, summed over tokens, the last input being always 1.
        kept_K: The inputs that stay.
    """
    weight_OI = layer.weight
    goes_I = torch.ones(weight_OI.shape[1], dtype=torch.bool, device=weight_OI.device)
    goes_I[kept_K] = False
    goes_G = goes_I.nonzero().squeeze(1)
    known = kept_K if layer.bias is None else F.pad(kept_K, (0, 1), value=len(goes_I))
    among = gram_JJ[known][:, known]
    of_inputs = among.diagonal()[: len(kept_K)]
    of_inputs += DAMPING * of_inputs.mean()
    of_known = torch.linalg.solve(among, gram_JJ[known][:, goes_G])
    more = weight_OI[:, goes_G].float() @ of_known.T
    weight_OI[:, kept_K] += more[:, : len(kept_K)]
    weight_OI[:, goes_G] = 0
    if layer.bias is not None:
        layer.bias.add_(more[:, -1])


def _gram_with_one(x_MI: Tensor) -> Tensor:
    return gram(F.pad(x_MI, (0, 1), value=1.0))
