#!/usr/bin/python3
"""The report in a real browser: no error, every figure shows a value of its CSV, light, dark and on a phone.

browser.py PROGRAM PROJECT_FOLDER FOLDER_OF_SCREENSHOTS. Exit code 77, with the reason, where there is no Chromium or Selenium.
"""
import base64
import csv
import io
import os
import re
import shutil
import subprocess
import sys

from program import Checks

source, shots = (os.path.abspath(path) for path in sys.argv[2:4])
checks = Checks()
try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
except ModuleNotFoundError:
    print("skipped: found no selenium; expected Debian's python3-selenium")
    sys.exit(77)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    print("skipped: found no chromium and chromedriver; expected Debian's chromium-driver")
    sys.exit(77)

# A page with every kind of figure.
RESULTS = os.path.join(source, "tests", "e2e", "results")
checks.expect(["run", "--model", "llama-3-8b", "--tokens", "1", "--output-dir", ".", "--trace", "trace.json", "--trace-chips", "0-7",
               "--trace-cycles", "0-6000"], 0)
os.mkdir("planned")
checks.expect(["plan", "--model", "mixtral-8x7b", "--output-dir", "planned"], 0)
done = subprocess.run([os.path.join(source, "scripts", "scaling_report.py"), os.path.join(RESULTS, "four_counts", "results.json"),
                       os.path.join(RESULTS, "one_count", "results.json"), "results.json",
                       "planned/results.json", "--trace", "trace.json"],
                      capture_output=True, text=True, timeout=100, check=False)
checks.check(done.returncode == 0, f"scaling_report.py: {done.stderr}")
os.makedirs(shots, exist_ok=True)

# The column of the CSV that a figure writes a value of; of shares, per cent; of bytes, MB.
COLUMNS = {"-waterfall": ["us"], "-published": ["published_over_predicted_least"], "-x": ["devices"], "-s": ["devices"],
           "-frontier": ["slo_tpot_ms"], "-gantt": ["start_cycle", "end_cycle"], "-nodes": ["busy_max"],
           "-sram": ["weights", "kv", "activations", "program", "sram_bytes"],
           "-occupancy": ["mxm", "vxm", "sxm", "mem", "c2c"], "-links": [f"link {number}" for number in range(11)]}
NUMBER = re.compile(r"^-?[0-9][0-9,]*(\.[0-9]+)?$")


def browser(scheme, width, height):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-device-scale-factor=1",
                 f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(service=Service(DRIVER), options=options)
    # A window may not be as narrow as a phone: its screen is set, not its window.
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    opened.get(f"file://{os.getcwd()}/report.html")
    return opened


def screenshot(opened, name):
    size = opened.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    image = opened.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {
        "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}})
    path = os.path.join(shots, f"report_{name}.png")
    with open(path, "wb") as file:
        file.write(base64.b64decode(image["data"]))
    checks.check(os.path.getsize(path) > 20000, f"a picture: {path}")


def colours(opened):
    """What the reader sees: of the page, of its text, and of a line and a text in each figure."""
    return opened.execute_script("""
        const of = (element, what) => element === null ? null : getComputedStyle(element)[what];
        return [of(document.body, "backgroundColor"), of(document.body, "color"),
                ...[...document.querySelectorAll("figure")].map(f => of(f.querySelector("svg text"), "fill")),
                ...[...document.querySelectorAll("figure")].map(f => of(f.querySelector("svg path[style*=stroke]"), "stroke"))];""")


def numbers(words):
    return {float(word.replace(",", "")) for word in words if NUMBER.match(word)}


def check_values(opened):
    """Each figure holds, as a text of its own, a number that stands in the CSV behind its link."""
    found = opened.execute_script("""
        return [...document.querySelectorAll("figure")].map(f => [f.id, f.querySelector("a[download$='.csv']").href,
            [...f.querySelectorAll("svg text")].filter(t => t.getBoundingClientRect().width > 0).map(t => t.textContent.trim()),
            f.querySelector("svg").getBoundingClientRect().width, f.querySelector("svg").getBoundingClientRect().height]);""")
    checks.check(len(found) >= 14, f"{len(found)} figures")
    kinds = set()
    for name, address, texts, width, height in found:
        checks.check(width > 200 and height > 100, f"{name}: {width} x {height}")
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(address.split(",", 1)[1]).decode("utf-8"))))
        checks.check(len(rows) > 0, f"{name}: rows behind the link")
        shown = numbers(word.rstrip(",") for text in texts for word in re.split(r"[\s()≤=:;]+", text)) - {0.0}
        columns = next((columns for ending, columns in COLUMNS.items() if name.endswith(ending)), [])
        own = {float(row[column]) for row in rows for column in columns if row[column]}
        scale = 100 if name.endswith(("-nodes", "-occupancy", "-links")) else 1e-6 if name.endswith("-sram") else 1
        own = {round(scale * value, digits) for value in own for digits in (0, 1, 2)} - {0.0}
        checks.check(shown & own, f"{name}: shows {sorted(shown)[:12]}, nothing of {columns}: {sorted(own)[:12]}")
        kinds.add(name.split("-")[-1])
    checks.check(kinds == {ending[1:] for ending in COLUMNS}, f"kinds of figures: {kinds}")


faces = {}
for scheme, width, height, name in (("light", 1280, 900, "light"), ("dark", 1280, 900, "dark"), ("light", 390, 844, "phone")):
    opened = browser(scheme, width, height)
    try:
        severe = [entry["message"] for entry in opened.get_log("browser")]
        checks.check(not severe, f"{name}: the console says: {severe}")
        inner, scroll = opened.execute_script("return [window.innerWidth, document.documentElement.scrollWidth];")
        checks.check(inner == width and scroll <= inner, f"{name}: {scroll} pixels wide on {inner}")
        small = opened.execute_script("""
            return [...document.querySelectorAll("figure svg text")].map(t => t.getBoundingClientRect().height)
                .filter(height => height > 0).sort((a, b) => a - b)[0];""")
        checks.check(small is not None and small >= 7, f"{name}: text of {small} pixels")
        faces[name] = colours(opened)
        if name == "light":
            check_values(opened)
        screenshot(opened, name)
    finally:
        opened.quit()
checks.check(len(faces["light"]) == len(faces["dark"]) > 20, "colours of every figure")
same = [(a, b) for a, b in zip(faces["light"], faces["dark"]) if a is not None and a == b]
checks.check(not same, f"colours that stay when it is dark: {same}")
print(f"screenshots: {shots}")
checks.finish()
