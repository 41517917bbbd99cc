"""Data: toy targets whose density is known, tables and pictures from files."""

from ._csv import default_names as default_names
from ._energies import Energy as Energy
from ._energies import forked_wave as forked_wave
from ._energies import rezende_mohamed as rezende_mohamed
from ._energies import ring_with_two_lobes as ring_with_two_lobes
from ._energies import sine_wave as sine_wave
from ._energies import split_wave as split_wave
from ._images import Pictures as Pictures
from ._images import check_pictures as check_pictures
from ._images import check_pictures_file as check_pictures_file
from ._images import digits as digits
from ._images import read_pictures as read_pictures
from ._images import tile as tile
from ._images import write_pictures as write_pictures
from ._table import Table as Table
from ._table import column_names as column_names
from ._tabular import read_rows as read_rows
from ._tabular import read_table as read_table
from ._toy import Target as Target
from ._toy import banana as banana
from ._toy import mixture as mixture
from ._toy import six_gaussians as six_gaussians
from ._toy import three_modes as three_modes
from ._toy import two_moons as two_moons
from ._written import check_output as check_output
from ._written import write_table as write_table
