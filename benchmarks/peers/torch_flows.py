"""PyTorch's flows: torchdyn's CNF, zuko's CNF, NSF and MAF, and torchcfm's flow matching."""

import copy
import math

import torch
import zuko
from common import Looks, main
from torch import nn
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher
from torchcfm.models.models import MLP
from torchdiffeq import odeint
from torchdyn.core import NeuralODE
from torchdyn.models import CNF
from torchdyn.nn import Augmenter

# An exact trace costs a pass for each column: ODE methods choose by these many rows, in batches.
CHOOSE_BY, CHUNK = 1000, 500


def train(modules, loss, log_prob, rows, clock, *, batch, learning_rate, weight_decay=0.0, chunk=CHUNK):
    """Train by Adam under half a cosine over the time there is; return the best state's log-density, and the curve."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    data, validation = (torch.from_numpy(part).float() for part in rows)
    looks = Looks(
        clock,
        lambda: evaluate(log_prob, validation, chunk),
        lambda: copy.deepcopy(modules.state_dict()),
    )
    while looks.go_on():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, clock.now() / clock.seconds)))
        optimizer.zero_grad()
        value = loss(data[torch.randint(len(data), (batch,))])
        if torch.isfinite(value):
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    modules.load_state_dict(looks.state)
    return lambda rows: evaluate(log_prob, torch.from_numpy(rows).float(), chunk), looks.curve


@torch.no_grad()
def evaluate(log_prob, rows, chunk):
    """Return log-densities, in chunks."""
    return torch.cat([log_prob(part) for part in rows.split(chunk)]).double().numpy()


def normal_log_prob(z):
    """Return the standard normal log-density."""
    return -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def torchdyn_cnf(rows, validation, clock, seed):
    """Set up its tutorial: exact trace, dopri5 at 1e-4, adjoint, AdamW."""
    size = rows.shape[1]
    net = nn.Sequential(
        nn.Linear(size, 64), nn.Softplus(), nn.Linear(64, 64), nn.Softplus(), nn.Linear(64, 64), nn.Softplus(),
        nn.Linear(64, size),
    )  # fmt: skip
    solve = {"solver": "dopri5", "sensitivity": "adjoint", "return_t_eval": False}
    flow = NeuralODE(CNF(net), atol=1e-4, rtol=1e-4, atol_adjoint=1e-4, rtol_adjoint=1e-4, **solve)
    tight = NeuralODE(CNF(net), atol=1e-5, rtol=1e-5, **solve)
    augmenter, span = Augmenter(augment_idx=1, augment_dims=1), torch.linspace(0, 1, 2)

    def log_prob(x, flow=tight):
        # The first column adds up minus the trace, on the way from data to base.
        end = flow(augmenter(x), span)[-1]
        return normal_log_prob(end[:, 1:]) - end[:, 0]

    settings = "tutorial: 64-64-64 softplus, exact trace, dopri5 1e-4, adjoint, AdamW 2e-3, batch 1,024; scored at 1e-5"
    found = train(
        net, lambda x: -log_prob(x, flow).mean(), log_prob, (rows, validation[:CHOOSE_BY]), clock,
        batch=1024, learning_rate=2e-3, weight_decay=1e-5,
    )  # fmt: skip
    return *found, settings


def zuko_cnf(rows, validation, clock, seed):
    """Set up zuko's CNF as it comes, 64 x 64, exact."""
    flow = zuko.flows.CNF(rows.shape[1], hidden_features=(64, 64))
    log_prob = lambda x: flow().log_prob(x)
    found = train(
        flow, lambda x: -log_prob(x).mean(), log_prob, (rows, validation[:CHOOSE_BY]), clock,
        batch=256, learning_rate=1e-3,
    )  # fmt: skip
    return *found, "64-64, exact trace, its tolerances, Adam 1e-3, batch 256"


def zuko_autoregressive(kind, name):
    """Return the method of an autoregressive flow: 5 transforms, 128 x 128."""

    def method(rows, validation, clock, seed):
        flow = kind(rows.shape[1], transforms=5, hidden_features=(128, 128))
        log_prob = lambda x: flow().log_prob(x)
        found = train(
            flow, lambda x: -log_prob(x).mean(), log_prob, (rows, validation), clock,
            batch=512, learning_rate=1e-3, chunk=4096,
        )  # fmt: skip
        return *found, f"{name}, 5 transforms, 128-128, Adam 1e-3 under a cosine, batch 512"

    return method


def torchcfm_flow(matcher, name):
    """Return the method of a flow matcher, with its own network; scored by likelihood."""

    def method(rows, validation, clock, seed):
        size = rows.shape[1]
        field, pairs = MLP(dim=size, w=64, time_varying=True), matcher(sigma=0.0)

        def loss(x1):
            t, x, velocity = pairs.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            return ((field(torch.cat([x, t[:, None]], 1)) - velocity) ** 2).mean()

        def log_prob(x):
            return log_prob_of_field(lambda t, x: field(torch.cat([x, t.expand(len(x), 1)], 1)), x)

        found = train(
            field, loss, log_prob, (rows, validation[:CHOOSE_BY]), clock, batch=256, learning_rate=1e-3
        )  # fmt: skip
        return *found, f"{name}, its MLP of width 64, Adam 1e-3, batch 256; scored by dopri5 1e-5, exact trace"

    return method


def log_prob_of_field(field, x, tolerance=1e-5):
    """Return the log-density of a flow from base at 0 to data at 1, with an exact trace, by torchdiffeq."""

    def dynamics(t, state):
        with torch.enable_grad():
            x = state[0].detach().requires_grad_(True)
            v = field(t, x)
            trace = sum(torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))
        return v.detach(), trace.detach()

    start, times = (x, torch.zeros(len(x), dtype=x.dtype)), torch.tensor([1.0, 0.0], dtype=x.dtype)
    z, change = odeint(dynamics, start, times, atol=tolerance, rtol=tolerance, method="dopri5")
    return normal_log_prob(z[-1]) + change[-1]


def seeded(method):
    """Return a method that seeds PyTorch first."""

    def run(rows, validation, clock, seed):
        torch.manual_seed(seed)
        return method(rows, validation, clock, seed)

    return run


METHODS = {
    "torchdyn CNF": torchdyn_cnf,
    "zuko CNF": zuko_cnf,
    "zuko NSF": zuko_autoregressive(zuko.flows.NSF, "spline"),
    "zuko MAF": zuko_autoregressive(zuko.flows.MAF, "affine"),
    "torchcfm": torchcfm_flow(ConditionalFlowMatcher, "independent pairs"),
    "torchcfm OT": torchcfm_flow(ExactOptimalTransportConditionalFlowMatcher, "optimal transport in the batch"),
}

if __name__ == "__main__":
    packages = ("torch", "torchdyn", "torchdiffeq", "torchcfm", "zuko")
    main({name: seeded(method) for name, method in METHODS.items()}, packages)
