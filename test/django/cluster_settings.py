"""Settings of the test project on a cluster of two nodes: two databases of one server."""

from project_settings import *  # noqa: F403
from project_settings import DATABASES

DATABASES["default"] = DATABASES["default"] | {"NAME": "one"}
DATABASES["two"] = DATABASES["default"] | {"NAME": "two"}
DJACTOR = {"CLUSTER": True, "NODES": {1: "default", 2: "two"}}
