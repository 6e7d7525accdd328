"""Memory: what launcher and workers keep after 10 million messages.

Steady senders feed one worker: 5 million messages to 1,000 actors, then 5 million to a
million actors, most of them new.  RssAnon of /proc/PID/status is looked at each second: what a
process has for itself.  Shared buffers that it has touched count in its RSS, grow with the
database and are nobody's leak.

Flat: after the first tenth of each half a process never has more than 2 MB above the most that
it had in that tenth.  The first tenth of the second half is as long as the worker's table of
actors' places (src/tables/actor.c) needs to reach its limit of 200,000 entries.

What would make it dishonest: measuring before caches are warm and calling their growth a
leak, or after they have filled with a leak and calling it flat; hence both halves, and the
curve beside the verdict.
"""

from __future__ import annotations

import time
from pathlib import Path

import longrun
from common import Connection, Options, Result, admin, connect, require, server

NAME = "memory"
MESSAGES = 10_000_000
FEW, MANY = 1_000, 1_000_000
ALLOWED_KB = 2 * 1024
AHEAD = 20_000  # messages that the sender is ahead


def private_kb(pid: int) -> int:
    """Anonymous resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has no memory")


def processes(su: Connection) -> dict[str, int]:
    """Launcher and worker, by what they are."""
    rows = su.execute(
        "SELECT backend_type, pid FROM pg_stat_activity WHERE backend_type LIKE 'djactor%'"
    ).fetchall()
    require(len(rows) == 2, f"{len(rows)} processes of djactor where two were expected")
    return dict(rows)


def run(options: Options) -> Result:
    """Both halves in one server and one worker."""
    half = MESSAGES // 2 // (longrun.QUICK if options.quick else 1)
    many = MANY // (longrun.QUICK if options.quick else 1)
    result = Result(NAME, f"Private memory over {2 * half:,} messages")
    settings = longrun.SETTINGS | {"djactor.idle_timeout": "10min"}
    with server(result, settings) as private:
        longrun.define(private, "memory")
        with connect(private, "memory") as sender, admin(private, "memory") as su:
            pids = processes(su)
            first = 1
            for title, actors in ((f"{FEW:,} actors", FEW), (f"{MANY:,} actors", many)):
                feeding = longrun.Sender(
                    longrun.feed, sender, half, actors, 1_000, AHEAD, first=first
                )
                base = longrun.handled(su)
                seen: dict[str, tuple[list[float], list[float]]] = {p: ([], []) for p in pids}
                feeding.start()
                while feeding.is_alive():
                    done = longrun.handled(su) - base
                    for process, pid in pids.items():
                        seen[process][0].append(done / 1e6)
                        seen[process][1].append(private_kb(pid))
                    time.sleep(0.1 if options.quick else 1.0)
                feeding.join()
                longrun.wait_idle(sender, 300)
                require(processes(su) == pids, "processes of djactor came or went")
                for process, (counts, kilobytes) in seen.items():
                    early = [k for c, k in zip(counts, kilobytes, strict=True) if c * 1e7 <= half]
                    late = kilobytes[len(early) :]
                    growth = max(0.0, max(late) - max(early))
                    result.add(f"{process}, {title}: at the start", "MB", [kilobytes[0] / 1024])
                    result.add(f"{process}, {title}: most", "MB", [max(kilobytes) / 1024])
                    result.add(f"{process}, {title}: at the end", "MB", [kilobytes[-1] / 1024])
                    megabytes = [k / 1024 for k in kilobytes]
                    result.series[f"{process}, {title}: MB"] = (counts, megabytes)
                    result.promise(
                        f"{process}, {title}: grows by {growth / 1024:.2f} MB after the first"
                        f" tenth, {ALLOWED_KB / 1024:.0f} MB allowed",
                        growth <= ALLOWED_KB,
                    )
                first += half
            longrun.check_books(su, 2 * half)
    return result
