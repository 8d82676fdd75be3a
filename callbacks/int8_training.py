"""Training that multiplies whole numbers, to take less time."""

from typing import Any, ClassVar

from lightning import Callback, Trainer

from gpt4o_lit.callbacks.combining import Refused, require_combinable
from gpt4o_lit.callbacks.lora import LoRA
from gpt4o_lit.callbacks.quantization import QuantizationAwareTraining
from gpt4o_lit.compression import Targets, use_int8_products_


class Int8Training(Callback):
    """Multiplies whole numbers of 8 bits in training, to take less time (arXiv:2304.13013).

    What a layer reads and its weight are rounded anew for each product, and so are the slopes that
    it hands back; slopes of weights are exact. Weights, checkpoints and all that is measured are as
    without it. Pays where a processor multiplies int8 faster than bfloat16, and beside bf16-mixed.

    Args:
        targets: The matrices. Default: those of attention and feed-forward.
        enabled: False does nothing.
    """

    needs_whole_layers: ClassVar[bool] = True
    refuses: ClassVar[Refused] = {
        QuantizationAwareTraining: "rounds what Int8Training would round; take one of them out"
    }

    def __init__(self, targets: Targets | None = None, enabled: bool = True) -> None:
        self.targets, self.enabled = targets or Targets(), enabled

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Have the network prepared as soon as it is built, for training alone."""
        if self.enabled and stage == "fit":
            require_combinable(self, trainer)
            self._require_floats(trainer)
            pl_module.amendments.append(lambda net: use_int8_products_(net, self.targets))

    def _require_floats(self, trainer: Any) -> None:
        """Refuse weights that are stored as whole numbers, of other formats."""
        for other in trainer.callbacks:
            if isinstance(other, LoRA) and other.enabled and other.quantize is not None:
                raise ValueError(
                    "LoRA stores weights as whole numbers that Int8Training cannot multiply; leave "
                    "LoRA's quantize out, or take Int8Training out"
                )
