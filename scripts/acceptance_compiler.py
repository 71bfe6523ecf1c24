#!/usr/bin/python3
"""What was asked of the compiler, line by line, on a built program: the figure, and PASS or MISS.

Each check is a function that reports one line for each thing that was asked; `--only` names some of them. CPU time
stands for wall time where the program works on one core alone: other work on the machine then does not count.
"""
import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODELS = {"llama-2-7b": 64, "llama-2-70b": 576, "llama-3-8b": 64, "llama-3-70b": 576, "mistral-7b": 64,
          "mixtral-8x7b": 256, "mixtral-8x22b": 904}
GIBIBYTE = 2**30
NOBODY = 65534
CHECKS = {}


def check(function):
    """Makes the function known by its name."""
    CHECKS[function.__name__] = function
    return function


@dataclass
class Outcome:
    """How a call of the program ended, and what it took."""
    code: int
    stdout: str
    stderr: str
    cpu_s: float
    peak_bytes: int

    def object(self):
        try:
            return json.loads(self.stdout)
        except ValueError:
            return {}

    def complaint(self):
        return self.stderr.strip().splitlines()[-1][:200] if self.stderr.strip() else f"exit code {self.code}"


class Acceptance:
    """Calls the program in an empty folder, and collects the verdicts."""

    def __init__(self, program):
        self.program = program
        self.lines = []
        self.made = {}

    def call(self, *arguments, timeout=900, user=None):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen([self.program, *arguments], stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                  user=user) as process:
                deadline = time.monotonic() + timeout
                pid, status, usage = 0, 0, None
                while pid == 0:
                    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                    if pid == 0 and time.monotonic() > deadline:
                        process.kill()
                    if pid == 0:
                        time.sleep(0.005)
                process.returncode = os.waitstatus_to_exitcode(status)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "replace"))
        return Outcome(process.returncode, *texts, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def report(self, name, asked, figure, holds):
        self.lines.append((name, holds))
        print(f"{'PASS' if holds else 'MISS'}  {name}: {asked}: {figure}", flush=True)

    def tell(self, name, figure):
        """A figure that is reported, not judged."""
        print(f"      {name}: {figure}", flush=True)

    def compiled(self, file, *arguments):
        """What compile says of a program; each file is made once."""
        if file not in self.made:
            self.made[file] = self.call("compile", *arguments, "-o", file, "--json")
        return self.made[file]

    def refused(self, name, asked, arguments, code=2, user=None, timeout=120):
        """One line, nothing printed, nothing written."""
        before = sorted(os.listdir("."))
        outcome = self.call(*arguments, user=user, timeout=timeout)
        is_clean = outcome.stdout == "" and sorted(os.listdir(".")) == before
        is_line = re.fullmatch(r"lpu_cluster: [^\n]+\n", outcome.stderr) is not None
        self.report(name, asked, outcome.complaint(), outcome.code == code and is_clean and is_line)


def within(value, bound):
    return f"{value:,.3f} (at most {bound})"


# ---- the layer against the design budget
@check
def budget(a):
    with open(os.path.join(SOURCE, "tests", "golden", "design_budget.json"), encoding="utf-8") as file:
        golden = json.load(file)
    tolerance = golden["tolerance"]
    for layer in golden["layers"]:
        outcome = a.call("plan", *layer["plan"], "--context", "1k", "--micro-batch", "1", "--explain", "--json")
        plan = outcome.object()
        name = f"budget {layer['name']}"
        rows = [f"{row['origin']} {'-'.join(str(x) for x in sorted(set(row['layer'])))}" for row in layer["rows"]]
        asked = f"layer within {tolerance:.0%} of {', '.join(rows)}"
        if "layer_cycles" not in plan:
            a.report(name, asked, outcome.complaint(), False)
            continue
        cycles = plan["layer_cycles"]
        near = [row for row in layer["rows"]
                if row["layer"][0] * (1 - tolerance) <= cycles <= row["layer"][1] * (1 + tolerance)]
        figure = f"{cycles:,} cycles, {plan['tokens_per_second_per_user']:.0f} tokens/s a user"
        a.report(name, asked, figure, bool(near))
        for row in layer["rows"]:
            for part, reference in row["parts"].items():
                found = sum(plan["budget"][key] for key in golden["parts"][part])
                off = found / reference - 1
                a.tell(f"  {part}", f"{found:,}, {row['origin']} {reference:,}: {off:+.0%}"
                       + ("  (off by more than the tolerance: to be explained)" if abs(off) > tolerance else ""))
        a.tell("  waiting", f"{plan['budget']['waiting']:,}")


# ---- plan = run, and the quality of every preset
AGREE = ["token_latency_cycles", "initiation_interval_cycles", "token_period_cycles", "users", "tokens_per_second",
         "schedule_digest"]


def saturated(a, model, objective):
    """A program of the preset at its default system, loaded with the users that saturate it, or that fit."""
    flags = ["--model", model, "--objective", objective]
    file = f"{model}-{objective}.lpuprog"
    plan = a.compiled(file, *flags, "--users", "saturating").object()
    most = min(plan.get("users_saturating", 0), plan.get("users_fit", 0))
    if plan and plan["users"] < most:
        a.report(f"saturating {model} {objective}", f"--users saturating gives {most} users", plan["users"], False)
        file = f"{model}-{objective}-{most}.lpuprog"
        return file, a.compiled(file, *flags, "--users", str(most))
    return file, a.compiled(file, *flags, "--users", "saturating")


@check
def agreement(a):
    for model in MODELS:
        for objective in ("latency", "throughput"):
            name = f"agreement {model} {objective}"
            asked = "plan = run to the cycle, loaded with the users that saturate it"
            file, made = saturated(a, model, objective)
            plan = made.object()
            if not plan:
                a.report(name, asked, made.complaint(), False)
                continue
            users = plan["users"]
            outcome = a.call("run", "--program", file, "--users", str(users), "--tokens", "2", "--json")
            run = outcome.object()
            differs = [key for key in AGREE if plan.get(key) != run.get(key)]
            figure = (f"II {plan['initiation_interval_cycles']:,}, latency {plan['token_latency_cycles']:,}, "
                      f"{users} users")
            if differs:
                figure += f"; differs in {', '.join(differs)}: {outcome.complaint()}"
            a.report(name, asked, figure, not differs and run["jitter_cycles_max"] == 0
                     and (users <= plan["micro_batch"] or run["initiation_interval_measured"]))


@check
def latency(a):
    for model, chips in MODELS.items():
        made = a.compiled(f"{model}.lpuprog", "--model", model)
        plan = made.object()
        quality = plan.get("latency_quality", float("nan"))
        figure = f"{quality:.3f} ({plan.get('token_latency_cycles')} cycles, {plan.get('chips')} chips)"
        a.report(f"latency {model}", f"latency_quality at most 1.10, {chips} chips by default",
                 figure if plan else made.complaint(), 1 <= quality <= 1.10 and plan.get("chips") == chips)


THROUGHPUT = {
    "llama-2-70b": ["--chips", "640", "--tp", "8", "--pp", "80"],
    "mixtral-8x7b": ["--chips", "256", "--tp", "8", "--pp", "32"],
}


@check
def throughput(a):
    for model, system in THROUGHPUT.items():
        for compute, batch, bound in (("w8a8", 1, 1.10), ("w8a8", 8, 1.15), ("w8a16", 1, 1.10)):
            name = f"throughput {model} {compute} micro-batch {batch}"
            flags = ["--model", model, *system, "--compute", compute, "--micro-batch", str(batch),
                     "--users", str(batch)]
            made = a.compiled(f"{model}-{compute}-{batch}.lpuprog", *flags, "--objective", "throughput")
            plan = made.object()
            if not plan:
                a.report(name, f"ii_quality at most {bound}", made.complaint(), False)
                continue
            quality = plan["ii_quality"]
            interval = f"II {plan['initiation_interval_cycles']:,}, bound {plan['ii_lower_bound_cycles']:,}"
            a.report(name, f"ii_quality at most {bound:.2f}", f"{quality:.3f} ({interval})", 1 <= quality <= bound)
            empty = a.call("plan", *flags, "--json").object()
            ratio = plan["token_latency_cycles"] / empty["token_latency_cycles"] if empty else float("nan")
            figure = f"{ratio:.3f} x the empty machine's"
            if (compute, batch) == ("w8a8", 1):
                a.report(f"{name} latency", "at most 1.5 x the empty machine's", figure, ratio <= 1.5)
            else:
                a.tell(f"{name} latency", figure)


# ---- faults
SMALL = {"model_type": "llama", "hidden_size": 1280, "num_hidden_layers": 4, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2560, "vocab_size": 4096,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}
SYSTEM = ["--chips", "16", "--tp", "8", "--pp", "2", "--context", "128"]


def write_config(folder, changes=None):
    config = {**SMALL, **(changes or {})}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({key: value for key, value in config.items() if value is not ...}, file)
    return folder


def small_program(a, mixture=False):
    """A program of two stages, two users and overlapping iterations; with experts where asked."""
    changes = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2} if mixture else None
    folder = write_config("mixture" if mixture else "dense", changes)
    file = f"{folder}.lpuprog"
    a.compiled(file, "--model", folder, *SYSTEM, "--users", "2", "--objective", "throughput", "--search-orders", "4")
    return file


def is_planted(breach, sites):
    """Whether a breach that verify lists is at one of the sites: chip, cycle and instruction, where the site has them
    (the rule of tests/support/planted.hpp)."""
    def is_in_time(site):
        if site["cycle"] is None:
            return True
        last = site["cycle"] if site["last_cycle"] is None else site["last_cycle"]
        return breach["cycle"] is not None and site["cycle"] <= breach["cycle"] <= last

    return breach["chip"] is not None and any(
        all(site[key] in (None, breach[key]) for key in ("chip", "instruction")) and is_in_time(site)
        for site in sites)


def is_named(line, sites):
    """Whether the breach that stopped a run names chip and instruction of one of the sites; cycles are the common
    clock's there. What met the planted burst may name it as the other party."""
    found = re.match(r"lpu_cluster: chip (\d+)(?:, cycle \d+)?(?:, instruction (\d+))?: (.*)", line)
    if not found:
        return False
    names = {found.group(2), *re.findall(r"instruction (\d+)", found.group(3))}
    places = [site for site in sites if site["chip"] is not None or site["instruction"] is not None]
    return not places or any(site["chip"] in (None, int(found.group(1))) and
                             (site["instruction"] is None or str(site["instruction"]) in names) for site in places)


NOWHERE = {"chip": None, "cycle": None, "last_cycle": None, "instruction": None}


def try_mutant(a, file, kind, seed):
    """Plants a fault; what verify and run --no-verify say wrongly about it, each; None: as asked."""
    planted = a.call("mutate", file, "--kind", kind, "--seed", str(seed), "-o", "mutant.lpuprog", "--json").object()
    sites = [planted.get("planted", NOWHERE), *planted.get("witnesses", [])]
    proved = a.call("verify", "mutant.lpuprog", "--most", "1000", "--json")
    breaches = proved.object().get("breaches", [])
    yield None if proved.code == 3 and any(is_planted(breach, sites) for breach in breaches) else proved.complaint()
    ran = a.call("run", "--no-verify", "--users", "2", "--tokens", "3", "--program", "mutant.lpuprog")
    is_line = ran.code == 3 and len(ran.stderr.splitlines()) == 1
    yield None if is_line and is_named(ran.stderr, sites) else ran.complaint()


@check
def mutants(a, seeds=20):
    files = [small_program(a), small_program(a, mixture=True)]
    kinds = [a.call("mutate", "--list", file, "--json").object().get("kinds", []) for file in files]
    a.report("mutants kinds", "at least 15", len(kinds[0]), len(kinds[0]) >= 15)
    for index, kind in enumerate(kind["name"] for kind in kinds[0]):
        file = next((f for f, known in zip(files, kinds) if known[index]["applies"]), None)
        said = [list(try_mutant(a, file, kind, seed)) for seed in range(1, seeds + 1)] if file else []
        proved, ran = (sum(1 for words in said if words[how] is None) for how in (0, 1))
        wrong = next((f"; seed {seed + 1}: {words}" for seed, words in enumerate(said) if any(words)), "")
        a.report(f"mutants {kind}", f"{seeds} seeds: verify and run --no-verify end with 3 and name the place",
                 f"{proved} and {ran}{wrong}" if file else "applies to no program", proved == ran == seeds)


BREACH = re.compile(r"lpu_cluster: chip \d+, cycle \d+, instruction \d+: ")
FAST_OPERATIONS = ("copy", "add", "multiply", "dequantise", "quantise", "convert", "maximum", "sum", "scale", "select")
BREACH_OF_CHIP = re.compile(r"lpu_cluster: chip \d+[,:] ")


@check
def edits(a, samples=20):
    """A stranger's edits of a listing: one burst by a cycle, one address by a row, one peer."""
    file = small_program(a)
    listing = a.call("inspect", file, "--own-texts", "0-15", "--json").stdout.splitlines()
    records = [json.loads(line) for line in listing]
    texts = [record for record in records if record["record"] == "text"]
    idle = sum(1 for text in texts if not text["chips"])
    a.report("edits texts", "every text of a program is run by a chip, so that every edit can be seen",
             f"{idle} of {len(texts)} are not", idle == 0)
    places = {kind: [i for i, record in enumerate(records) if record["record"] == kind and record["chip"] >= 0]
              for kind in ("instruction", "binding")}
    memory = [i for i in places["instruction"] if records[i]["unit"] == "mem"]
    used = {(records[i]["chip"], records[i]["unit_index"] + turn * records[i]["index_stride"][2])
            for i in places["instruction"] if records[i]["unit"] == "c2c" for turn in range(records[i]["count"][2])}

    def later(record, generator):
        record["start_cycle"] += 1 if record["start_cycle"] == 0 else generator.choice([-1, 1])

    def next_row(record, _):
        record["address"] += 1

    def other_peer(record, generator):
        link = generator.choice(sorted(link for chip, link in used if chip == record["chip"]))
        record["peers"][link]["chip"] = (record["peers"][link]["chip"] + 1) % 16

    def other_operation(record, generator):
        alike = [name for name in FAST_OPERATIONS if name != record["opcode"]]
        record["opcode"] = generator.choice(alike)

    fast = [i for i in places["instruction"] if records[i]["opcode"] in FAST_OPERATIONS]
    for what, where, edit, breach in (
            ("start by a cycle", places["instruction"], later, BREACH),
            ("address by a row", memory, next_row, BREACH),
            ("peer of a link in use", places["binding"], other_peer, BREACH),
            ("operation of the same latency", fast, other_operation, BREACH),
            ("instruction left out", places["instruction"], None, BREACH_OF_CHIP)):
        generator = random.Random(7)
        seen, wrong = 0, ""
        for at in generator.sample(where, min(samples, len(where))):
            lines = []
            if edit is not None:
                edited = json.loads(listing[at])
                edit(edited, generator)
                lines = [json.dumps(edited)]
            with open("edited.jsonl", "w", encoding="utf-8") as out:
                out.write("\n".join([*listing[:at], *lines, *listing[at + 1:]]) + "\n")
            made = a.call("assemble", "edited.jsonl", "-o", "edited.lpuprog")
            outcome = a.call("verify", "edited.lpuprog") if made.code == 0 else made
            is_seen = outcome.code == 3 and breach.match(outcome.stderr) is not None
            seen += is_seen
            wrong = wrong or ("" if is_seen else f"; line {at + 1}: exit {outcome.code}: {outcome.complaint()}")
        count = min(samples, len(where))
        places_named = "chip, cycle, instruction" if breach is BREACH else "the chip"
        a.report(f"edits {what}", f"{count} edits of one listing: exit 3 with {places_named}",
                 f"{seen}{wrong}", seen == count)


@check
def wires(a):
    outcome = a.call("run", "--program", small_program(a), "--users", "2", "--set", "link.flight=218cycles")
    a.report("wires", "a link one cycle longer ends a run with 3 at the first arrival", outcome.complaint(),
             outcome.code == 3 and "arrives at cycle" in outcome.stderr)


# ---- what it costs
def distinct_stages(a, file):
    """First and last stage, and those between that differ in more than texts of single chips (which chips on the
    token's way back have)."""
    stages, uses = {}, {}
    for line in a.call("inspect", file, "--trace-cycles", "0-0", "--json").stdout.splitlines():
        record = json.loads(line)
        if record["record"] == "binding" and record["text"] >= 0:
            stages.setdefault(record["stage"], {})[record["group_position"]] = record["text"]
            uses[record["text"]] = uses.get(record["text"], 0) + 1
    kinds = []
    for stage in range(1, max(stages)):
        shared = {position: text for position, text in stages[stage].items() if uses[text] > 1}
        if shared and not any(all(kind.get(place, text) == text for place, text in shared.items()) for kind in kinds):
            kinds.append(shared)
    return len(kinds) + min(2, len(stages))


@check
def cost(a):
    for name, chips, seconds in (("576 chips", "576", 3), ("4,608 chips", "4608", 10)):
        made = a.compiled(f"70b-{chips}.lpuprog", "--model", "llama-2-70b", "--chips", chips)
        if made.code != 0:
            a.report(f"cost {name}", f"compile and verify in {seconds} s", made.complaint(), False)
            continue
        a.report(f"cost {name}", f"Llama-2-70B, latency: compile, verify and write in at most {seconds} s of one core",
                 f"{made.cpu_s:.2f} s", made.cpu_s <= seconds)
        a.report(f"cost {name} memory", "at most 1 GiB", f"{made.peak_bytes / GIBIBYTE:.3f} GiB",
                 made.peak_bytes <= GIBIBYTE)
        size = os.path.getsize(f"70b-{chips}.lpuprog") / 1e6
        if chips == "576":
            a.report(f"cost {name} file", "at most 20 MB", f"{size:.2f} MB", size <= 20)
        else:
            a.tell(f"cost {name} file", f"{size:.2f} MB")
    file = "llama-2-70b-w8a8-1.lpuprog"
    made = a.compiled(file, "--model", "llama-2-70b", *THROUGHPUT["llama-2-70b"], "--compute", "w8a8",
                      "--micro-batch", "1", "--users", "1", "--objective", "throughput")
    if made.code == 0:
        stages = distinct_stages(a, file)
        a.report("cost throughput", "640 chips: at most 10 s a distinct stage",
                 f"{made.cpu_s:.1f} s, {stages} stages: {made.cpu_s / stages:.1f} s", made.cpu_s / stages <= 10)
        a.report("cost throughput memory", "at most 1 GiB", f"{made.peak_bytes / GIBIBYTE:.3f} GiB",
                 made.peak_bytes <= GIBIBYTE)
    else:
        a.report("cost throughput", "640 chips", made.complaint(), False)


@check
def run_time(a):
    file = "70b-576.lpuprog"
    a.compiled(file, "--model", "llama-2-70b", "--chips", "576")
    peaks, cpu = {}, {}
    for tokens in (1, 8, 32):
        runs = [a.call("run", "--program", file, "--tokens", str(tokens), "--json") for _ in range(5)]
        results = [run.object() for run in runs if run.code == 0]
        if not results:
            a.report(f"run_time {tokens} tokens", "at most 40 us a chip and token", runs[0].complaint(), False)
            continue
        least = min(result["wall_us_per_chip_token"] for result in results)
        peaks[tokens] = min(run.peak_bytes for run in runs)
        cpu[tokens] = min(run.cpu_s for run in runs)
        a.report(f"run_time {tokens} tokens", "at most 40 us of wall time a chip and token (best of 5)",
                 f"{least:.1f} us, peak {peaks[tokens] / 2**20:.0f} MiB", least <= 40)
    a.tell("run_time", f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: other work makes wall time longer")
    if len(peaks) == 3:
        a.tell("run_time", f"CPU time of one token more: {(cpu[32] - cpu[1]) / 31 / 576 * 1e6:.1f} us a chip")
        a.report("run_time memory", "flat in tokens (32 against 1)", f"{peaks[32] / peaks[1]:.3f}",
                 peaks[32] <= 1.02 * peaks[1])


# ---- what must be refused
@check
def misfit(a):
    a.refused("misfit fp16", "Llama-2-70B in fp16 on 576 chips: exit 2, one line",
              ["plan", "--model", "llama-2-70b", "--chips", "576", "--compute", "fp16"])
    plan = a.call("plan", "--model", "llama-2-70b", "--chips", "576", "--compute", "fp16", "--json").object()
    a.report("misfit json", "plan --json says fits: false and smallest_chips", f"{plan.get('smallest_chips')} chips",
             plan.get("fits") is False and (plan.get("smallest_chips") or 0) > 576)
    smallest = a.call("plan", "--model", "llama-2-70b", "--json").object().get("smallest_chips", 0)
    a.report("misfit smallest", "int8 needs more than 299 chips", smallest, smallest > 299)


@check
def presets(a):
    with open(os.path.join(SOURCE, "cluster", "presets", "chips", "tsp-v1.json"), encoding="utf-8") as file:
        good = json.load(file)
    fields = [key for key, value in good.items() if isinstance(value, dict)]
    bad = {"missing": lambda preset, field: preset.pop(field),
           "absurd": lambda preset, field: preset[field].update(value="-7 " + str(preset[field]["value"]).split()[-1]),
           "unknown": lambda preset, field: preset.update({field + "_of_mine": preset[field]})}
    for what, spoil in bad.items():
        refused, wrong = 0, ""
        for field in fields:
            preset = json.loads(json.dumps(good))
            spoil(preset, field)
            with open("chip.json", "w", encoding="utf-8") as file:
                json.dump(preset, file)
            outcome = a.call("plan", "--model", "llama-3-8b", "--chip", "chip.json")
            is_named = (outcome.code == 2 and outcome.stdout == "" and len(outcome.stderr.splitlines()) == 1
                        and "chip.json" in outcome.stderr and field in outcome.stderr)
            refused += is_named
            wrong = wrong or ("" if is_named else f"; {field}: exit {outcome.code}: {outcome.complaint()}")
        a.report(f"presets {what}", f"each of {len(fields)} fields of a chip {what}: exit 2, named in one line",
                 f"{refused}{wrong}", refused == len(fields))


CONFIGS = {
    "is missing": [{key: ...} for key in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                       "intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps")],
    "is absurd": [{"hidden_size": 0}, {"hidden_size": "many"}, {"num_hidden_layers": -3}, {"num_attention_heads": 1e9},
               {"num_key_value_heads": 5}, {"vocab_size": 1}, {"rms_norm_eps": 7}, {"rope_theta": -1}, {"head_dim": 3},
               {"intermediate_size": 2.5}, {"max_position_embeddings": 0}, {"torch_dtype": "int3"}],
    "changes the arithmetic": [{"hidden_act": "gelu"}, {"attention_bias": True}, {"mlp_bias": True},
                               {"model_type": "qwen2"}, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
                               {"quantization_config": {"quant_method": "gptq"}}],
    "is ignored": [{"use_cache": False}, {"architectures": ["A"]}, {"initializer_range": 9}, {"bos_token_id": None}],
}


@check
def configs(a):
    for what, changes in CONFIGS.items():
        code = 0 if what == "is ignored" else 2
        as_asked, wrong = 0, ""
        for change in changes:
            folder = write_config("config", change)
            outcome = a.call("plan", "--model", folder, *SYSTEM)
            is_right = outcome.code == code and (code == 0 or (
                outcome.stdout == "" and len(outcome.stderr.splitlines()) == 1 and "config.json" in outcome.stderr
                and next(iter(change)) in outcome.stderr))
            as_asked += is_right
            wrong = wrong or ("" if is_right else f"; {change}: exit {outcome.code}: {outcome.complaint()}")
        a.report(f"configs {what}", f"{len(changes)} Hugging Face configs with a field that {what}: exit {code}",
                 f"{as_asked}{wrong}", as_asked == len(changes))


@check
def files(a, samples=150):
    file = small_program(a)
    with open(file, "rb") as stream:
        good = stream.read()
    generator = random.Random(11)
    positions = sorted({*range(40), len(good) - 1, *generator.sample(range(len(good)), samples)})
    broken = {"flipped": lambda at: good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1:],
              "cut": lambda at: good[:at]}
    for what, make in broken.items():
        refused, wrong = 0, ""
        for at in positions:
            with open("broken.lpuprog", "wb") as stream:
                stream.write(make(at))
            for verb in (["verify"], ["run", "--program"], ["inspect"]):
                outcome = a.call(*verb, "broken.lpuprog")
                is_right = (outcome.code == 2 and outcome.stdout == ""
                            and re.fullmatch(r"lpu_cluster: broken\.lpuprog: [^\n]+\n", outcome.stderr))
                refused += bool(is_right)
                wrong = wrong or ("" if is_right else f"; byte {at}, {verb[0]}: {outcome.code}: {outcome.complaint()}")
        count = 3 * len(positions)
        a.report(f"files {what}", f"{len(positions)} places of a program file {what}, 3 verbs: exit 2, one line",
                 f"{refused} of {count}{wrong}", refused == count)


@check
def folders(a):
    os.makedirs("closed", exist_ok=True)
    os.chmod("closed", 0o555)
    os.chmod(".", 0o755)
    user = NOBODY if os.geteuid() == 0 else None  # root may write everywhere
    if user is not None:  # who may not reach where the program was built (a home, /root): here is a copy
        built, a.program = a.program, os.path.abspath(shutil.copy(a.program, "program_of_nobody"))
    for arguments in (["compile", "--model", "llama-3-8b", "-o", "closed/x.lpuprog"],
                      ["plan", "--model", "llama-3-8b", "--output-dir", "closed"],
                      ["compile", "--model", "llama-3-8b", "-o", "absent/x.lpuprog"]):
        a.refused(f"folders {arguments[0]} {arguments[-1]}", "a folder that cannot be written: exit 2, one line",
                  arguments, user=user)
    if user is not None:
        a.program = built


# ---- what ctest holds
TESTS = {
    "row R1, structural identities": r"validation\.ChipIdentities",
    "row R2, install of 409,600 weights": r"validation\..*R2",
    "row R4, transit": r"validation\..*R4",
    "row R5, vectors over a link": r"validation\..*R5",
    "row R8, encoding overhead": r"validation\..*R8",
    "row R12, emulated = predicted": r"validation\..*R12",
    "row R16, capacity": r"validation\..*R16",
    "10,000 small programs, burst verdict = expander's": r"property\..*TenThousandPrograms",
    "a whole layer of each preset": r"property\..*VerifyLayer",
    "500 random models x systems": r"property\..*(FiveHundred|RandomRequest|RandomModel|RandomCompil)",
    "bounds, by hand and below every program": r"unit\..*Bound",
    "one TP group, two stages, two users as a reservation table": r"\..*ReservationTable",
}


@check
def tests(a):
    """Rows and properties that ctest holds: that they are there, and pass. Takes as long as they take."""
    build = os.path.dirname(os.path.dirname(a.program))
    if not os.path.exists(os.path.join(build, "CTestTestfile.cmake")):
        a.report("tests", "a build folder above the program", build, False)
        return
    for what, pattern in TESTS.items():
        ran = subprocess.run(["ctest", "--test-dir", build, "--no-tests=error", "-R", pattern], capture_output=True,
                             text=True, timeout=1200, check=False)
        verdict = re.search(r"\d+% tests passed.*", ran.stdout)
        a.report(f"tests {what}", "stands in ctest and passes", verdict.group(0) if verdict else f"no test {pattern}",
                 ran.returncode == 0 and verdict is not None)


@check
def test_script(a):
    """scripts/test.sh, twice: only where it is named, since it builds."""
    for name, minutes in (("first", 15), ("again", 3)):
        begin = time.monotonic()
        script = os.path.join(SOURCE, "scripts", "test.sh")
        ran = subprocess.run([script], capture_output=True, timeout=3600, check=False)
        taken = (time.monotonic() - begin) / 60
        a.report(f"test_script {name}", f"scripts/test.sh succeeds within {minutes} minutes", f"{taken:.1f} minutes",
                 ran.returncode == 0 and taken <= minutes)


ONLY_WHEN_NAMED = {"test_script"}


def default_program():
    for preset in ("release", "ci"):
        program = os.path.join(SOURCE, "build", preset, "bin", "lpu_cluster")
        if os.path.exists(program):
            return program
    sys.exit("acceptance_compiler: found no program under build/; expected one built by scripts/test.sh, or its path")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma list of: {', '.join(CHECKS)}")
    parser.add_argument("--list", action="store_true", help="the names of the checks")
    parser.add_argument("program", nargs="?", help="path of lpu_cluster")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(CHECKS))
        return
    names = arguments.only.split(",") if arguments.only else [name for name in CHECKS if name not in ONLY_WHEN_NAMED]
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"--only: found {unknown[0]}; known: {', '.join(CHECKS)}")
    acceptance = Acceptance(os.path.abspath(arguments.program or default_program()))
    folder = tempfile.mkdtemp(prefix="lpu_acceptance_")
    os.chdir(folder)
    try:
        for name in names:
            begin = time.monotonic()
            CHECKS[name](acceptance)
            print(f"      ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
    misses = [name for name, holds in acceptance.lines if not holds]
    print(f"\n{len(acceptance.lines) - len(misses)} of {len(acceptance.lines)} hold" + (":" if misses else ""))
    for name in misses:
        print(f"  MISS  {name}")
    sys.exit(1 if misses or not acceptance.lines else 0)


if __name__ == "__main__":
    main()
