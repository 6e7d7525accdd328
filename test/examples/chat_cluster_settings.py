"""The chat's settings on a cluster of two nodes: its own, and where the other node is."""

import os

from chatsite.settings import *  # noqa: F403
from chatsite.settings import DATABASES

if "CHAT_DB_HOST_COORDINATOR" in os.environ:
    # each node of Citus has its tables from its own migration
    DATABASES["default"]["OPTIONS"] = {"options": "-c citus.enable_ddl_propagation=off"}
    DATABASES["coordinator"] = DATABASES["default"] | {
        "HOST": os.environ["CHAT_DB_HOST_COORDINATOR"]
    }
DATABASES["two"] = DATABASES["default"] | {"HOST": os.environ["CHAT_DB_HOST_TWO"]}
DJACTOR = {"CLUSTER": True, "NODES": {1: "default", 2: "two"}}
if "coordinator" in DATABASES:
    DJACTOR["NODES"][0] = "coordinator"
