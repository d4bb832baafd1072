"""What networks make of `cond["vector"]`: in every block, with a null of its own, and nothing where there is none."""

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.nn import FNO, UNO, Deterministic, LearnedPositionMaps, NCSNpp, UNet

SMALL = {"channels": 8, "blocks": 1, "attention": (), "init_scale": 1.0}
NETS = {
    "UNet": lambda **more: UNet(1, 1, channels=8, multipliers=(1, 2), **more),
    "NCSNpp": lambda **more: NCSNpp(1, 1, **SMALL, multipliers=(1, 2), **more),
    "NCSNpp, blind": lambda **more: NCSNpp(1, 1, **SMALL, multipliers=(1,), conditional=False, **more),
    "FNO": lambda **more: FNO(1, 1, channels=8, modes=8, layers=2, **more),
    "UNO": lambda **more: UNO(1, 1, channels=8, modes=8, sizes=(6, 4), **more),
}
every_net = pytest.mark.parametrize("name", NETS)
NAN = float("nan")


def built(name: str, **more: int) -> torch.nn.Module:
    """A network whose last layers are not zero, as initial ones may be."""
    torch.manual_seed(0)
    net = NETS[name](**more).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def given(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.randn(n, 2, generator=generator)


@every_net
def test_every_entry_is_seen_and_by_its_own_sample_alone(name: str) -> None:
    net, (x, vector) = built(name, vector=2), given()
    found = net.evaluate(x, torch.tensor(0.3), {"vector": vector})
    for entry in (0, 1):
        other = vector.clone()
        other[1, entry] += 1
        change = (net.evaluate(x, torch.tensor(0.3), {"vector": other}) - found).flatten(1).abs().amax(1)
        assert change[1] > 1e-3 and change[[0, 2, 3]].max() < 1e-6


@every_net
def test_a_row_of_nan_is_the_null_that_absence_is(name: str) -> None:
    net, (x, vector) = built(name, vector=2), given()
    free = net.evaluate(x, torch.tensor(0.3))
    assert (net.evaluate(x, torch.tensor(0.3), {"vector": vector * 0}) - free).abs().max() > 1e-3  # which 0 is not
    vector[2] = NAN
    found = net.evaluate(x, torch.tensor(0.3), {"vector": vector})
    torch.testing.assert_close(found[2], free[2])
    assert (found - free).flatten(1).abs().amax(1)[[0, 1, 3]].min() > 1e-3
    found.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())
    assert net.vectors.null.grad.abs().max() > 0
    vector[0, 0] = NAN  # neither: to be seen in the result
    assert net.evaluate(x, torch.tensor(0.3), {"vector": vector})[0].isnan().any()


@every_net
def test_a_network_without_vectors_is_what_it_was(name: str) -> None:
    """No other names among its weights, which published ones replace, and its results whatever vector is given."""
    torch.manual_seed(3)
    plain, told = NETS[name](), NETS[name](vector=2)
    assert plain.vector == 0 and not any("vector" in key for key in plain.state_dict())
    assert told.vector == 2 and plain.state_dict().keys() < told.state_dict().keys()
    x, vector = given()
    one, other = (plain.eval().evaluate(x, torch.tensor(0.3), cond) for cond in (None, {"vector": vector}))
    assert torch.equal(one, other)


@every_net
def test_half_precision_tells_neighbouring_years_apart(name: str) -> None:
    """Of the standardised 2050 and 2050.1, 1/250 apart, bfloat16 makes one number; the embedding stays in float32."""
    net = built(name, vector=2).bfloat16()
    vector = torch.tensor([[1.7, 0.0], [1.704, 0.0]])
    assert vector.bfloat16()[0].equal(vector.bfloat16()[1])
    one, other = net.vectors({"vector": vector}, 2)
    assert one.dtype == torch.float32 and not torch.equal(one, other)
    assert net.dtype == torch.bfloat16
    assert net.evaluate(given(2)[0], torch.tensor(0.3), {"vector": vector}).isfinite().all()


def test_wrappers_take_what_is_within() -> None:
    assert Deterministic(built("UNet", vector=3)).vector == 3
    within = UNet(1, 1, 1, channels=8, multipliers=(1,), vector=2)
    net, (x, vector) = LearnedPositionMaps(within, 1, (8, 8)), given()
    assert net.vector == 2
    assert net.evaluate(x, torch.tensor(0.3), {"vector": vector}).shape == x.shape


def test_other_lengths_are_refused() -> None:
    net, (x, vector) = built("UNet", vector=3), given()
    with pytest.raises(InputError, match="3 entries"):
        net.evaluate(x, torch.tensor(0.3), {"vector": vector})
    with pytest.raises(InputError, match="number of entries"):
        NETS["UNet"](vector=-1)
