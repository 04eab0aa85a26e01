"""The current client with Flask."""

import os

import sentry_sdk
from flask import Flask
from views import add_views

sentry_sdk.init(dsn=os.environ["DSN"], release="shop@1.0", environment="production")

app = add_views(Flask(__name__))
