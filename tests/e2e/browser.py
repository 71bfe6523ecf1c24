#!/usr/bin/python3
"""The report in a real browser: no error, every figure shows the values of its CSV, light, dark and on a phone.

browser.py PROGRAM PROJECT_FOLDER FOLDER_OF_SCREENSHOTS. Exit code 77, with the reason, where there is no Chromium or Selenium.
"""
import base64
import csv
import io
import os
import shutil
import subprocess
import sys

import figure_values
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


def check_values(opened):
    """Each figure shows the values of the CSV behind its link; of other values it does not."""
    found = opened.execute_script(figure_values.FIGURES)
    checks.check(len(found) >= 14, f"{len(found)} figures")
    tried = set()
    for figure in found:
        name = figure["name"]
        checks.check(figure["width"] > 200 and figure["height"] > 100, f"{name}: {figure['width']} x {figure['height']}")
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(figure["address"].split(",", 1)[1]).decode("utf-8"))))
        checks.check(len(rows) > 0, f"{name}: rows behind the link")
        kind = name.split("-")[-1]
        compare, columns = figure_values.KINDS[kind]
        differences = compare(rows, figure)
        checks.check(not differences, f"{name}: {differences}")
        for column in columns:
            if figure_values.numbers(rows, column):
                tried.add((kind, column))
                checks.check(compare(figure_values.altered(rows, column), figure), f"{name}: shows the same with other {column}")
    missing = {(kind, column) for kind, (_, columns) in figure_values.KINDS.items() for column in columns} - tried
    checks.check(not missing, f"no figure has these: {missing}")


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
