"""The task of the case ``tasks``: it does nothing, but for noting its start if that is asked."""

import os
import time

from django_tasks import task

_STARTS = os.environ.get("BENCH_STARTS")


@task(queue_name="bench")
def noop(i: int) -> None:
    """Nothing."""
    if _STARTS is not None:
        now = time.time()
        with open(f"{_STARTS}/{os.getpid()}.starts", "a") as file:  # noqa: PTH123
            file.write(f"{i} {now}\n")
