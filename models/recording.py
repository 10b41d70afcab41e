"""Record of what the parts of every block read and write in a forward, by hooks that are gone when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from twinlens.models.anatomy import Anatomy
from twinlens.models.forwards import first

Keep = Callable[[str, int, Tensor], None]
"""(what it is, layer, tensor [batch, tokens, width]) → None."""


@contextmanager
def recording(anatomy: Anatomy, shape: Sequence[int], keep: Keep, *names: str) -> Iterator[None]:
    """Hand over parts of every block in the order in which a forward comes to them.

    What modules write may be added to in place later in the forward: whoever keeps it as it is takes a copy.

    Args:
        shape: of the tokens, [batch, tokens]; some decoders flatten them before their MLP.
        names: of what is asked for. `residual` enters a block and `leaving` leaves it, `activation` enters the MLP's
            down-projection and `mlp_output` leaves it, `attention_input` and `attention_output` are the same of the
            attention's output projection, and `up` leaves the MLP's up-projection.
    """

    def hand_over(name: str, layer: int, tensor: Tensor) -> None:
        keep(name, layer, tensor.reshape(*shape, tensor.shape[-1]))

    handles: list[RemovableHandle] = []
    for layer, block in enumerate(anatomy.blocks):
        down, output = anatomy.down_projection(block), anatomy.attention_output(block)
        read = {"residual": block, "activation": down, "attention_input": output}
        written = {"leaving": block, "mlp_output": down, "attention_output": output}
        if "up" in names:
            written["up"] = anatomy.up_projection(block)
        for name in names:
            if name in read:
                handles.append(
                    read[name].register_forward_pre_hook(
                        lambda m, a, kw, name=name, layer=layer: hand_over(name, layer, first(a, kw)), with_kwargs=True
                    )
                )
            else:
                handles.append(
                    written[name].register_forward_hook(
                        lambda m, a, out, name=name, layer=layer: hand_over(
                            name, layer, out[0] if isinstance(out, tuple) else out
                        )
                    )
                )
    with removing(handles):
        yield


@contextmanager
def removing(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when the block ends, however it ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
