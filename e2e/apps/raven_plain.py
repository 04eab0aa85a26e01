"""The example of Flask's documentation, unchanged: raven given the application."""

import os

from flask import Flask
from views import add_views

app = Flask(__name__)

from raven.contrib.flask import Sentry

sentry = Sentry(app, dsn=os.environ["DSN"])

add_views(app)
