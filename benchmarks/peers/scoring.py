"""Scoring and sampling by fitted flows of zuko and of torchcfm, at several tolerances."""

import numpy as np
import torch
import zuko
from common import TOLERANCES, main_of_solvers
from torch_flows import log_prob_of_field, seeded, train
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
from torchcfm.models.models import MLP
from torchdyn.core import NeuralODE

# The activation of torchcfm's network has a kink, at which steps for 1e-9 shrink beyond all patience.
TIGHT, TIGHT_WITH_KINKS = 1e-9, 1e-7
SETTINGS = {f"{tolerance:.0e}": tolerance for tolerance in TOLERANCES}
# Larger chunks are faster here, up to about this; all rows of one take the same steps.
CHUNK = 2000


class Counted(torch.nn.Module):
    """A network that counts its calls."""

    def __init__(self, net):
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x):
        """Evaluate, and count."""
        self.calls += 1
        return self.net(x)


def in_chunks(net, rows, solve):
    """Return what `solve` makes of chunks of rows, and the calls of the network for each row."""
    values, calls = [], []
    for part in torch.as_tensor(rows).split(CHUNK):
        before = net.calls
        values.append(solve(part).detach())
        calls += [net.calls - before] * len(part)
    return torch.cat(values).double().numpy(), np.array(calls)


def zuko_cnf(rows, validation, clock, seed):
    """Train zuko's CNF as it comes; its divergence is exact."""
    flow = zuko.flows.CNF(rows.shape[1], hidden_features=(64, 64))
    train(
        flow, lambda x: -flow().log_prob(x).mean(), lambda x: flow().log_prob(x), (rows, validation[:1000]), clock,
        batch=256, learning_rate=1e-3,
    )  # fmt: skip
    flow.eval()
    net = flow.transform.ode = Counted(flow.transform.ode)

    def prepared(setting):
        flow.to(torch.float64 if setting is None else torch.float32)
        flow.transform.rtol = flow.transform.atol = setting or TIGHT
        return torch.float64 if setting is None else torch.float32

    def score(rows, setting):
        dtype = prepared(setting)
        with torch.no_grad():
            return in_chunks(net, torch.as_tensor(rows).to(dtype), lambda x: flow().log_prob(x))

    def draw(num, setting):
        dtype = prepared(setting)
        noise = torch.from_numpy(np.random.default_rng(0).normal(size=(num, rows.shape[1]))).to(dtype)
        with torch.no_grad():
            return in_chunks(net, noise, lambda z: flow().transform.inv(z))

    return SETTINGS, score, draw


def torchcfm_flow(rows, validation, clock, seed):
    """Train torchcfm's flow matching; torchdiffeq scores it, torchdyn draws."""
    size = rows.shape[1]
    net = Counted(MLP(dim=size, w=64, time_varying=True))
    pairs = ConditionalFlowMatcher(sigma=0.0)

    def velocity(t, x):
        return net(torch.cat([x, t.expand(len(x), 1)], 1))

    def loss(x1):
        t, x, target = pairs.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return ((net(torch.cat([x, t[:, None]], 1)) - target) ** 2).mean()

    train(
        net, loss, lambda x: log_prob_of_field(velocity, x), (rows, validation[:1000]), clock,
        batch=256, learning_rate=1e-3,
    )  # fmt: skip

    class Wrapped(torch.nn.Module):
        def forward(self, t, x, args=None):
            return velocity(t, x)

    def dtype_of(setting):
        dtype = torch.float64 if setting is None else torch.float32
        net.to(dtype)
        return dtype

    def score(rows, setting):
        x = torch.as_tensor(rows).to(dtype_of(setting))
        return in_chunks(net, x, lambda x: log_prob_of_field(velocity, x, setting or TIGHT_WITH_KINKS))

    def draw(num, setting):
        noise = np.random.default_rng(0).normal(size=(num, size))
        z, tolerance = torch.from_numpy(noise).to(dtype_of(setting)), setting or TIGHT_WITH_KINKS
        node = NeuralODE(Wrapped(), solver="dopri5", sensitivity="adjoint", atol=tolerance, rtol=tolerance)
        with torch.no_grad():
            return in_chunks(net, z, lambda z: node.trajectory(z, torch.linspace(0, 1, 2, dtype=z.dtype))[-1])

    return SETTINGS, score, draw


METHODS = {"zuko CNF": zuko_cnf, "torchcfm": torchcfm_flow}

if __name__ == "__main__":
    packages = ("torch", "torchdyn", "torchdiffeq", "torchcfm", "zuko")
    main_of_solvers({name: seeded(method) for name, method in METHODS.items()}, packages)
