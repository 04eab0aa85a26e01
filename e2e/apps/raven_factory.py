"""The example of Flask's documentation, unchanged: raven initialised later by a factory."""

import os

from flask import Flask
from views import add_views

from raven.contrib.flask import Sentry

sentry = Sentry(dsn=os.environ["DSN"])


def create_app():
    app = Flask(__name__)
    sentry.init_app(app)
    add_views(app)
    return app


app = create_app()
