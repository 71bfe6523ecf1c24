"""Calls the program as a user does; shared by the scripts of this folder."""
import json
import os
import subprocess
import sys
import tempfile


class Missing(dict):
    """What a call that failed would have printed: every key is there, and holds nothing."""

    def __missing__(self, key):
        return Missing()


class Checks:
    """Collects what does not hold; exits 1 at the end if anything did not."""

    def __init__(self):
        self.program = os.path.abspath(sys.argv[1])
        self.findings = []
        self.count = 0
        self.folder = tempfile.TemporaryDirectory(prefix="lpu_cluster_e2e_")
        os.chdir(self.folder.name)

    def run(self, *arguments, timeout=100, environment=None):
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})

    def check(self, holds, what):
        self.count += 1
        if not holds:
            self.findings.append(what)

    def expect(self, arguments, code, stderr=None, stdout=None, **keywords):
        """Exit code and, where given, all of stderr and stdout."""
        result = self.run(*arguments, **keywords)
        said = f"{' '.join(arguments)}\n  exit code {result.returncode}\n  stderr: {result.stderr}"
        self.check(result.returncode == code, f"exit code: expected {code}: {said}")
        if stderr is not None:
            self.check(result.stderr == stderr, f"stderr: expected {stderr!r}: {said}")
        if stdout is not None:
            self.check(result.stdout == stdout, f"stdout: found {result.stdout!r}, expected {stdout!r}: {said}")
        return result

    def refused(self, arguments, line, code=2, **keywords):
        """One line on stderr, nothing on stdout."""
        return self.expect(arguments, code, stderr=f"lpu_cluster: {line}\n", stdout="", **keywords)

    def object(self, *arguments, code=0, **keywords):
        """The JSON object that the call prints."""
        result = self.run(*arguments, **keywords)
        self.check(result.returncode == code,
                   f"exit code: expected {code}, found {result.returncode}: {' '.join(arguments)}: {result.stderr}")
        try:
            return json.loads(result.stdout)
        except ValueError as error:
            self.check(False, f"not JSON ({error}): {' '.join(arguments)}: {result.stdout[:200]}")
            return Missing()

    def finish(self):
        print(f"{self.count} checks")
        if self.count == 0:
            self.findings.append("nothing was checked")
        for finding in self.findings:
            print(finding)
        sys.exit(1 if self.findings else 0)
