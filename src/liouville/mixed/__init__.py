"""Distributions of rows of several kinds of numbers: codes, whole numbers, and what is continuous."""

from ._cells import Cells as Cells
from ._codes import Codes as Codes
from ._mixed import FactoredObjective as FactoredObjective
from ._mixed import MaskedNormal as MaskedNormal
from ._mixed import Mixed as Mixed
