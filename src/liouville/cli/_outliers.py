"""``liouville outliers``: how odd each row is."""

from ._common import Data, Model, Output, check_place, load, table_file


def run_outliers(model: Model, data: Data, output: Output = None) -> None:
    """Write score, p-value and label of each row, of a model fitted with --outliers.

    The higher the score, the more normal the row; the p-value is how often a row like those of the fit would be as odd;
    the label is -1 of outliers and 1 of others. Columns are found by the names of the fit; the table may have others.
    """
    import numpy as np

    from ..data import check_output, read_rows_of, write_table

    check_output(output)
    check_place(output, model, data)
    estimator = load(model, "FlowOutlierDetector")
    score = estimator.score_samples(read_rows_of(estimator, table_file(data)))
    p_value = estimator.noise_levels_.p_values(score)
    write_table(output, {"score": score, "p_value": p_value, "label": np.where(score < estimator.offset_, -1, 1)})
