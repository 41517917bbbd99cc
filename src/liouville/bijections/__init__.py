"""Bijections: invertible maps between base and data, with their log-determinants."""

from ._affine import Standardize as Standardize
from ._affine import Whiten as Whiten
from ._base import AbstractBijection as AbstractBijection
from ._base import Chain as Chain
from ._base import Invert as Invert
from ._base import Moved as Moved
from ._base import common_cond_shape as common_cond_shape
from ._base import map_parts as map_parts
from ._bounded import Bounded as Bounded
from ._cnf import CNF as CNF
from ._cnf import map_cnfs as map_cnfs
from ._cnf import map_integrators as map_integrators
from ._gaussianized import GaussianMargins as GaussianMargins
from ._gaussianized import GaussianRadius as GaussianRadius
from ._multiscale import Leading as Leading
from ._multiscale import Split as Split
from ._multiscale import Squeeze as Squeeze
from ._multiscale import multiscale as multiscale
from ._pixels import Logit as Logit
from ._pixels import PixelMargins as PixelMargins
from ._splines import namespace as namespace
