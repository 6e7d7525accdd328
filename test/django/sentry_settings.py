"""Settings of a project whose events for Sentry are lines of the file of SHOP_EVENTS."""

import json
import os
from pathlib import Path

import sentry_sdk
from sentry_sdk.transport import Transport

from project_settings import *  # noqa: F403


class ToFile(Transport):
    """Each event is a line of the file."""

    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            with Path(os.environ["SHOP_EVENTS"]).open("a") as file:
                file.write(json.dumps(event, default=str) + "\n")


sentry_sdk.init(dsn="https://key@sentry.example.org/1", transport=ToFile)
