#!/usr/bin/env python3
"""Makes the pictures of the README from the demonstration.

usage: screenshots.py BACKSTOP DIRECTORY

BACKSTOP is the binary; the pictures are issues.png, issue.png and narrow.png.
"""

import re
import subprocess
import sys
import tempfile

from browser import Browser


def main():
    binary, directory = sys.argv[1:]
    with tempfile.TemporaryDirectory() as data:
        command = [binary, "demo", "--data", data]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            link = tracker = None
            for line in demo.stdout:
                if found := re.search(r"Tracker +(\S+)", line):
                    tracker = found[1]
                if found := re.search(r"Sign in +(\S+)", line):
                    link = found[1]
                    break
            with Browser() as browser:
                browser.open(link)
                browser.click("button")
                while "Issues" not in browser.text():
                    pass
                browser.screenshot(f"{directory}/issues.png", 1400)
                browser.run("[...document.querySelectorAll('.issue-title')]"
                            ".find(title => title.textContent.includes('Sqlite')).click()")
                while "Why these events" not in browser.text():
                    pass
                print(tracker, browser.url())
                browser.screenshot(f"{directory}/issue.png", 1400, height_max=1500)
                browser.screenshot(f"{directory}/issue-dark.png", 1400, dark=True, height_max=1500)
                browser.screenshot(f"{directory}/narrow.png", 390, height_max=1500)
        finally:
            demo.terminate()
            demo.wait(30)


if __name__ == "__main__":
    main()
