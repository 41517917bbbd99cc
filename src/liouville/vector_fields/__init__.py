"""Vector fields: the right-hand side ``v(t, x, condition)`` of a flow."""

from ._base import AbstractVectorField as AbstractVectorField
from ._base import Linearization as Linearization
from ._concat_squash import ConcatSquash as ConcatSquash
from ._conv import BesidePicture as BesidePicture
from ._conv import ConvNet as ConvNet
from ._layers import Perceptron as Perceptron
from ._layers import RowFeatures as RowFeatures
from ._low_precision import LowPrecision as LowPrecision
from ._masked import Masked as Masked
from ._masked import mask_of as mask_of
from ._mlp import MLP as MLP
from ._preconditioned import Preconditioned as Preconditioned
from ._unet import UNet as UNet
from ._wrapped import Wrapped as Wrapped
