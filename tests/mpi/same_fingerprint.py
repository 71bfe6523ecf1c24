#!/usr/bin/python3
"""A run has one outcome, whatever number of ranks executes it, and however they talk."""
from ranks import RankChecks, json

checks = RankChecks(users=3)
RUN = ["--program", "small.lpuprog", "--tokens", "4", "--users", "3"]
alone = checks.object("run", *RUN, "--json")
SAME = ["fingerprint", "schedule_digest", "makespan_cycles", "token_latency_cycles", "initiation_interval_cycles",
        "token_period_cycles", "arrivals_checked", "transfers", "vectors_moved", "bursts", "jitter_cycles_max", "occupancy",
        "link_busy_max", "tokens_per_second", "chips", "chips_idle"]

# Stages whole on 1, 2, 3 and 4 ranks; stages cut on 5, 7 and 16; ranks without a chip on 18.
for ranks, transport in ((1, "auto"), (2, "shm"), (3, "auto"), (5, "mpi"), (7, "auto"), (16, "shm"), (18, "auto")):
    result = checks.result(ranks, *RUN, "--transport", transport)
    for key in SAME:
        checks.check(result.get(key) == alone[key], f"np {ranks}: {key}: {result.get(key)}, alone {alone[key]}")
    checks.check(result.get("ranks") == ranks, f"np {ranks}: counts itself: {result.get('ranks')}")
    checks.check(result.get("ranks_idle") == max(0, ranks - 16), f"np {ranks}: idle: {result.get('ranks_idle')}")
    between = result.get("messages_between_ranks", 0)
    checks.check((between > 0) == (ranks > 1), f"np {ranks}: {between} messages between ranks")
    checks.check((result.get("messages_in_process", 0) > 0) == (ranks < 16), f"np {ranks}: messages in process")
    expected = {"shm": "shared memory", "mpi": "MPI", "auto": "in process" if ranks == 1 else "shared memory"}
    checks.check(result.get("transport") == expected[transport], f"np {ranks}: transport {result.get('transport')}")
    per_chip = result.get("per_chip", [])
    checks.check([chip["chip"] for chip in per_chip] == list(range(16)), f"np {ranks}: every chip is listed")
    used = {chip["rank"] for chip in per_chip}
    checks.check(used == set(range(min(ranks, 16))), f"np {ranks}: chips are dealt to ranks {used}")

text = checks.run_ranks(18, *RUN)[1]
checks.check("18 on 1 host, shared memory; 2 idle" in text and " between ranks\n" in text, f"what people read: {text}")

# A trace is that of the execution, whoever executes; its bursts lie in the window, and none of a unit's threads overlap.
TRACE = ["--trace-chips", "2-9", "--trace-cycles", "3000-17000"]
checks.expect(["run", *RUN, "--trace", "alone.json", *TRACE], 0, stderr="")
checks.result(5, *RUN, "--trace", "ranks.json", *TRACE)
with open("alone.json", encoding="utf-8") as first, open("ranks.json", encoding="utf-8") as second:
    trace = json.load(first)
    checks.check(trace == json.load(second), "the same trace from five ranks")
bursts = [event for event in trace["traceEvents"] if event["ph"] == "X"]
checks.check(len(bursts) == trace["otherData"]["bursts"] > 100 and trace["otherData"]["bursts_left_out"] == 0, "bursts are counted")
checks.check({burst["args"]["chip"] for burst in bursts} == set(range(2, 10)), "chips are selected")
checks.check(all(3000 <= burst["args"]["cycle"] <= 17000 for burst in bursts), "cycles are selected")
ends = {}
for burst in bursts:
    checks.check(burst["args"]["cycle"] >= ends.get(burst["tid"], 0), f"overlap on thread {burst['tid']}")
    ends[burst["tid"]] = burst["args"]["cycle"] + burst["args"]["cycles"]
for arguments, line in ((["--trace-chips", "3"], "--trace-chips: found it without --trace; expected the file to write beside it"),
                        (["--trace", "no/t.json"], "--trace: found no no; expected an existing folder"),
                        (["--trace", "t.json", "--trace-chips", "16"], "--trace-chips: found 16; expected chips from 0 to 15")):
    checks.refused(["run", *RUN, *arguments], line)

# Every rule checked while it runs, and ranks that are late at random.
every_rule = checks.result(3, *RUN, "--no-verify")
checks.check(every_rule.get("fingerprint") == alone["fingerprint"], "checking every burst changes nothing")
late = checks.result(5, *RUN, environment={"LPU_CLUSTER_TEST_FAULTS": "delay=2000"})
checks.check(late.get("fingerprint") == alone["fingerprint"], "ranks that are late change nothing")
other = checks.result(3, "--program", "small.lpuprog", "--tokens", "5", "--users", "3")
checks.check(other.get("fingerprint") not in (None, alone["fingerprint"]), "another run has another fingerprint")

# Log lines say of which ranks they are; equal ones are one.
said = checks.run_ranks(5, *RUN, "--log-level", "info")[2]
checks.check("lpu_cluster: [ranks 0-4] info: " in said and said.count("vectors between ranks go through") == 1, f"log lines: {said}")

checks.finish()
