#!/usr/bin/env python3
"""Slow and hostile connections: many that are idle, many that stop in the middle, some that drip.

usage: connections.py BACKSTOP [--idle N] [--drip-to-the-end]

Each must get a clear answer or be closed with a line in the log; meanwhile others are served, and
the memory of the server stays small. It takes as long as the server is patient: about 35 seconds,
with --drip-to-the-end three minutes.
"""

import argparse
import json
import os
import re
import resource
import selectors
import socket
import tempfile
import time
import urllib.parse

from harness import backstop, check, counts, get, get_json, process

IDLE = 10_000
STALLED = 200
DRIPPING = 50
# What one connection that says nothing may cost, and what all of them together may.
BYTES_PER_IDLE_MAX = 20_000
ANSWER_SECONDS_MAX = 5
# How long the server waits for a head, for the next part of a body, and for a whole body.
HEAD_SECONDS, SILENCE_SECONDS, BODY_SECONDS = 30, 20, 180


def pss_of(pid):
    """The memory of a process in bytes, its part of what it shares included."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return 1024 * int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.MULTILINE)[1])


class Crowd:
    """Connections to one server, and what came of each."""

    def __init__(self, address):
        self.address = address
        self.selector = selectors.DefaultSelector()
        self.open = {}
        self.answers = {}

    def connect(self, kind, data=b""):
        connection = socket.create_connection(self.address)
        if data:
            connection.sendall(data)
        connection.setblocking(False)
        self.open[connection] = kind
        self.selector.register(connection, selectors.EVENT_READ, b"")

    def drip(self, kind, data):
        for connection, of in self.open.items():
            if of == kind:
                try:
                    connection.send(data)
                except OSError:
                    pass  # It was closed; the answer is read below.

    def take(self, seconds):
        """Reads what comes within the time; notes how each connection ended."""
        for key, _ in self.selector.select(seconds):
            connection, read = key.fileobj, key.data
            try:
                part = connection.recv(65536)
            except OSError:
                part = b""
            if part:
                self.selector.modify(connection, selectors.EVENT_READ, read + part)
                continue
            self.selector.unregister(connection)
            connection.close()
            status = re.match(rb"HTTP/1\.1 (\d+)", read)
            ends = self.answers.setdefault(self.open.pop(connection), {})
            end = int(status[1]) if status else "closed"
            ends[end] = ends.get(end, 0) + 1

    def left(self, kind):
        return sum(1 for of in self.open.values() if of == kind)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backstop")
    parser.add_argument("--idle", type=int, default=IDLE)
    parser.add_argument("--drip-to-the-end", action="store_true")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = options.idle
    if idle + STALLED + DRIPPING + 100 > hard:
        idle = hard - STALLED - DRIPPING - 100
        print(f"only {hard} files may be open, so {idle} connections are idle")
    binary = os.path.abspath(options.backstop)

    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryFile("w+") as log:
        serve = [binary, "serve", "--data", data, "--listen", "127.0.0.1:0"]
        with process(serve, r"listening on (http://\S+)", stderr=log) as (server, child):
            made = json.loads(backstop(binary, "project", "create", "shop", "--org", "acme",
                                       "--data", data, "--json"))
            token = backstop(binary, "token", "create", "--data", data)
            key = re.search(r"//([0-9a-f]{32})", made["dsn"])[1]
            auth = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={key}"}
            address = urllib.parse.urlsplit(server)
            crowd = Crowd((address.hostname, address.port))

            def send():
                start = time.monotonic()
                status, answer = get(f"{server}/api/{made['id']}/store/", data=b'{"message": "hello"}',
                                     headers=auth)
                return status, time.monotonic() - start

            check("an event is taken before", send()[0] == 200)
            before = pss_of(child.pid)
            begun = time.monotonic()
            for _ in range(idle // 2):
                crowd.connect("idle")
                crowd.connect("half a head", b"POST /api/1/envelope/ HTTP/1.1\r\nHost: x\r\nX-")
            head = (f"POST /api/{made['id']}/envelope/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"X-Sentry-Auth: {auth['X-Sentry-Auth']}\r\nContent-Length: 1000000\r\n\r\n").encode()
            for _ in range(STALLED):
                crowd.connect("stalled", head + b'{}\n{"type":"event"}\n{"message":"')
            for _ in range(DRIPPING):
                crowd.connect("dripping", head + b'{}\n{"type":"event"}\n{"message":"')
            opened = len(crowd.open)
            print(f"{opened} connections after {time.monotonic() - begun:.1f} s")

            worst, sent, most = 0, 0, 0
            last = begun + (BODY_SECONDS if options.drip_to_the_end else HEAD_SECONDS) + 30
            waiting = ["idle", "half a head", "stalled"]
            if options.drip_to_the_end:
                waiting.append("dripping")
            while time.monotonic() < last and any(crowd.left(kind) for kind in waiting):
                status, took = send()
                sent += status == 200
                if status != 200:
                    check("others are served", False, status)
                worst = max(worst, took)
                most = max(most, pss_of(child.pid))
                crowd.drip("dripping", b"x")
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    crowd.take(0.1)
            print(f"ends after {time.monotonic() - begun:.0f} s: {crowd.answers}")
            print(f"memory: {before / 1e6:.1f} MB before, {most / 1e6:.1f} MB at most; "
                  f"{sent} events meanwhile, the slowest answer after {worst:.2f} s")

            check("others are served meanwhile", sent > 10 and worst < ANSWER_SECONDS_MAX, (sent, worst))
            allowed = opened * BYTES_PER_IDLE_MAX
            check("memory is bounded", most - before < allowed, (before, most, allowed))
            for kind in ("idle", "half a head"):
                ends = crowd.answers.get(kind, {})
                check(f"{kind}: every connection is closed or answered 408",
                      ends.get("closed", 0) + ends.get(408, 0) == idle // 2, ends)
            ends = crowd.answers.get("stalled", {})
            check("stalled: every request is answered 408", ends == {408: STALLED}, ends)
            if options.drip_to_the_end:
                ends = crowd.answers.get("dripping", {})
                check("dripping: every request is answered 408", ends == {408: DRIPPING}, ends)
            else:
                check("dripping: who sends is waited for", crowd.left("dripping") == DRIPPING,
                      crowd.answers.get("dripping"))
            # The sender goes in the middle.
            for connection in list(crowd.open):
                crowd.selector.unregister(connection)
                connection.close()
            check("an event is taken after", send()[0] == 200)
            outcomes = {}
            for outcome in get_json(f"{server}/api/0/projects/acme/shop/outcomes/", token):
                outcomes[outcome["reason"]] = outcomes.get(outcome["reason"], 0) + outcome["quantity"]
            check("every event is counted", outcomes.get("accepted") == sent + 2, outcomes)
            late = STALLED + (DRIPPING if options.drip_to_the_end else 0)
            check("every body that did not come is counted", outcomes.get("invalid:timeout") == late, outcomes)
            log.seek(0)
            text = log.read()
            check("slow heads have a line in the log", text.count("too slow with its headers") >= 1, text[-2000:])
            check("slow bodies have a line in the log", text.count("did not arrive in time") >= 1, text[-2000:])
            check("no key is in the log", key not in text)
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    raise SystemExit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
