#!/usr/bin/python3
"""Two hosts, as far as a program can tell: two network and two host names on one machine, joined by a virtual cable.

two_hosts.py PROGRAM MPIRUN [FILE.lpuprog RANKS_A RANKS_B]; without a file: a small model.

mpirun starts the second host's daemon through an agent that enters its namespaces, where real hosts have ssh. Exit code 77,
with the reason, where namespaces are not permitted.
"""
import shutil
import tempfile

from ranks import MPIRUN, RankChecks, json, os, subprocess, sys

INSIDE = "LPU_CLUSTER_TEST_HOST_A"
HOSTS = {"lpu-host-a": "10.213.7.1", "lpu-host-b": "10.213.7.2"}


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def sh(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def enter_host_a():
    """Starts this script again in namespaces of its own."""
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            skip(f"no {tool} here")
    spaces = ["unshare", "--net", "--uts", "--mount"]
    if sh(*spaces, "true").returncode != 0:
        spaces += ["--map-root-user"]
        if sh(*spaces, "true").returncode != 0:
            skip(f"namespaces are not permitted: {sh(*spaces, 'true').stderr.strip()}")
    os.environ[INSIDE] = "1"
    os.execvp(spaces[0], [*spaces, sys.executable, "-B", *sys.argv])


def set_up(folder):
    """Makes this process host a, and one that sleeps host b. Returns that process and the agent's path."""
    def need(*command):
        result = sh(*command)
        if result.returncode != 0:
            skip(f"{' '.join(command)}: {result.stderr.strip()}")

    hosts = os.path.join(folder, "hosts")
    with open(hosts, "w", encoding="utf-8") as file:
        file.write("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in HOSTS.items()))
    need("mount", "--bind", hosts, "/etc/hosts")
    other = subprocess.Popen(["unshare", "--net", "--uts", "sleep", "600"])
    while os.readlink(f"/proc/{other.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        if other.poll() is not None:
            skip("no second network namespace")
    in_b = ["nsenter", "-t", str(other.pid), "--net", "--uts"]
    need("ip", "link", "add", "lpu0", "type", "veth", "peer", "name", "lpu0", "netns", str(other.pid))
    for place, (name, address) in zip(([], in_b), HOSTS.items()):
        need(*place, "hostname", name)
        need(*place, "ip", "address", "add", f"{address}/24", "dev", "lpu0")
        need(*place, "ip", "link", "set", "lpu0", "up")
        need(*place, "ip", "link", "set", "lo", "up")
    agent = os.path.join(folder, "agent.sh")
    with open(agent, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n# what ssh does: HOST COMMAND...\nshift\nexec {' '.join(in_b)} sh -c \"$*\"\n")
    os.chmod(agent, 0o755)
    return other, agent


def main():
    checks = RankChecks(users=2)
    run = ["--program", "small.lpuprog", "--tokens", "4", "--users", "2"]
    placements = ((3, 3), (1, 4))
    if len(sys.argv) > 3:
        run = ["--program", sys.argv[3], "--tokens", "4"]
        placements = ((int(sys.argv[4]), int(sys.argv[5])),)
    alone = checks.object("run", *run, "--json")
    generate = ["--prompt", "To be", "--max-new-tokens", "3", "--chips", "8", "--context", "64"]
    tokens = checks.object("generate", *generate, "--json")
    with tempfile.TemporaryDirectory(prefix="lpu_cluster_hosts_") as folder:
        other, agent = set_up(folder)
        try:
            a, b = HOSTS
            os.environ["OMPI_MCA_plm_rsh_agent"] = agent
            os.environ["OMPI_MCA_oob_tcp_if_include"] = os.environ["OMPI_MCA_btl_tcp_if_include"] = "lpu0"
            os.environ["OMPI_MCA_pml"] = "ob1"
            for on_a, on_b in placements:
                placed = ["-host", f"{a}:{on_a},{b}:{on_b}"]
                command = checks.command(on_a + on_b, *run, "--json")
                at = command.index("-np")
                result = subprocess.run([*command[:at], *placed, *command[at:]], capture_output=True, text=True, timeout=120,
                                        stdin=subprocess.DEVNULL, check=False)
                checks.check(result.returncode == 0, f"{on_a} + {on_b} ranks: exit code {result.returncode}: {result.stderr}")
                for key, value in (("fingerprint", alone["fingerprint"]), ("hosts", 2), ("ranks", on_a + on_b),
                                   ("arrivals_checked", alone["arrivals_checked"]),
                                   ("transport", "shared memory, MPI between hosts")):
                    checks.check(f'"{key}": {value if isinstance(value, int) else chr(34) + value + chr(34)}' in result.stdout,
                                 f"{on_a} + {on_b} ranks: {key} is {value}")
            command = [*MPIRUN, "-host", f"{a}:2,{b}:3", "-np", "5", checks.program, "generate", *generate, "--json"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
            checks.check(result.returncode == 0, f"generate on two hosts: exit code {result.returncode}: {result.stderr}")
            told = json.loads(result.stdout) if result.returncode == 0 else {}
            for key in ("new_ids", "result_digest", "fingerprint"):
                checks.check(told.get(key) == tokens[key], f"generate on two hosts: {key}: {told.get(key)}, {tokens[key]}")
        finally:
            other.kill()
            other.wait()
    checks.finish()


if INSIDE in os.environ:
    main()
else:
    enter_host_a()
