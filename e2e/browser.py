"""A small WebDriver client (https://www.w3.org/TR/webdriver2/) for headless Chromium."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request


class Browser:
    """One headless Chromium; use it as a context manager."""

    def __init__(self):
        driver = shutil.which("chromedriver")
        if driver is None:
            raise SystemExit("chromedriver is missing: install chromium and chromium-driver")
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if port := re.search(r"started successfully on port (\d+)", line):
                self.base = f"http://127.0.0.1:{port[1]}"
                break
        else:
            raise SystemExit("chromedriver did not start")
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--force-device-scale-factor=1", "--disable-dev-shm-usage",
            f"--user-data-dir={self.profile.name}",
        ]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{session['sessionId']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.profile.cleanup()

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def url(self):
        return self.call("GET", "/url")

    def find(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, text):
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def text(self):
        """Returns the text that a person can see; empty while a page is being loaded."""
        return self.run("return document.body ? document.body.innerText : ''")

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path, width, dark=False, height_max=4000):
        """Takes the whole page at a width."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.cdp("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", height=900, **size)
        height = min(max(self.run("return document.documentElement.scrollHeight"), 400), height_max)
        self.cdp("Emulation.setDeviceMetricsOverride", height=height, **size)
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))
        too_wide = self.run("return document.documentElement.scrollWidth > innerWidth")
        self.cdp("Emulation.clearDeviceMetricsOverride")
        if too_wide:
            raise SystemExit(f"{path}: the page is wider than {width} px")
