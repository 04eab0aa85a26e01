"""Clients that are not Python: @sentry/node, the crate `sentry`, and @sentry/browser on a page.

Each fails three times in two ways; then everything that people see of it is looked at.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import backstop, check, frame_of, get, get_json, missing, process, wait_for

HERE = pathlib.Path(__file__).parent
NODE = HERE / "apps" / "node"
RUST = HERE.parent / "target" / "e2e-rust" / "debug" / "shop-with-sentry"


class Client:
    """A project of its own, and what is known of it afterwards."""

    def __init__(self, name, binary, data, server, token, mailbox, browser):
        self.name, self.server, self.token = name, server, token
        self.mailbox, self.browser = mailbox, browser
        made = json.loads(backstop(binary, "project", "create", name, "--org", "acme",
                                   "--data", data, "--json"))
        self.dsn = re.sub(r"@[^/]+", "@" + server.removeprefix("http://"), made["dsn"])
        self.project = f"{server}/api/0/projects/acme/{made['slug']}"
        self.id, self.key = made["id"], re.search(r"//([0-9a-f]{32})", made["dsn"])[1]

    def check(self, what, condition, detail=""):
        check(f"{self.name}: {what}", condition, detail)

    def issues(self):
        """The issues once all three events are counted, by the beginning of their titles."""
        def all_counted():
            issues = get_json(f"{self.project}/issues/", self.token) or []
            return issues if sum(int(issue["count"]) for issue in issues) >= 3 else None

        issues = wait_for(f"three events of {self.name}", all_counted)
        self.check("three events, two bugs, two issues",
                   sorted(int(issue["count"]) for issue in issues) == [1, 2],
                   [(issue["title"], issue["count"]) for issue in issues])
        return issues

    def event(self, issue):
        """The latest event of an issue, fetched by its id."""
        latest = get_json(f"{self.server}/api/0/issues/{issue['id']}/events/latest/", self.token)
        event = get_json(f"{self.project}/events/{latest['eventID']}/json/", self.token)
        self.check("the event is found by its id", event["event_id"] == latest["eventID"])
        return event

    def check_people(self, issue, *shown):
        """The issue page shows the texts, and one mail went out."""
        self.browser.open(f"{self.server}/issues/{issue['id']}/")
        text = self.browser.text()
        for wanted in shown:
            self.check(f"the page shows {wanted!r}", wanted in text, text[:3000])
        mails = wait_for(f"a mail about {issue['title']}",
                         lambda: self.mailbox.about(f"{issue['shortId']}]"))
        self.check(f"one mail about {issue['shortId']}", len(mails) == 1, len(mails))


def check_node(*place):
    if not shutil.which("node"):
        return missing("@sentry/node", "install node 20")
    if not (NODE / "node_modules").is_dir():
        return missing("@sentry/node", f"run npm ci in {NODE.relative_to(HERE.parent)}")
    client = Client("node", *place)
    environment = {**os.environ, "DSN": client.dsn}
    command = ["node", "service.js"]
    with process(command, r"serving on (\S+)", env=environment, cwd=NODE) as (service, _):
        for path in ("/reserve", "/split", "/reserve"):
            client.check(f"{path} fails", get(service + path)[0] == 500)
        issues = client.issues()
    by_type = {issue["title"].split(":")[0]: issue for issue in issues}
    client.check("the titles name the types", sorted(by_type) == ["Error", "RangeError"], list(by_type))

    refused = client.event(by_type["Error"])
    chain = [(value["type"], value["value"]) for value in refused["exception"]["values"]]
    client.check("the chain is kept, cause first", chain == [
        ("TypeError", "no answer after 3 attempts"), ("Error", "inventory-7 refuses to reserve")], chain)
    connect = frame_of(refused, "connect")
    client.check("the cause has its line", connect and "throw new TypeError" in connect["context_line"], connect)
    reserve = frame_of(refused, "reserve")
    client.check("the frame has its locals",
                 reserve and "inventory-7" in str(reserve.get("vars", {}).get("backend")), reserve)

    divided = client.event(by_type["RangeError"])
    split = frame_of(divided, "splitBill")
    client.check("the division has its line", split and "nobody came" in split["context_line"], split)
    client.check("the division has its locals",
                 split and "table nine" in str(split.get("vars", {}).get("party")), split)
    client.check_people(by_type["RangeError"], "Division by zero", "nobody came", "table nine")
    client.check_people(by_type["Error"], "inventory-7 refuses to reserve", "{ cause }")


def check_rust(*place):
    program = pathlib.Path(os.environ.get("E2E_RUST_CLIENT", RUST))
    if not program.exists():
        return missing("the crate sentry", f"build {HERE.name}/apps/rust into {RUST.parent.parent}")
    client = Client("rust", *place)
    done = subprocess.run([program], env={**os.environ, "DSN": client.dsn}, capture_output=True, text=True)
    client.check("the program ends well", done.returncode == 0, done.stderr[-2000:])
    issues = client.issues()
    by_type = {issue["title"].split(":")[0]: issue for issue in issues}
    source = (HERE / "apps" / "rust" / "src" / "main.rs").read_text().splitlines()

    divided_issue = next(issue for issue in issues if "divide by zero" in issue["title"])
    divided = client.event(divided_issue)
    value = divided["exception"]["values"][-1]
    client.check("the panic is kept", value["value"] == "attempt to divide by zero", value)
    split = frame_of(divided, "shop_with_sentry::split_bill")
    line = 1 + next(at for at, text in enumerate(source) if "total_cents / guests" in text)
    client.check("the division has its line",
                 split and split["filename"].endswith("main.rs") and split["lineno"] == line, split)
    client.check("the division is the user's own code", split and split["in_app"], split)

    refused_issue = next(issue for issue in issues if issue is not divided_issue)
    refused = client.event(refused_issue)
    chain = [value["value"] for value in refused["exception"]["values"]]
    client.check("the chain is kept, cause first",
                 chain == ["no answer in 3 s", "inventory-7 refuses to reserve after 3 attempts"], chain)
    client.check("the repeated error is one issue", int(refused_issue["count"]) == 2, by_type)
    client.check_people(divided_issue, "attempt to divide by zero", f"main.rs:{line}")
    client.check_people(refused_issue, "inventory-7 refuses to reserve after 3 attempts", "connect")


class Page(BaseHTTPRequestHandler):
    """Serves the page and its scripts; everything else is not there."""

    files = {}

    def do_GET(self):
        kind, body = self.files.get(self.path.split("?")[0], (None, b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def upload_source_map(client, release, script, source_map):
    """Uploads a bundle as sentry-cli does: ask what is missing, send it, have it put together."""
    manifest = {"release": release, "files": {
        "files/_/_/page.min.js": {"type": "minified_source", "url": "~/static/page.min.js",
                                  "headers": {"sourcemap": "page.min.js.map"}},
        "files/_/_/page.min.js.map": {"type": "source_map", "url": "~/static/page.min.js.map"}}}
    packed = io.BytesIO(b"SYSB\x02\0\0\0")
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("files/_/_/page.min.js", script)
        bundle.writestr("files/_/_/page.min.js.map", source_map)
        bundle.writestr("manifest.json", json.dumps(manifest))
    bundle = packed.getvalue()
    sha1 = hashlib.sha1(bundle).hexdigest()
    organization = f"{client.server}/api/0/organizations/acme"
    wish = json.dumps({"checksum": sha1, "chunks": [sha1], "projects": [client.name],
                       "version": release}).encode()

    def assemble():
        status, answer = get(f"{organization}/artifactbundle/assemble/", client.token, wish,
                             {"Content-Type": "application/json"})
        return json.loads(answer)["state"] if status == 200 else (status, answer)

    client.check("the bundle is missing at first", assemble() == "not_found")
    boundary = uuid.uuid4().hex
    form = (f'--{boundary}\r\nContent-Disposition: form-data; name="file_gzip"; filename="{sha1}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n").encode()
    form += gzip.compress(bundle) + f"\r\n--{boundary}--\r\n".encode()
    status, answer = get(f"{organization}/chunk-upload/", client.token, form,
                         {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    client.check("its piece is taken", status == 200, (status, answer))
    state = assemble()
    client.check("the bundle is put together", state == "ok", state)


def check_page(*place):
    if not (NODE / "node_modules").is_dir():
        return missing("@sentry/browser", f"run npm ci in {NODE.relative_to(HERE.parent)}")
    client = Client("page", *place)
    built = subprocess.run(
        ["node_modules/.bin/esbuild", "src/page.js", "--bundle", "--minify", "--sourcemap", "--target=es2022",
         "--outfile=dist/page.min.js"], cwd=NODE, capture_output=True, text=True)
    client.check("the page is built", built.returncode == 0, built.stderr)
    script = (NODE / "dist" / "page.min.js").read_bytes()
    upload_source_map(client, "page@1.0.0", script, (NODE / "dist" / "page.min.js.map").read_bytes())
    Page.files = {
        "/": ("text/html", (HERE / "apps" / "page.html").read_bytes()),
        "/settings.js": ("text/javascript", f"window.DSN = {json.dumps(client.dsn)};".encode()),
        "/static/page.min.js": ("text/javascript", script),
    }
    web = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    browser = client.browser
    try:
        browser.open(f"http://127.0.0.1:{web.server_port}/")
        wait_for("the page", lambda: browser.run("return window.shop && window.shop.ready"))
        for button in ("#reserve", "#split", "#reserve"):
            browser.click(button)
        answers = wait_for("the answers", lambda: (
            lambda found: len(found) >= 3 and found)(browser.run("return window.shop.answers")))
        # A script may read an answer from another origin only if that origin says so.
        client.check("the page may read every answer",
                     [answer.get("status") for answer in answers] == [200] * 3, answers)
        # A header that is not simple is asked for before.
        auth = f"Sentry sentry_version=7, sentry_client=page/1, sentry_key={client.key}"
        status = browser.run(f"""
            const headers = {{'X-Sentry-Auth': {json.dumps(auth)}, 'Content-Type': 'application/json'}};
            const asked = new XMLHttpRequest();
            asked.open('POST', '{client.server}/api/{client.id}/store/', false);
            for (const name in headers) asked.setRequestHeader(name, headers[name]);
            asked.send('{{"message": "by hand"}}');
            return [asked.status, asked.getResponseHeader('X-Sentry-Rate-Limits') === null];""")
        client.check("a request that needs a preflight is answered", status == [200, True], status)
        hosts = browser.run("return performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
        known = {f"127.0.0.1:{web.server_port}", urllib.parse.urlsplit(client.server).netloc}
        client.check("nothing else was asked", hosts and set(hosts) <= known, hosts)
    finally:
        browser.open("about:blank")
        web.shutdown()

    issues = [issue for issue in get_json(f"{client.project}/issues/", client.token)]
    by_hand = [issue for issue in issues if issue["title"] == "by hand"]
    client.check("what was sent by hand is there", len(by_hand) == 1, issues)
    by_type = {issue["title"].split(":")[0]: issue for issue in issues if issue not in by_hand}
    client.check("two bugs are two issues", sorted(by_type) == ["Error", "RangeError"], list(by_type))
    client.check("the repeated error is one issue", int(by_type["Error"]["count"]) == 2, issues)

    refused = client.event(by_type["Error"])
    ids = [answer["id"] for answer in answers]
    client.check("the id is the one that the page was told", refused["event_id"] in ids, ids)
    chain = [(value["type"], value["value"]) for value in refused["exception"]["values"]]
    client.check("the chain is kept, cause first", chain == [
        ("TypeError", "inventory-7 has no such table"), ("Error", "inventory-7 refuses to reserve")], chain)
    ask = frame_of(refused, "askInventory")
    client.check("the cause has its place in the source",
                 ask and ask["filename"] == "../src/page.js" and "has no such table" in ask["context_line"], ask)
    divided = client.event(by_type["RangeError"])
    value = divided["exception"]["values"][-1]
    frame = value["stacktrace"]["frames"][-1]
    client.check("the innermost frame is the source's",
                 (frame["function"], frame["filename"]) == ("splitBill", "../src/page.js"), frame)
    client.check("the client's frame is kept beside it",
                 value["raw_stacktrace"]["frames"][-1]["filename"].endswith("/static/page.min.js"), value)
    client.check_people(by_type["RangeError"], "Division by zero", "nobody came")
    client.check_people(by_type["Error"], "inventory-7 refuses to reserve", "new Error(backend")
