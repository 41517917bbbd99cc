"""Vector fields: the right-hand side ``v(t, x, condition)`` of a flow."""

from ._base import AbstractVectorField as AbstractVectorField
from ._concat_squash import ConcatSquash as ConcatSquash
from ._mlp import MLP as MLP
from ._preconditioned import Preconditioned as Preconditioned
