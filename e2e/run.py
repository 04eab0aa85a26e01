#!/usr/bin/env python3
"""The story from end to end with the clients of users: a failing Flask application, one event, an
issue page in a browser and one mail.

usage: run.py BACKSTOP [--screenshots DIR]

BACKSTOP is the binary. The Python that runs this needs the packages of requirements.txt, and
Chromium with its driver must be installed. Clients of other languages need `npm ci` in apps/node
and apps/rust built into target/e2e-rust; one that is missing fails in CI and is named elsewhere.
Everything listens on free ports of 127.0.0.1.
"""

import argparse
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error

from aiosmtpd.controller import Controller

from browser import Browser
from clients import check_node, check_page, check_rust
from harness import (Mailbox, backstop, check, counts, frame_of, free_port, get, get_json,
                     last_exception, process, wait_for)

HERE = pathlib.Path(__file__).parent


def check_client(name, server, token, dsn, slug, mailbox, browser, screenshots):
    """One client: three failures of two bugs, then everything that people see of them."""
    project = f"{server}/api/0/projects/acme/{slug}"
    environment = {**os.environ, "DSN": dsn}
    command = [sys.executable, str(HERE / "apps" / "serve.py"), name]
    with process(command, r"serving on (\S+)", env=environment, stderr=subprocess.DEVNULL) as (shop, _):
        for path in ("/reserve", "/split", "/reserve"):
            check(f"{name}: {path} fails", get(shop + path)[0] == 500)

        def all_counted():
            issues = get_json(f"{project}/issues/", token) or []
            return issues if sum(int(issue["count"]) for issue in issues) >= 3 else None

        issues = wait_for(f"three events of {name}", all_counted)

    by_title = {issue["title"].split(":")[0]: issue for issue in issues}
    check(f"{name}: two bugs are two issues",
          sorted(by_title) == ["ConnectionRefusedError", "ZeroDivisionError"], list(by_title))
    check(f"{name}: the repeated error is one issue",
          int(by_title["ConnectionRefusedError"]["count"]) == 2, by_title)
    for issue in issues:
        wanted = {"id", "shortId", "title", "culprit", "count", "firstSeen", "lastSeen", "status", "level"}
        check(f"{name}: the issue has its fields", wanted <= set(issue), wanted - set(issue))

    refused = get_json(f"{project}/issues/{by_title['ConnectionRefusedError']['id']}/events/latest/", token) \
        or get_json(f"{server}/api/0/issues/{by_title['ConnectionRefusedError']['id']}/events/latest/", token)
    divided = get_json(f"{server}/api/0/issues/{by_title['ZeroDivisionError']['id']}/events/latest/", token)
    refused = get_json(f"{project}/events/{refused['eventID']}/json/", token)
    divided = get_json(f"{project}/events/{divided['eventID']}/json/", token)

    types = [value["type"] for value in refused["exception"]["values"]]
    check(f"{name}: the chain is kept, cause first", types == ["TimeoutError", "ConnectionRefusedError"], types)
    check(f"{name}: the message is kept", last_exception(refused)["value"] == "inventory-7 refuses to reserve", last_exception(refused)["value"])
    reserve = frame_of(refused, "reserve")
    check(f"{name}: the frame has its locals", reserve and reserve["vars"].get("backend") == "'inventory-7'",
          reserve and reserve.get("vars"))
    connect = frame_of(refused, "connect")
    check(f"{name}: the cause has its locals", connect and connect["vars"].get("attempts") in (3, "3"),
          connect and connect.get("vars"))
    check(f"{name}: the division is kept", last_exception(divided)["type"] == "ZeroDivisionError")
    bill = frame_of(divided, "split_bill")
    check(f"{name}: numbers are kept", bill and bill["vars"].get("total_cents") in (4200, "4200"), bill)
    check(f"{name}: the line is kept", "// guests" in bill["context_line"], bill["context_line"])
    check(f"{name}: ids lead to issues",
          get_json(f"{server}/api/0/organizations/acme/eventids/{divided['event_id']}/", token)["groupId"]
          == by_title["ZeroDivisionError"]["id"])

    for title, marked, local in (("ZeroDivisionError", "// guests", "4200"),
                                 ("ConnectionRefusedError", "raise ConnectionRefusedError", "inventory-7")):
        browser.open(f"{server}/issues/{by_title[title]['id']}/")
        text = browser.text()
        check(f"{name}: the page shows the error", title in text, text[:300])
        check(f"{name}: the page shows the failing line", marked in text, text[:2000])
        check(f"{name}: the page shows a local's value", local in text, text[:2000])
        mails = wait_for(f"a mail about {title}", lambda: [
            mail for mail in mailbox.about(title) if by_title[title]["shortId"] in mail["subject"]])
        body = mails[0].get_body(("plain",)).get_content()
        check(f"{name}: exactly one mail about {title}", len(mails) == 1, len(mails))
        check(f"{name}: the mail links to the issue", f"/issues/{by_title[title]['id']}/" in body, body)
        if screenshots:
            stem = f"{screenshots}/{name}-{title}"
            browser.screenshot(f"{stem}-1400.png", 1400)
            browser.screenshot(f"{stem}-390.png", 390)
            browser.screenshot(f"{stem}-1400-dark.png", 1400, dark=True)


def check_demo(binary):
    """The demonstration of a released binary: each failure twice, with the line and its variables."""
    with tempfile.TemporaryDirectory() as data:
        for run in (1, 2):
            done = subprocess.run([binary, "demo", "--once", "--json", "--data", data],
                                  capture_output=True, text=True)
            check(f"demo, run {run}: exit 0", done.returncode == 0, done.stderr[-500:])
            rows = [row for row in json.loads(done.stdout) if row["issue"]]
            check(f"demo, run {run}: six issues with {run} events each",
                  [row["events"] for row in rows] == [run] * 6, rows)
        mails = os.listdir(f"{data}/mail")
        check("demo: one mail per issue", len(mails) == 6, mails)
        token = backstop(binary, "token", "create", "--data", data)
        serve = [binary, "serve", "--data", data, "--listen", "127.0.0.1:0"]
        with process(serve, r"listening on (http://\S+)", stderr=subprocess.DEVNULL) as (server, _):
            for issue in get_json(f"{server}/api/0/projects/demo/shop/issues/", token):
                latest = get_json(f"{server}/api/0/issues/{issue['id']}/events/latest/", token)
                url = f"{server}/api/0/projects/demo/shop/events/{latest['eventID']}/json/"
                own = [frame for frame in last_exception(get_json(url, token))["stacktrace"]["frames"]
                       if frame.get("in_app")]
                name = f"demo: {issue['shortId']}"
                check(f"{name} has the line that failed", own[-1].get("lineno"), own[-1])
                check(f"{name} has its source", own[-1].get("context_line"), own[-1])
                shown = [value for value in (own[-1].get("vars") or {}).values()
                         if "optimised out" not in str(value)]
                check(f"{name} has a variable's value", shown, own[-1].get("vars"))


def check_bad_input(server, project, key):
    """Whatever is wrong is said, and the server goes on."""
    auth = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={key}"}
    wrong = {"X-Sentry-Auth": "Sentry sentry_version=7, sentry_key=" + "0" * 32}
    event = b'{"message": "hello"}'
    gzipped = {**auth, "Content-Encoding": "gzip"}
    cases = [
        ("no key", f"/api/{project}/store/", event, {}, {401}),
        ("wrong key", f"/api/{project}/store/", event, wrong, {401, 403}),
        ("unknown project", "/api/987654/store/", event, auth, {400, 401, 403, 404}),
        ("garbage", f"/api/{project}/store/", b"\x00\xff garbage", auth, {400}),
        ("garbage envelope", f"/api/{project}/envelope/", b"\x00\xff garbage", auth, {400}),
        ("truncated gzip", f"/api/{project}/store/", gzip.compress(event * 99)[:40], gzipped, {400}),
        ("too large", f"/api/{project}/store/", b"[" * (220 << 20), auth, {413}),
        ("unknown path", "/api/nowhere/", event, auth, {404}),
        ("unknown API path", "/api/0/nowhere/", None, {}, {401, 404}),
    ]
    for name, path, body, headers, statuses in cases:
        try:
            status, answer = get(server + path, data=body, headers=headers)
        except urllib.error.URLError as error:
            # A server may hang up on a body that is too large once it has said so.
            check(f"bad input: {name}", name == "too large", error)
            continue
        check(f"bad input: {name} is {statuses}", status in statuses, (status, answer[:200]))
        try:
            detail = json.loads(answer).get("detail")
        except ValueError:
            detail = None
        check(f"bad input: {name} has a detail", isinstance(detail, str) and detail, answer[:200])
    status, answer = get(f"{server}/api/{project}/store/", data=event, headers=auth)
    check("the server goes on", status == 200, (status, answer))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backstop")
    parser.add_argument("--screenshots")
    options = parser.parse_args()
    if options.screenshots:
        os.makedirs(options.screenshots, exist_ok=True)
    binary = os.path.abspath(options.backstop)
    mailbox = Mailbox()
    smtp = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    smtp.start()

    with tempfile.TemporaryDirectory() as data:
        serve = [binary, "serve", "--data", data, "--listen", "127.0.0.1:0",
                 "--smtp", f"smtp://127.0.0.1:{smtp.port}"]
        log = tempfile.TemporaryFile("w+")
        with process(serve, r"listening on (http://\S+)", stderr=log) as (server, child):
            backstop(binary, "user", "create", "ada@example.com", "--data", data)
            link = backstop(binary, "user", "sign-in", "ada@example.com", "--data", data, "--json")
            link = json.loads(link)["link"]
            token = backstop(binary, "token", "create", "--data", data)
            with Browser() as browser:
                browser.open(f"{server}/")
                check("strangers are asked to sign in", "Sign in" in browser.text(), browser.text())
                browser.open(re.sub(r"^https?://[^/]+", server, link))
                browser.click("button")
                wait_for("the list of issues", lambda: "Issues" in browser.text())
                check("the link signs in", True)
                for name in ("raven_plain", "raven_factory", "sentry_flask"):
                    made = backstop(binary, "project", "create", name, "--org", "acme",
                                    "--data", data, "--json")
                    made = json.loads(made)
                    dsn = re.sub(r"@[^/]+", "@" + server.removeprefix("http://"), made["dsn"])
                    check_client(name, server, token, dsn, made["slug"], mailbox, browser,
                                 options.screenshots)
                for check_with_sdk in (check_node, check_rust, check_page):
                    check_with_sdk(binary, data, server, token, mailbox, browser)
                browser.open(f"{server}/")
                if options.screenshots:
                    browser.screenshot(f"{options.screenshots}/issues-1400.png", 1400)
                    browser.screenshot(f"{options.screenshots}/issues-390.png", 390)
            key = re.search(r"//([0-9a-f]{32})", made["dsn"])[1]
            check_bad_input(server, made["id"], key)
            log.seek(0)
            refused = [line for line in log if "refused" in line]
            check("every refusal is a line in the log", len(refused) >= 8, refused)
            check("no key is in the log", not any(key in line for line in refused), refused)
            subjects = [mail["subject"] for mail in mailbox.mails]
            check("no issue has two mails", len(set(subjects)) == len(subjects), subjects)
            child.send_signal(signal.SIGTERM)
            check("SIGTERM ends it with 0", child.wait(30) == 0, child.returncode)
    smtp.stop()
    check_demo(binary)
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    raise SystemExit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
