"""Defects in what makes columns of JSON text, and in the opening of compressed records."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

MUTANTS = [
    Mutant(
        "a float column rounds integers",
        "jsontext/shapes.py",
        "return Optional[whole | float]",
        "return Optional[float]",
    ),
    Mutant(
        "an integer that a float column refused is rounded after all",
        "jsontext/shapes.py",
        "return float(value) if isinstance(value, float) or abs(value) <= self._whole else None",
        "return float(value)",
    ),
    Mutant(
        "an integer written as a float goes through a double",
        "jsontext/shapes.py",
        "value if isinstance(value, int) else whole_number(raw.decode(), value)",
        "int(value) if value == int(value) else None",
    ),
    Mutant(
        "an integer of more than 64 bits is not told by its path",
        "jsontext/shapes.py",
        "            misfits.large.append(self._path)\n",
        "",
    ),
    Mutant(
        "large integers are no conflict with floats", "jsontext/infer.py", "            self.has_large = True\n", ""
    ),
    Mutant(
        "long decimals are no conflict", "jsontext/infer.py", "self.has_long |= isinstance(value, _LongFloat)", "pass"
    ),
    Mutant(
        "a conflict does not make text",
        "jsontext/infer.py",
        "(pl.String(), []) if conflict",
        "(_SCALARS.get(kinds, pl.String()), []) if conflict",
    ),
    Mutant(
        "every long print of a double is a decimal",
        "jsontext/shapes.py",
        'return exact in (Decimal(repr(value)), Decimal(f"{value:.{digits - 1}e}"))',
        "return exact == Decimal(repr(value))",
    ),
    Mutant(
        "a number that a double makes zero is zero",
        "jsontext/shapes.py",
        "        return not value and not _has_digits(text)\n",
        "        return not value\n",
    ),
    Mutant(
        "large integers behind the sample are lost",
        "jsontext/parse.py",
        "reader.large.keys() <= large.keys()",
        "True",
    ),
    Mutant(
        "types are inferred again without end",
        "jsontext/parse.py",
        "inferences == _MOST_INFERENCES or ",
        "",
    ),
    Mutant("integers within a cell of pandas are floats", "jsontext/parse.py", ", integer_object_nulls=True", ""),
    Mutant(
        "NaN is taken for null without a word",
        "jsontext/lenient.py",
        '            changed.append(f"{path}: {value.name} is not JSON, read as null")\n',
        "",
    ),
    Mutant(
        "half of a surrogate is dropped",
        "jsontext/lenient.py",
        'return _LONE.sub("\\ufffd", text)',
        'return _LONE.sub("", text)',
    ),
    Mutant(
        "a path is named with half of a surrogate",
        "jsontext/lenient.py",
        "            members = zip(names, value.values(), strict=True)\n",
        "            members = zip(value, value.values(), strict=True)\n",
    ),
    Mutant("a byte order mark makes a row malformed", "jsontext/lenient.py", 'text.removeprefix("\\ufeff")', "text"),
    Mutant(
        "numbers of lenient JSON are parsed",
        "jsontext/lenient.py",
        "parse_int=msgspec.Raw, parse_float=msgspec.Raw, ",
        "",
    ),
    Mutant(
        "an array of numbers is a row for each",
        "jsontext/lenient.py",
        "return isinstance(value, list) and any(isinstance(item, dict) for item in value)",
        "return isinstance(value, list)",
    ),
    Mutant("rows with NaN are not sampled", "jsontext/infer.py", "yield _decode(value.raw)", "yield _decode(text)"),
    Mutant(
        "places are counted from the beginning of a chunk",
        "jsontext/row_reader.py",
        "self.several[self._count + n] = len(found)",
        "self.several[n] = len(found)",
    ),
    Mutant(
        "the reason stands at another object of the record",
        "jsontext/row_reader.py",
        "{len(values) + place: ",
        "{len(values): ",
    ),
    Mutant(
        "records are exploded without a word",
        "jsontext/row_reader.py",
        "if self._explode is None and self.several:",
        "if False:",
    ),
    Mutant(
        "explode=False explodes",
        "jsontext/row_reader.py",
        "if len(found) > 1 and self._explode is False:",
        "if False:",
    ),
    Mutant(
        "replaced letters are not told",
        "jsontext/row_reader.py",
        "[fault, *said] if fault else said",
        "said",
    ),
    Mutant(
        "bytes are blamed for text that was repaired",
        "jsontext/row_reader.py",
        ' if "\\ufffd" in self.text else ""',
        "",
    ),
    Mutant(
        "fields beyond the limit are called new",
        "jsontext/row_reader.py",
        "change.removeprefix(NEW_FIELD) not in schema.left_out",
        "True",
    ),
    Mutant(
        "the limit of fields is not told",
        "jsontext/row_reader.py",
        "        if schema.left_out:\n",
        "        if False:\n",
    ),
    Mutant(
        "bytes behind gzip data are dropped",
        "core/compression.py",
        "    if is_faulty.true_count:",
        "    if False:",
    ),
    Mutant(
        "a member of gzip that is cut is whole",
        "core/compression.py",
        "        if not member.eof:\n",
        "        if not True:\n",
    ),
    Mutant("members of gzip are opened without end", "core/compression.py", "for _ in range(_MEMBERS):", "while True:"),
    Mutant(
        "records that stay packed are not counted", "reading/read.py", "plan.unpack is not unchanged and", "False and"
    ),
]

SUITE = Suite(
    MUTANTS,
    (
        "tests/jsontext/test_messy.py",
        "tests/jsontext/test_parse.py",
        "tests/core/test_compression.py",
    ),
)
