"""What every part of the end-to-end test needs: checks, processes, mail, HTTP."""

import email
import email.policy
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

PATIENCE_SECONDS = 30
counts = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    if condition:
        counts["passed"] += 1
        print(f"ok      {name}")
    else:
        counts["failed"] += 1
        print(f"FAILED  {name}: {detail}")


def missing(what, remedy):
    """A part that cannot run: a fault in CI, a printed line elsewhere."""
    if os.environ.get("CI"):
        check(what, False, f"missing: {remedy}")
    else:
        print(f"missing {what}: {remedy}")


def wait_for(what, probe):
    """Polls until the probe returns something, because mail is sent in the background."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if result := probe():
            return result
        time.sleep(0.05)
    raise SystemExit(f"waited {PATIENCE_SECONDS} s in vain for {what}")


class Mailbox:
    """An SMTP server that keeps what it gets."""

    def __init__(self):
        self.mails = []
        self.lock = threading.Lock()

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        with self.lock:
            self.mails.append(mail)
        return "250 taken"

    def about(self, text):
        with self.lock:
            return [mail for mail in self.mails if text in mail["subject"]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(command, pattern, **options):
    """Runs a program and yields what the pattern finds in its output."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    try:
        for line in child.stdout:
            if found := re.search(pattern, line):
                # The pipe must not fill up.
                threading.Thread(target=child.stdout.read, daemon=True).start()
                yield found[1], child
                break
        else:
            raise SystemExit(f"{command[0]} ended without printing {pattern}")
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait(30)


def get(url, token=None, data=None, headers=None):
    headers = dict(headers or {})
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def get_json(url, token):
    status, body = get(url, token)
    return json.loads(body) if status == 200 else None


def backstop(binary, *arguments):
    done = subprocess.run([binary, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"backstop {' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def last_exception(event):
    return event["exception"]["values"][-1]


def frame_of(event, function):
    frames = [f for v in event["exception"]["values"]
              for f in (v.get("stacktrace") or {}).get("frames") or []]
    return next((f for f in reversed(frames) if f.get("function") == function), None)
