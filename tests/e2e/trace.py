#!/usr/bin/python3
"""What `run --trace` writes is a trace in the JSON object form of Chrome's trace event format, which Perfetto opens too.

Strictly: no key and no phase but those that the form knows; every track has a name, once; bursts of a track follow each other; times
are those of the cycles.
"""
import collections
import json

from program import Checks

checks = Checks()
UNITS = {"C2C", "MEM", "MXM", "SXM", "VXM"}
KEYS = {"X": {"ph", "pid", "tid", "ts", "dur", "name", "args"}, "M": {"ph", "pid", "tid", "name", "args"}}
METADATA = {"process_name": str, "thread_name": str, "process_sort_index": int, "thread_sort_index": int}


def once(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    checks.check(not counts or max(counts.values()) == 1, f"a key stands twice in one object: {counts}")
    return dict(pairs)


def no_number(word):
    checks.check(False, f"{word} is no JSON")


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def check_metadata(event, names):
    what = event["name"]
    checks.check(what in METADATA, f"metadata: {event}")
    value = event["args"].get("name" if what.endswith("_name") else "sort_index")
    checks.check(len(event["args"]) == 1 and isinstance(value, METADATA.get(what, str)) and value != "", f"metadata: {event}")
    track = event["pid"] if what.startswith("process") else (event["pid"], event["tid"])
    checks.check((what, track) not in names, f"named twice: {event}")
    names[what, track] = value


def check_burst(event, names, ends, clock_hz):
    track = (event["pid"], event["tid"])
    checks.check(("process_name", event["pid"]) in names and ("thread_name", track) in names, f"a burst on a track without a name: {event}")
    args = event["args"]
    checks.check(all(is_whole(value) for value in args.values()), f"arguments: {event}")
    checks.check(isinstance(event["name"], str) and event["name"] != "", f"name: {event}")
    for key, cycles in (("ts", args["cycle"]), ("dur", args["cycles"])):
        checks.check(isinstance(event[key], (int, float)) and event[key] >= 0, f"{key}: {event}")
        checks.check(abs(event[key] - cycles * 1e6 / clock_hz) <= 1e-4, f"{key} is not {cycles} cycles in us: {event}")
    checks.check(args["cycles"] > 0 and args["cycle"] >= ends.get(track, 0), f"bursts of a track overlap or go back: {event}")
    ends[track] = args["cycle"] + args["cycles"]


def check(path):
    with open(path, encoding="utf-8") as file:
        trace = json.load(file, object_pairs_hook=once, parse_constant=no_number)
    checks.check(set(trace) == {"traceEvents", "displayTimeUnit", "otherData"} and isinstance(trace["traceEvents"], list),
                 f"the object form: {list(trace)}")
    checks.check(trace["displayTimeUnit"] in ("ms", "ns"), f"displayTimeUnit: {trace['displayTimeUnit']}")
    names, ends, bursts = {}, {}, 0
    for event in trace["traceEvents"]:
        known = KEYS.get(event.get("ph"), set())
        fits = set(event) == known or (event.get("ph") == "M" and set(event) == known - {"tid"})
        checks.check(fits and isinstance(event["args"], dict), f"keys: {event}")
        checks.check(is_whole(event["pid"]) and is_whole(event.get("tid", 0)), f"pid and tid: {event}")
        if event["ph"] == "M":
            check_metadata(event, names)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            bursts += 1
            check_burst(event, names, ends, trace["otherData"]["clock_hz"])
    checks.check(bursts == trace["otherData"]["bursts"] > 0, f"{bursts} bursts, {trace['otherData']}")
    checks.check({track for what, track in names if what == "thread_name"} == set(ends), "every track that is named holds bursts")
    units = {value.split()[2] for (what, _), value in names.items() if what == "thread_name"}
    checks.check(units == UNITS, f"units: {units}")
    chips = {int(value.split()[1]) for (what, _), value in names.items() if what == "thread_name"}
    return chips, trace["otherData"]


checks.expect(["run", "--model", "llama-3-8b", "--tokens", "2", "--trace", "one.json", "--trace-chips", "6-9", "--trace-cycles", "0-40000"], 0)
found, about = check("one.json")
checks.check(found == {6, 7, 8, 9} and about["bursts_left_out"] == 0, f"chips {found}, {about}")
checks.expect(["run", "--model", "mixtral-8x7b", "--chips", "512", "--tokens", "2", "--trace", "many.json", "--trace-chips", "0-15"], 0)
found, about = check("many.json")
print(about)
checks.finish()
