"""Serves one of the applications on a free port and prints it: serve.py MODULE."""

import importlib
import sys

from werkzeug.serving import make_server

app = importlib.import_module(sys.argv[1]).app
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"serving on http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
