"""The chat's settings on a cluster of two nodes: its own, and where the other node is."""

import os

from chatsite.settings import *  # noqa: F403
from chatsite.settings import DATABASES

DATABASES["two"] = DATABASES["default"] | {"HOST": os.environ["CHAT_DB_HOST_TWO"]}
DJACTOR = {"CLUSTER": True, "NODES": {1: "default", 2: "two"}}
