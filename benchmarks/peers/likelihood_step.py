"""One step of maximum likelihood, forward and backward, by PyTorch's libraries, on a field that all share."""

import numpy as np
import torch
from common import main_of_steps
from torch import nn
from torch_flows import normal_log_prob
from torchdiffeq import odeint, odeint_adjoint
from torchdyn.core import NeuralODE
from torchdyn.models import CNF
from torchdyn.nn import Augmenter
from zuko.transforms import FreeFormJacobianTransform


class Field(nn.Module):
    """A tanh network of ``(x, t)``, with given weights, that counts how often it is called."""

    def __init__(self, layers):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.from_numpy(w)) for w, _ in layers])
        self.biases = nn.ParameterList([nn.Parameter(torch.from_numpy(b)) for _, b in layers])
        self.calls = 0

    def forward(self, t, x):
        """Return the velocity of each row."""
        self.calls += 1
        h = torch.cat([x, torch.as_tensor(t, dtype=x.dtype).expand(len(x), 1)], dim=1)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.tanh(h @ w.T + b)
        return h @ self.weights[-1].T + self.biases[-1]


def exact_trace(v, x):
    """Return the trace of each row's Jacobian."""
    columns = range(x.shape[1])
    return sum(torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i] for i in columns)


class Dynamics(nn.Module):
    """The field and the rate of the log-density, as torchdiffeq wants them."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, state):
        """Return both rates."""
        with torch.enable_grad():
            x = state[0] if state[0].requires_grad else state[0].requires_grad_(True)
            v = self.field(t, x)
            return v, exact_trace(v, x)


def by_hand(solve, num_steps=None):
    """Return the method that calls torchdiffeq, through its steps or by its adjoint; constant steps where told."""

    def loss_of(field, tolerance):
        dynamics = Dynamics(field)
        chosen = {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
        if num_steps is not None:
            chosen = {"method": "rk4", "options": {"step_size": 1 / num_steps}}

        def loss(x):
            start, span = (x, torch.zeros(len(x))), torch.tensor([1.0, 0.0])
            z, change = solve(dynamics, start, span, **chosen)
            return -(normal_log_prob(z[-1]) + change[-1]).mean()

        return loss

    return loss_of


def zuko_transform(field, tolerance):
    """Return zuko's loss: its free-form transform, by its own adjoint."""

    def loss(x):
        transform = FreeFormJacobianTransform(field, 1.0, 0.0, field.parameters(), atol=tolerance, rtol=tolerance)
        z, log_det = transform.call_and_ladj(x)
        return -(normal_log_prob(z) + log_det).mean()

    return loss


class Reversed(nn.Module):
    """The field as torchdyn's CNF wants it: of the row alone, the time kept beside it, from data to base."""

    def __init__(self, field):
        super().__init__()
        self.field, self.cnf, self.t = field, CNF(self), None

    def forward(self, x):
        """Return the velocity backwards."""
        return -self.field(1 - self.t, x)


class TimedCNF(nn.Module):
    """torchdyn's CNF, told the time."""

    def __init__(self, field):
        super().__init__()
        self.net = Reversed(field)

    def forward(self, t, x, args=None):
        """Return the rates of the log-density and of the rows."""
        self.net.t = t
        return self.net.cnf(x)


def torchdyn_solve(sensitivity, num_steps=None):
    """Return torchdyn's method with a sensitivity; constant steps where told."""

    def loss_of(field, tolerance):
        tolerances = {name: tolerance for name in ("atol", "rtol", "atol_adjoint", "rtol_adjoint")}
        solver = "dopri5" if num_steps is None else "rk4"
        flow = NeuralODE(TimedCNF(field), solver=solver, sensitivity=sensitivity, return_t_eval=False, **tolerances)
        augment, span = Augmenter(augment_idx=1, augment_dims=1), torch.linspace(0, 1, 1 + (num_steps or 1))

        def loss(x):
            end = flow(augment(x), span)[-1]
            return -(normal_log_prob(end[:, 1:]) - end[:, 0]).mean()

        return loss

    return loss_of


METHODS = {
    "torchdiffeq by hand, through the steps": by_hand(odeint),
    "torchdiffeq by hand, RK4 x 6": by_hand(odeint, num_steps=6),
    "torchdiffeq by hand, adjoint": by_hand(odeint_adjoint),
    "torchdyn, autograd": torchdyn_solve("autograd"),
    "torchdyn, RK4 x 6": torchdyn_solve("autograd", num_steps=6),
    "torchdyn, adjoint": torchdyn_solve("adjoint"),
    "zuko": zuko_transform,
}


def step_of(name):
    """Return a function of layers, rows and a tolerance that returns the step: NLL, gradient and evaluations."""

    def make(layers, rows, tolerance):
        field, x = Field(layers), torch.from_numpy(rows)
        loss = METHODS[name](field, tolerance)

        def step():
            field.zero_grad()
            field.calls = 0
            value = loss(x.clone())
            value.backward()
            gradient = np.concatenate([p.grad.numpy().ravel() for p in field.parameters()])
            return float(value), gradient, field.calls

        return step

    return make


if __name__ == "__main__":
    main_of_steps({name: step_of(name) for name in METHODS}, ("torch", "torchdyn", "torchdiffeq", "zuko"))
