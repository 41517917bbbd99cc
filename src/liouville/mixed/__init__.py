"""Distributions of rows of several kinds of numbers: codes, whole numbers, and what is continuous."""

from ._cells import Cells as Cells
from ._codes import Codes as Codes
from ._expected import Expected as Expected
from ._expected import Grid as Grid
from ._expected import Regression as Regression
from ._field import Field as Field
from ._field import said_of as said_of
from ._find import find_columns as find_columns
from ._frame import Column as Column
from ._frame import MixedFrame as MixedFrame
from ._frame import any_mixed_frame as any_mixed_frame
from ._frame import are_densities as are_densities
from ._frame import edges_of as edges_of
from ._frame import fit_mixed as fit_mixed
from ._mixed import FactoredObjective as FactoredObjective
from ._mixed import MaskedNormal as MaskedNormal
from ._mixed import Mixed as Mixed
from ._mixed import conditioners as conditioners
from ._subsets import Question as Question
from ._subsets import Subsets as Subsets
from ._subsets import SubsetsObjective as SubsetsObjective
from ._subsets import draw_questions as draw_questions
from ._subsets import draw_validation as draw_validation
from ._subsets import told_size as told_size
from ._table import Columns as Columns
from ._table import as_tuple as as_tuple
