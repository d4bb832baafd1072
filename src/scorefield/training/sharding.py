"""Weights of which every process has a share (FSDP2), and what a checkpoint has of them: tensors that are whole.

The first axis of each weight is cut into as many pieces as there are processes, and with it its gradient, what an optimiser keeps
for it, and its average. A block of the network is gathered for the time that it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LEAST = 2**18  # numbers in a block that is gathered by itself: smaller ones take longer to ask for than to send
Module = TypeVar("Module", bound=nn.Module)


def shard(net: Module, mesh: DeviceMesh) -> Module:
    """Cut a network's weights, in their place, into a share for each process.

    Weights stay in float32, in which gradients are summed, too: autocast alone says what is computed in less. InputError where a
    part of the network does not keep its weights as torch does, such as the complex ones of neural operators.
    """
    from torch.distributed.fsdp import fully_shard

    for module in net.modules():
        if type(module).__setattr__ is not nn.Module.__setattr__ and [*module.parameters(recurse=False)]:
            raise InputError(
                f"train.strategy=fsdp cannot divide {type(net).__name__}: its part {type(module).__name__} keeps weights "
                "in a way of its own. Take ddp."
            )
    for part in (*blocks(net), net):
        # Also the outermost: what stays gathered after a validation would hide the weights that are put in their place.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    return net


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The innermost modules that stand in lists and are worth gathering by themselves.

    Innermost, since what is gathered is given copies of the lists among its arguments: a level that takes from the list of skips
    has to be given that list itself.
    """
    for child in module.children():
        inner = [*blocks(child)]
        yield from inner
        listed = isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList)
        if listed and not inner and sum(parameter.numel() for parameter in child.parameters()) >= LEAST:
            yield child


def is_sharded(net: nn.Module) -> bool:
    """Whether a network was cut."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in net.parameters())


def local(tensor: Tensor) -> Tensor:
    """The share of this process, in the same memory; of what is not shared, all of it."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, for which every process has to call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor cut as another is; each process takes its own piece, and nothing is sent."""
    from torch.distributed.tensor import DTensor

    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    pieces = tensor.chunk(mesh.size(), dim=0) if tensor.ndim else (tensor,)
    rank = mesh.get_local_rank()
    piece = pieces[rank] if rank < len(pieces) else tensor[:0]
    return DTensor.from_local(
        piece.to(like.device), mesh, like.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


@torch.no_grad()
def exchange(one: Tensor, other: Tensor) -> None:
    """The values of each for those of the other."""
    kept = local(one).clone()
    local(one).copy_(local(other))
    local(other).copy_(kept)
