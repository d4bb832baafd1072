"""Everything that changes while training, as one object that can be stored and restored bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from scorefield.core.classifier import Classifier
from scorefield.core.denoiser import Denoiser
from scorefield.data.batch import Batch
from scorefield.foundation.arithmetic import FULL, Choice, allow_tf32, autocast_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.launch import started
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.losses.loss import Adversary, Loss
from scorefield.model import Model
from scorefield.nn.dropout import keyed_dropout, keyed_layers
from scorefield.training import sharding
from scorefield.training.checkpoint import Checkpoint, all_finite, group_of
from scorefield.training.ema import EMA, PowerEMA
from scorefield.training.optimiser import Optimiser
from scorefield.training.plan import Strategy
from scorefield.training.validation import losses_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LEFT = ("NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")  # what Fabric sets for the processes that it starts, and in its own


def launch(accelerator: str, devices: int, nodes: int, precision: Any, strategy: Strategy = "auto") -> Fabric:
    """Devices, processes and precision; starts the other processes where there are to be several and nobody started them.

    A precision `auto` is chosen later.
    """
    from lightning_fabric import Fabric  # slow to import, needed for training alone
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"  # never mps, which has no float64
    if precision == "16-mixed" and accelerator not in ("cuda", "gpu"):
        raise InputError(
            f"train.precision=16-mixed needs a CUDA device, not {accelerator}: take bf16-mixed or 32-true."
        )
    given: Any = FULL if precision == "auto" else precision
    if (those := started()) is not None:
        devices, nodes = those.count // those.nodes, those.nodes
    shape: dict[str, Any] = {"devices": devices, "num_nodes": nodes}
    if (count := devices * nodes) > 1 and strategy == "fsdp":
        shape["strategy"] = ModelParallelStrategy(_shard, data_parallel_size=count, tensor_parallel_size=1)
    elif count > 1:
        shape["strategy"] = DDPStrategy(
            broadcast_buffers=False
        )  # they are constants, or are made one before validation
    if those is not None:
        from scorefield.training.cluster import Cluster

        shape["plugins"] = Cluster(those)
    else:  # also within an allocation of Slurm, where Fabric would else wait for what srun starts
        shape["plugins"] = LightningEnvironment()
    try:
        fabric = Fabric(accelerator=accelerator, precision=given, **shape)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise InputError(
            f"train.accelerator={accelerator} with train.devices={devices} cannot be used here: {error}"
        ) from error
    plugin = fabric.strategy.precision
    plugin.convert_input = _as_given  # type: ignore[method-assign]
    # Autocast is entered around a loss, not, as Fabric does it, around each call of the network: a loss can then leave it.
    fabric.autocast, plugin.forward_context = plugin.forward_context, nullcontext  # type: ignore[method-assign]
    before = os.environ.copy()
    fabric.launch()
    for name in LEFT:  # which would speak of these processes to what comes after a training
        os.environ.pop(name, None) if name not in before else os.environ.update({name: before[name]})
    if precision == "auto":
        allow_tf32(fabric.device)
    return fabric


def _shard(denoiser: Denoiser | Classifier, mesh: Any) -> Denoiser | Classifier:
    """What Fabric calls to divide a module among processes."""
    sharding.shard(denoiser.net, mesh["data_parallel"])
    return denoiser


def _as_given(data: Any) -> Any:
    """Leave a module's inputs in float32: Fabric would cast times and noise levels too, and bfloat16 keeps 8 bits of them."""
    return data


class State:
    """Weights, their average, the optimiser and the step count.

    Step k is a function of this state, the data of positions kB..(k+1)B−1 and (draws, k) alone: nothing else is to be stored.

    Args:
        model: its denoiser is trained.
        optimiser: how.
        ema: decay of the average of the weights.
        seed: of every draw.
        fabric: devices, processes and precision.
        adversary: what a network of the loss's own minimises, by an optimiser like the model's.
        widths: of averages by powers of time that are tracked beside `ema`.

    Attributes:
        step: how many were made.
        draws: the seed of the draws of training; those of validation always come from `seed`.
        precision: what was chosen to compute in; None before.
        sharded: whether this process has but a share of the weights, so that all have to compute in step.
    """

    def __init__(
        self,
        model: Model,
        optimiser: Optimiser,
        ema: float,
        seed: int,
        fabric: Fabric,
        adversary: Adversary | None = None,
        widths: Sequence[float] = (),
    ) -> None:
        self.model, self.plan, self.seed, self.fabric = model, optimiser, seed, fabric
        self.step, self.draws = 0, seed
        self.precision: Choice | None = None
        fused = fabric.strategy.precision.precision != "16-mixed"  # fp16 unscales gradients between backward and step
        choose(optimiser, model.denoiser)
        self.module: Any = fabric.setup(model.denoiser)
        vars(self.module)["sde"] = model.denoiser.sde  # from Python 3.12 on a protocol does not ask __getattr__
        self.sharded = fabric.world_size > 1 and sharding.is_sharded(model.denoiser.net)
        self.optimiser = optimiser.build(model.denoiser.parameters(), fused=fused)
        self._optimiser: Any = fabric.setup_optimizers(self.optimiser)
        for _, part in model.fixed():
            part.to(fabric.device)
        self.ema = EMA(model.denoiser.net, ema, sharded=self.sharded)
        self.powers = [PowerEMA(model.denoiser.net, width, sharded=self.sharded) for width in widths]
        self._dropouts = keyed_layers(model.denoiser.net)
        self.adversary, self.critic_optimiser = adversary, None
        self.critic = critic = None if adversary is None else adversary.network
        if critic is not None:
            critic.to(fabric.device)
            critic.requires_grad_(True)  # all of it, also where only a part of the model learns
            self.critic_optimiser = optimiser.build(critic.parameters(), fused=fused)
            self._dropouts += keyed_layers(critic)

    @property
    def _scaler(self) -> Any:
        return self.fabric.strategy.precision

    @property
    def finds_scale(self) -> Tensor:
        """1 where gradients may overflow as a matter of course: in float16, until they are scaled down as far as they need."""
        if self._scaler.precision != "16-mixed":
            return torch.zeros((), device=self.fabric.device)
        scale = self._scaler.scaler._get_scale_async()  # None before the first step
        return torch.ones((), device=self.fabric.device) if scale is None else (scale > 1).to(torch.float32)

    def compute_in(self, choice: Choice) -> None:
        """Evaluate the network in a precision from now on."""
        self.precision = choice
        if choice.precision != self._scaler.precision:
            self.fabric.autocast = partial(autocast_of, choice.precision, self.fabric.device)  # type: ignore[method-assign]

    def use_stream(self, number: int) -> None:
        """Draw from the random numbers of a number from now on; those of 0 are the seed's own."""
        self.draws = seed_of(self.seed, number, Stream.RETURN) if number else self.seed

    def advance(self, batches: Iterable[Batch], loss: Loss, *, clip: float | None, steps: int) -> tuple[Tensor, Tensor]:
        """One optimiser step over the micro-batches of this rank, which changes no weight where loss or gradient is not finite.

        Returns the mean loss of this process and the norm of the gradient of all, without waiting for the device.
        """
        # For layers of a user's own: those of this package draw by sample.
        torch.manual_seed(seed_of(self.draws, self.step, self.fabric.global_rank, Stream.DROPOUT))
        factor = self.plan.lr * self.plan.schedule(self.step, steps)
        micro = list(batches) if self.adversary is None else self._oppose(batches, self.adversary, clip, factor)
        total = torch.zeros((), device=self.fabric.device)
        for position, batch in enumerate(micro):
            # A gradient that waits for those of other micro-batches is a whole one, which takes memory where it is to be shared.
            waits = position < len(micro) - 1 and not self.sharded
            with self.fabric.no_backward_sync(self.module, enabled=waits), self.keyed(batch):
                value = self.loss(loss, self.module, batch, seed=self.draws).mean() / len(micro)
                # Where the loss of one process is not finite no gradient is, so that all leave out the same steps.
                self.fabric.backward(value * torch.where(value.detach().isfinite(), 1.0, torch.nan))
            total += value.detach()
        norm = self._clip(clip)
        for group in self.optimiser.param_groups:
            group["lr"] = factor
        self._update(self._optimiser, self.optimiser, norm.isfinite())
        self.optimiser.zero_grad()
        for average in (self.ema, *self.powers):
            average.update(self.step)
        self.step += 1
        return total, norm

    def _oppose(self, batches: Iterable[Batch], adversary: Adversary, clip: float | None, lr: float) -> list[Batch]:
        """The steps of the critic before one of the model, each on a part of the batch. Returns the part that is left to that.

        Of fewer samples than steps, as a dry run has, some are seen again.
        """
        assert self.critic_optimiser is not None
        (batch,) = batches
        parts = batch.split(max(1, len(batch) // adversary.steps))
        parts = [parts[number % len(parts)] for number in range(max(len(parts), adversary.steps))]
        weights, limit = list(adversary.network.parameters()), float("inf") if clip is None else clip
        for group in self.critic_optimiser.param_groups:
            group["lr"] = lr * adversary.rate
        for weight in weights:
            weight.requires_grad_(True)
        for part in parts:
            with self.keyed(part):
                self.fabric.backward(
                    self.loss(adversary, self.module, part, seed=self.draws, stream=Stream.CRITIC).mean()
                )
            sound = torch.nn.utils.clip_grad_norm_(weights, limit).isfinite()
            self._update(self.critic_optimiser, self.critic_optimiser, sound)
            self.critic_optimiser.zero_grad()
        for weight in weights:  # the model's step needs none of their gradients
            weight.requires_grad_(False)
        return parts[-1:]

    def over_all(self, number: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """The sum or the largest of a tensor in all processes, which overwrites it; Fabric's waits at a barrier first."""
        if self.fabric.world_size > 1:
            operation = {"sum": torch.distributed.ReduceOp.SUM, "max": torch.distributed.ReduceOp.MAX}[how]
            torch.distributed.all_reduce(number, operation)
        return number

    @torch.no_grad()
    def share_buffers(self) -> None:
        """Give all processes the buffers of the first, where a network has any that change, such as running means."""
        if self.fabric.world_size > 1:
            for buffer in self.model.denoiser.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def keyed(self, batch: Batch) -> AbstractContextManager[None]:
        """Inside, dropout is a function of each sample's key."""
        assert batch.key is not None
        return keyed_dropout(self._dropouts, self.draws, batch.key, self.fabric.device)

    def _update(self, wrapped: Any, optimiser: torch.optim.Optimizer, sound: Tensor) -> None:
        """Change the weights if the step is sound. Where the optimiser can, the device itself decides, and nothing waits."""
        if self._scaler.precision == "16-mixed":
            wrapped.step()  # which leaves out a gradient that is not finite, and scales the next ones down
        elif getattr(optimiser, "_step_supports_amp_scaling", False):  # torch's name for what `found_inf` needs
            optimiser.grad_scale, optimiser.found_inf = None, (~sound).float()  # type: ignore[attr-defined]
            wrapped.step()
        elif bool(sound):
            wrapped.step()

    def _clip(self, clip: float | None) -> Tensor:
        limit = float("inf") if clip is None else clip
        if self.sharded:
            return self._clip_shares(limit)
        norm = self.fabric.clip_gradients(self.module, self._optimiser, max_norm=limit, error_if_nonfinite=False)
        return torch.as_tensor(norm)

    def _clip_shares(self, limit: float) -> Tensor:
        """What `clip_grad_norm_` does, by one number that processes send each other."""
        weights = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        gradients = [sharding.local(weight.grad) for weight in weights if weight.grad is not None]
        squared = torch.nn.utils.get_total_norm(gradients).double().square()
        norm = self.over_all(squared, "sum").sqrt().float()
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1))  # type: ignore[attr-defined]
        return norm

    def loss(
        self, loss: Loss, denoiser: Any, batch: Batch, *, seed: int | None = None, stream: Stream = Stream.LOSS
    ) -> Tensor:
        """The loss per sample of a batch in data units; its draws depend on a seed and each sample's key alone."""
        given, first = batch.to(self.fabric.device), self.seed if seed is None else seed
        autocast = self.fabric.autocast()
        return losses_of(loss, denoiser, self.model, given, seed=first, autocast=autocast, stream=stream)

    def figures(self, loss: Loss, batch: Batch) -> Tensor:
        """For each figure of a loss, the sums over a batch in data units of its error and of what that is compared with."""
        if batch.key is None:
            raise ValueError("a training batch carries the key of each sample")
        keys = [(self.seed, *key, Stream.LOSS) for key in batch.key.tolist()]
        batch = self.model.prepare(batch.to(self.fabric.device))
        with self.fabric.autocast():
            found = [figure(self.model.denoiser, batch, generator=Generators(keys)) for figure in loss.figures]
        return torch.tensor([[float(part.double().sum()) for part in pair] for pair in found], dtype=torch.float64)

    # ------------------------------------------------------------------------------------------------ store and restore
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, without the prefixes of wrappers; of those that are shared, the share of this process."""
        tensors = {f"net.{name}": tensor for name, tensor in self.model.denoiser.net.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.average.items()} | self.averages()
        for group, part in self.model.fixed():
            tensors |= {f"{group}.{name}": tensor for name, tensor in part.state_dict().items()}
        if self.model.template.numel():
            tensors["data.template"] = self.model.template
        for name, parameter in self.model.denoiser.net.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = value
        if self.critic is not None and self.critic_optimiser is not None:
            tensors |= {f"critic.{name}": tensor for name, tensor in self.critic.state_dict().items()}
            for name, parameter in self.critic.named_parameters():
                for key, value in self.critic_optimiser.state.get(parameter, {}).items():
                    tensors[f"critic_optimiser.{key}.{name}"] = value
        return tensors

    def averages(self) -> dict[str, Tensor]:
        """The averages by powers of time, by names that tell their widths."""
        return {
            f"{group_of(power.width)}.{name}": tensor for power in self.powers for name, tensor in power.average.items()
        }

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All of what `tensors` gave, on the first process; nothing on the others, which send their shares, one by one."""
        found = {}
        for name, tensor in tensors.items():
            full = sharding.whole(tensor) if self.sharded else tensor
            if self.fabric.is_global_zero:
                found[name] = full.cpu() if self.sharded else full
        return found

    def sound(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether all numbers that this process has are finite."""
        return all_finite(map(sharding.local, tensors.values()) if self.sharded else tensors.values())

    def facts(self) -> dict[str, Any]:
        """What else there is to know, in JSON's types."""
        data = {} if self.model.manifest is None else {"data": self.model.manifest.record()}
        choice = {} if self.precision is None else {"precision": self.precision.facts()}
        widths = {"widths": [power.width for power in self.powers]} if self.powers else {}
        return {"step": self.step, "seed": self.seed, "scaler": self._scaler.state_dict()} | widths | choice | data

    def restore_fixed(self, checkpoint: Checkpoint) -> None:
        """Take over what is not trained: without it, not even the loss of a trial can be computed."""
        for group, part in self.model.fixed():
            part.load_state_dict(checkpoint.group(group), strict=True)
        self.model.template = checkpoint.group("data").get("template", self.model.template)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a stored state."""
        net, stored = self.model.denoiser.net, checkpoint.group("net")
        if self.sharded:
            own = net.state_dict()
            stored = {name: sharding.share_of(tensor, own.get(name)) for name, tensor in stored.items()}
        net.load_state_dict(stored, strict=True)
        self.restore_fixed(checkpoint)
        average = checkpoint.group("ema")
        if average.keys() & dict(net.named_parameters()).keys() != self.ema.average.keys():
            raise InputError(
                "Other weights learn than in the run so far: leave train.optimiser as it was, its matrices above all, or begin a "
                "run from this one by --init."
            )
        self.ema.load(average)
        for power in self.powers:
            if not (average := checkpoint.group(group_of(power.width))):
                raise InputError(
                    f"The run has not tracked an average of width {power.width:g} since it began: leave it out of "
                    "train.ema_widths, or give another --out."
                )
            power.load(average)
        stored = checkpoint.group("optimiser")
        if not stored and checkpoint.facts["step"]:
            raise InputError("The checkpoint holds no optimiser state: it is for sampling, not for resuming.")
        parameters = dict(net.named_parameters())  # `get_parameter` does not find those of factorised weights
        for key, name, value in ((*full.split(".", 1), value) for full, value in stored.items()):
            parameter = parameters[name]
            # In the parameter's memory layout: fused optimisers walk both by address.
            alike = value.shape == parameter.shape
            place = torch.empty_like(parameter) if alike else torch.empty_like(value)
            self.optimiser.state[parameter][key] = place.copy_(
                sharding.share_of(value, parameter) if alike and self.sharded else value
            )
        if self.critic is not None and self.critic_optimiser is not None:
            if not (weights := checkpoint.group("critic")):
                raise InputError(
                    "The checkpoint holds no critic: its run was trained by another loss. Give another --out."
                )
            self.critic.load_state_dict(weights, strict=True)
            parameters = dict(self.critic.named_parameters())
            for full, value in checkpoint.group("critic_optimiser").items():
                key, name = full.split(".", 1)
                parameter = parameters[name]
                place = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                self.critic_optimiser.state[parameter][key] = place.copy_(value)
        self._scaler.load_state_dict(checkpoint.facts["scaler"])
        self.step = checkpoint.facts["step"]


def choose(optimiser: Optimiser, network: nn.Module) -> None:
    """Leave a gradient to the weights that learn, before others wrap the network."""
    for weight in network.parameters():
        weight.requires_grad_(optimiser.learns(weight))
