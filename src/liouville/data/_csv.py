"""CSV as people have it: what separates the cells, what marks the decimals, which line holds names."""

import contextlib
import csv
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from .._errors import DataError

# Arrow makes these functions when it is imported, where type checkers do not see them.
pc: Any = pyarrow.compute
MISSING = ["", "na", "n/a", "nan", "null", "none", "#n/a", "<na>"]
# Enough rows to see by which mark they are separated.
SAMPLE_ROWS = 50
LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
# Two, since each of them begins with what is quick to find.
BLANK_LINES = (re.compile(rb"\n[ \t]*\r?\n"), re.compile(rb"\r[ \t]*\r"))
NUMBERS = {
    mark: rf"(?i)^[-+]?(\d+{sign}?\d*|{sign}\d+)(e[-+]?\d+)?$|^[-+]?inf(inity)?$"
    for mark, sign in ((".", r"\."), (",", ","))
}
# Digits and all that people put between them: what is no number is then at least no name.
DIGITS = re.compile(r"[-+]?[\d.,' ]*\d[\d.,' ]*(e[-+]?\d+)?", re.IGNORECASE)
# Numbers, whatever marks their decimals and their thousands.
LIKE_NUMBERS = rf"{NUMBERS['.']}|{NUMBERS[',']}|^[-+]?\d{{1,3}}([.,' ]\d{{3}})+([.,]\d+)?$"
# One and a half to some, fifteen hundred to others.
THOUSANDS_OR_DECIMALS = r"^[-+]?[1-9]\d{0,2},\d{3}$"


class Source(NamedTuple):
    """A file that has been looked into: which columns it has, and how to read some of them.

    Attributes
    ----------
    label
        What messages call it.
    columns
        The columns' names, in the file's order; that of a column without one is empty.
    frame_index
        Places of those that are a data frame's index, and no columns unless they are asked for.
    load
        Function of places, and of those of them that hold text whatever it looks like, that returns the columns there,
        and by place the first row, where there is one, in which text stands among numbers.
    notes
        Warnings; reading may add some.
    named
        False where the names are made up.
    """

    label: str
    columns: list[str]
    frame_index: list[int]
    load: Callable[[list[int], Collection[int]], tuple[list[pa.ChunkedArray], dict[int, int]]]
    notes: list[str]
    named: bool = True


def default_names(size: int) -> list[str]:
    """Return the names of columns that have none: x0, x1, and so on."""
    return [f"x{j}" for j in range(size)]


def nameless_at_head(names: Sequence[str]) -> list[int]:
    """Return the places of the first columns that have no name, or one that pandas gives to such: an index."""
    return list(itertools.takewhile(lambda j: re.fullmatch(r"|Unnamed: \d+(\.\d+)*", names[j]), range(len(names))))


def open_csv(content: pa.Buffer, label: str, delimiter: str | None, wanted: Sequence[str]) -> Source:
    """Look into a CSV file.

    Parameters
    ----------
    content
        Its bytes, unpacked.
    label
        What messages call it.
    delimiter
        What separates the cells, or None to find it out.
    wanted
        Names that are asked for: a first line that has them all is one of names, whatever they look like.

    Raises
    ------
    DataError
        Where there are no rows.
    UnicodeDecodeError
        Where it is no text.
    """
    content = _without_blank_end(content)
    start, body, comment = _after_comments(content)
    if body == len(content):
        raise DataError(f"Expected rows in {label}, got an empty file, which cannot be read as a table; try another.")
    delimiter = delimiter or _delimiter(content, body)
    records = _records(content, body, delimiter)
    (first, end), (second, _) = next(records), next(records, ([], body))
    names, notes = [cell.strip() for cell in first], []
    told = _comment_names(comment, names, delimiter)
    header = told is None and _is_header(names, second, wanted, label, notes)
    if told is None and not header:
        notes.append(
            f"read the first line of {label}, numbers, as a row, not as names; try writing a line of names above it"
        )
    # In one column a blank line is a cell, above the first number too.
    start = end if header else start if len(names) == 1 else body
    columns = told or (names if header else default_names(len(names)))
    rows = _Rows(content.slice(start), delimiter, len(columns), label, notes)
    named = header or told is not None
    load = lambda places, texts: rows.load(places, texts, columns)
    return Source(label, columns, nameless_at_head(columns), load, notes, named)


def _without_blank_end(content: pa.Buffer) -> pa.Buffer:
    """Return bytes without byte order mark, and without the blank lines at the end, which are no rows."""
    view = memoryview(content)
    start, end = 3 * (bytes(view[:3]) == b"\xef\xbb\xbf"), len(view)
    while end > start and view[end - 1] in b"\r\n ":
        end -= 1
    return content.slice(start, end - start)


def _after_comments(content: pa.Buffer) -> tuple[int, int, str]:
    """Return where the comments at the head end, where the first line behind them is, and the last comment."""
    start, comment = 0, ""
    for line in LINE.finditer(content):
        text = line[0].strip()
        if text.startswith(b"#"):
            start, comment = line.end(), text.decode()
        elif text:
            return start, line.start(), comment
    return start, len(content), comment


def _records(content: pa.Buffer, start: int, delimiter: str) -> Iterator[tuple[list[str], int]]:
    """Yield the cells of each row, none of a blank line, and where the row ends."""
    ends = []

    def lines() -> Iterator[str]:
        for line in LINE.finditer(content, start):
            ends.append(line.end())
            yield line[0].decode()

    reader = csv.reader(lines(), delimiter=delimiter)
    for cells in reader:
        yield cells, ends[reader.line_num - 1]


def _delimiter(content: pa.Buffer, start: int) -> str:
    """Return the mark that is in the first line; of two, the one that leaves numbers between them."""

    def share(mark: str) -> float:
        rows = itertools.islice(_records(content, start, mark), SAMPLE_ROWS)
        cells = [cell.strip() for row, _ in rows for cell in row]
        decimals = "." if mark == "," else ".,"
        return sum(any(re.match(NUMBERS[decimal], cell) for decimal in decimals) for cell in cells) / len(cells)

    marks = [mark for mark in ",;\t" if len(next(_records(content, start, mark))[0]) > 1]
    return max(marks, key=share) if marks else ","


def _comment_names(comment: str, first: list[str], delimiter: str) -> list[str] | None:
    """Return names that stand in the comment right above numbers, as `numpy.savetxt` writes them, or None."""
    names = [cell.strip() for cell in next(csv.reader([comment], delimiter=delimiter), [])]
    # A sentence above a single column is one about it.
    fits = len(names) == len(first) and (len(names) > 1 or " " not in names[0].lstrip("# "))
    names[:1] = [name.lstrip("# ") or name for name in names[:1]]
    told = fits and all(names) and not any(map(_is_number, names)) and any(map(_is_number, first))
    return names if told else None


def _is_header(first: list[str], second: list[str], wanted: Sequence[str], label: str, notes: list[str]) -> bool:
    """Return True where a first line holds names; a cell that is missing says nothing."""
    if wanted and set(wanted) <= set(first):
        return True
    told = [cell for cell in first if cell.lower() not in MISSING]
    others = [cell for cell in told if not _is_number(cell)]
    if others or not told:
        odd = next((cell for cell in told if cell not in others and not cell.isdigit()), None)
        if odd is not None:
            notes.append(f"read the first line of {label} as names, though {odd!r} looks like a number")
        return True
    names = [cell for j, cell in enumerate(first) if cell or j]
    if names != [str(j) for j in range(len(names))]:
        return False
    if len(names) < len(first):
        return True
    # Who writes 0, 1, 2, ... above numbers writes names, as pandas does. Above whole numbers that is less plain, and
    # a single 0 is then a number like those below it.
    whole = bool(second) and all(re.fullmatch(r"[-+]?\d+", cell.strip()) for cell in second)
    if not whole or len(first) > 1:
        if whole or len(first) == 1:
            notes.append(f"read the first line of {label}, {', '.join(first[:3])}, as names, not as a row")
        return True
    return False


def _is_number(cell: str) -> bool:
    return re.fullmatch(NUMBERS["."], cell) is not None or DIGITS.fullmatch(cell) is not None


def _is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


class _Rows:
    """The rows of a CSV file, below its names."""

    def __init__(self, content: pa.Buffer, delimiter: str, width: int, label: str, notes: list[str]):
        self.content, self.delimiter, self.width, self.label, self.notes = content, delimiter, width, label, notes

    def load(
        self, places: list[int], texts: Collection[int], names: list[str]
    ) -> tuple[list[pa.ChunkedArray], dict[int, int]]:
        """Return columns: numbers, yes and no, dates, or text; and where text stands among numbers.

        Raises
        ------
        DataError
            Where there are no rows, a row has too many cells or too few, or decimal commas may be something else.
        """
        if not len(self.content):
            raise DataError(f"Expected rows in {self.label}, got none; try another file.")
        self._note_blank_lines()
        columns = self._parse(places, texts, ".")
        # Times without a day are text, as they are written.
        times = {j for j, column in zip(places, columns, strict=True) if pa.types.is_time(column.type)}
        if times:
            texts = {*texts, *times}
            columns = self._parse(places, texts, ".")
        others = [i for i, j in enumerate(places) if j not in texts]
        decimal = "."
        if self.delimiter != ",":
            decimal = self._decimal_mark([columns[i] for i in others], [names[places[i]] for i in others])
        columns = columns if decimal == "." else self._parse(places, texts, decimal)
        odd = {}
        for i, place in enumerate(places):
            if pa.types.is_string(columns[i].type):
                columns[i] = _texts(columns[i])
                if place not in texts:
                    columns[i], row = _numbers_or_texts(columns[i], decimal)
                    odd |= {} if row is None else {place: row}
        return columns, odd

    def _parse(self, places: list[int], texts: Collection[int], decimal: str) -> list[pa.ChunkedArray]:
        names = [str(j) for j in range(self.width)]
        parse = pyarrow.csv.ParseOptions(
            delimiter=self.delimiter,
            # In one column a blank line is a cell that is missing, in several it is no row.
            ignore_empty_lines=self.width > 1,
            newlines_in_values=re.search(b'"', self.content) is not None,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
        )
        convert = pyarrow.csv.ConvertOptions(
            include_columns=[names[j] for j in places],
            column_types={names[j]: pa.string() for j in texts},
            decimal_point=decimal,
        )
        read = pyarrow.csv.ReadOptions(column_names=names)
        try:
            table = pyarrow.csv.read_csv(pa.BufferReader(self.content), read, parse, convert)
        except pa.ArrowInvalid:
            self._check_widths()
            raise
        return [table.column(names[j]) for j in places]

    def _note_blank_lines(self) -> None:
        """Say how many lines between rows are no rows: who lays scores beside lines would be off by them."""
        first = re.match(rb"[ \t]*[\r\n]", self.content)
        if self.width == 1 or not (first or any(blank.search(self.content) for blank in BLANK_LINES)):
            return
        blank = sum(_is_blank(cells) for cells, _ in _records(self.content, 0, self.delimiter))
        if blank:
            self.notes.append(
                f"took {blank} blank line{'s' * (blank > 1)} between the rows of {self.label} for no rows"
            )

    def _check_widths(self) -> None:
        """Name the first row that is too long or too short: Arrow, which reads in parallel, cannot."""
        rows = (cells for cells, _ in _records(self.content, 0, self.delimiter))
        with contextlib.suppress(csv.Error, UnicodeDecodeError):
            for row, cells in enumerate(cells for cells in rows if self.width == 1 or not _is_blank(cells)):
                if len(cells) != self.width and not (self.width == 1 and _is_blank(cells)):
                    raise DataError(
                        f"Expected {self.width} cells in every row of {self.label}, got {len(cells)} in row {row}; "
                        "try filling in or dropping the row."
                    )

    def _decimal_mark(self, columns: list[pa.ChunkedArray], names: list[str]) -> str:
        """Return a comma where it marks the decimals of some cell."""
        unclear = None
        for column, name in zip(columns, names, strict=True):
            if not pa.types.is_string(column.type):
                continue
            cells = pc.utf8_trim_whitespace(column)
            cells = pc.fill_null(cells, "")
            found = pc.and_(pc.match_substring(cells, ","), pc.match_substring_regex(cells, NUMBERS[","]))
            either = pc.match_substring_regex(cells, THOUSANDS_OR_DECIMALS)
            if pc.any(pc.and_not(found, either)).as_py():
                return ","
            row = pc.index(either, True).as_py()
            if row >= 0 and unclear is None:
                unclear = f"{cells[row].as_py()!r} in row {row}, column {name!r}"
        if unclear is not None:
            raise DataError(
                f"Expected numbers in {self.label}, got {unclear}, in which the comma may mark decimals or thousands; "
                "try writing decimals with a point and thousands without a mark."
            )
        return "."


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells of text; what stands for a missing value is missing."""
    missing = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(MISSING))
    return pc.if_else(missing, None, column)


def _numbers_or_texts(column: pa.ChunkedArray, decimal: str) -> tuple[pa.ChunkedArray, int | None]:
    """Return cells as numbers where all are, or as they are; and the first that is none where most look like some."""
    cells = pc.utf8_trim_whitespace(column)
    number = pc.match_substring_regex(cells, NUMBERS[decimal])
    if pc.all(number).as_py() is not False:
        return pc.replace_substring(cells, decimal, ".").cast(pa.float64()), None
    alike = pc.sum(pc.match_substring_regex(cells, LIKE_NUMBERS)).as_py()
    is_text = 2 * alike < len(column) - column.null_count
    return column, None if is_text else pc.index(number, False).as_py()
