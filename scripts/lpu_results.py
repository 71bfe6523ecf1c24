#!/usr/bin/python3
"""Reads what lpu_cluster writes: results.json, scaling.csv and sweep.csv become a pandas DataFrame in one call.

    import lpu_results
    frame = lpu_results.load("a/results.json", "b/scaling.csv")

Each row of a comparison is a row of the frame; any other verb's results.json is one row, nested keys joined by dots.
The column `file` says where a row comes from. Types are those of schema/results.schema.json: integers and booleans stay so
where a value is missing. As a program it prints the frame as CSV:

    scripts/lpu_results.py results.json
"""
import json
import pathlib
import sys

import jsonschema
import pandas

SCHEMA = json.loads((pathlib.Path(__file__).resolve().parent / "schema" / "results.schema.json").read_text("utf-8"))
DTYPES = {"boolean": "boolean", "integer": "Int64", "number": "float64", "string": "string"}


class ResultsError(Exception):
    """One line that names the file, the field, what was found and what was expected."""


def dtype_of(declared):
    """The column's type for a type of the schema: a word, or a list of one word and "null"."""
    words = [declared] if isinstance(declared, str) else declared
    return DTYPES[next(word for word in words if word != "null")]


COLUMNS = {key: dtype_of(value["type"]) for key, value in SCHEMA["$defs"]["row"]["properties"].items()}


def text_of(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ResultsError(f"{path}: cannot be read: {reason}; expected a file that lpu_cluster wrote") from error


def json_of(path, what):
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path}: line {error.lineno}: found damaged JSON ({error.msg}); expected a complete {what}") from error


def read_trace(path):
    """The object that `run --trace F` wrote. Raises ResultsError."""
    trace = json_of(path, "trace")
    if not isinstance(trace, dict) or "traceEvents" not in trace or "clock_hz" not in trace.get("otherData", {}):
        raise ResultsError(f"{path}: found JSON without traceEvents and otherData.clock_hz; expected a trace of lpu_cluster run")
    return trace


def read(path):
    """The object of a results.json, checked against the schema.

    Raises ResultsError: the file is missing, damaged, or not a result of lpu_cluster.
    """
    results = json_of(path, "results.json")
    finding = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEMA).iter_errors(results))
    if finding is not None:
        field = finding.json_path.removeprefix("$").removeprefix(".") or "the whole"
        message = finding.message if len(finding.message) < 200 else finding.message[:100] + " … " + finding.message[-90:]
        raise ResultsError(f"{path}: {field}: {message}; expected {SCHEMA['title']}")
    return results


def typed(frame):
    """The frame with the schema's types in the columns that the schema knows."""
    known = {key: dtype for key, dtype in COLUMNS.items() if key in frame}
    return frame.astype(known)


def rows_of(results):
    """The rows of a comparison; of any other result one row."""
    if "rows" in results:
        return typed(pandas.DataFrame(results["rows"], columns=list(COLUMNS)))
    return pandas.json_normalize({key: value for key, value in results.items() if key != "inputs"})


def load_csv(path):
    text_of(path)  # the same refusals as for JSON
    try:
        frame = pandas.read_csv(path, float_precision="round_trip",
                                dtype={key: "string" for key in COLUMNS if COLUMNS[key] == "boolean"})
        for key in frame.columns.intersection([key for key in COLUMNS if COLUMNS[key] == "boolean"]):
            frame[key] = frame[key].map({"true": True, "false": False})
        return typed(frame)
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path}: found {str(error).splitlines()[0]}; expected a CSV that lpu_cluster wrote") from error


def load(*paths):
    """All rows of results.json, scaling.csv and sweep.csv files, file after file.

    Raises ResultsError.
    """
    frames = []
    for path in paths:
        frame = load_csv(path) if str(path).endswith(".csv") else rows_of(read(path))
        frames.append(frame.assign(file=str(path)))
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()


if __name__ == "__main__":
    try:
        if len(sys.argv) < 2:
            raise ResultsError("found no file; expected results.json, scaling.csv or sweep.csv, one or more")
        load(*sys.argv[1:]).to_csv(sys.stdout, index=False)
    except ResultsError as refusal:
        print(f"lpu_results.py: {refusal}", file=sys.stderr)
        sys.exit(2)
