"""``predictions.csv``: a row for each image with its index, label, prediction, and the probability of each class."""

import csv
import io

import numpy as np
import pandas as pd

from pipeline.documents import describe_error
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation
from pipeline.text import escape_formula

PREDICTIONS_FILE = "predictions.csv"
MAX_PREDICTIONS_SIZE = 500_000_000  # bytes; the answers of 1,000 classes about 10,000 images have 200 million
FIXED_COLUMNS = ["index", "label", "prediction"]
SUM_TOLERANCE = 1e-6  # of an image's probabilities; older files have nine digits of each


def format_predictions(evaluation: Evaluation) -> bytes:
    """Return the content of the file, which has every digit: of two probabilities that nearly agree, one is larger.

    A class whose name begins as a formula does has an apostrophe in front of it: people open the file in spreadsheets.
    """
    names = [escape_formula(name) for name in evaluation.classes]
    table = pd.DataFrame(evaluation.probabilities, columns=names)
    table.insert(0, "label", evaluation.labels, allow_duplicates=True)  # a class may be called "label" too
    table.insert(1, "prediction", evaluation.predictions, allow_duplicates=True)
    text: str = table.to_csv(index_label="index")
    return text.encode()


def parse_predictions(content: bytes, classes: tuple[str, ...], origin: str) -> Evaluation:
    """Return the evaluation that follows from the content of the file; ``origin`` names its source in errors.

    Raises
    ------
    UserError
        It is not a table of labels, predictions and the probabilities of these classes, the probabilities of an image
        do not sum to 1, or a prediction is not the most probable class.
    """
    try:
        header = next(csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")), [])
        table = pd.read_csv(io.BytesIO(content), index_col=0)
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        raise UserError(f"{PREDICTIONS_FILE} of {origin} is damaged ({describe_error(error)})") from None
    problem = _find_table_problem(table, classes) or _find_header_problem(header, classes)
    if problem:
        raise UserError(
            f"{PREDICTIONS_FILE} of {origin} is not a table of labels, predictions and probabilities ({problem})"
        )
    labels = table.iloc[:, 0].to_numpy()
    predictions = table.iloc[:, 1].to_numpy()
    evaluation = Evaluation(classes, labels, table.iloc[:, 2:].to_numpy(dtype=np.float64))
    if not np.array_equal(predictions, evaluation.predictions):
        raise UserError(
            f"{PREDICTIONS_FILE} of {origin} has predictions that are not the most probable class: it was altered"
        )
    return evaluation


def _find_header_problem(header: list[str], classes: tuple[str, ...]) -> str | None:
    """Return what is wrong with the names of the columns, or None. Older files have names as they are."""
    columns = header[len(FIXED_COLUMNS) :]
    if header[: len(FIXED_COLUMNS)] != FIXED_COLUMNS:
        return f"its columns do not begin with {', '.join(FIXED_COLUMNS)}"
    if columns not in (list(classes), [escape_formula(name) for name in classes]):
        return "its columns are not the classes, in their order"
    return None


def _find_table_problem(table: pd.DataFrame, classes: tuple[str, ...]) -> str | None:
    """Return what is wrong with the form of the table, or None."""
    if not len(table) or table.shape[1] != len(classes) + 2:
        return f"{len(table)} rows and {table.shape[1]} columns for {len(classes)} classes"
    kinds = [dtype.kind for dtype in table.dtypes]
    if kinds[0] != "i" or kinds[1] != "i":
        return "a label or prediction is not a whole number"
    if not set(kinds[2:]) <= set("if"):
        return "a probability is not a number"
    labels = table.iloc[:, 0]
    if labels.min() < 0 or labels.max() >= len(classes):
        return f"labels from {labels.min()} to {labels.max()}"
    probabilities = table.iloc[:, 2:].to_numpy(dtype=np.float64)
    if not np.isfinite(probabilities).all():
        return "a probability is not finite"
    if probabilities.min() < 0 or probabilities.max() > 1:
        return "a probability is outside 0 to 1"
    is_one = np.isclose(probabilities.sum(1), 1, rtol=0, atol=SUM_TOLERANCE)
    if not is_one.all():
        index = int(np.flatnonzero(~is_one)[0])
        return f"the probabilities of image {index} sum to {probabilities[index].sum():.9g}, not to 1"
    return None
