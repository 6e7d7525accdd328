"""Idle at scale: the same as ``idle``, with a million actors and 100,000 pending timers.

The actors have each handled a message; a thousand of them have set a hundred timers each,
due in a day.  Then nothing is to be done for 30 seconds: no query, no CPU tick.

What would make it dishonest: watching before the worker has fallen asleep, or actors and timers
written into the tables by hand, of which no worker knows.
"""

from __future__ import annotations

import longrun
from common import Options, Result, admin, connect, create_database, number, require, server
from idle import DBNAME, watch

NAME = "idle-at-scale"
ACTORS = 1_000_000
TIMERS = 100_000
OF_ONE = 100

_HANDLER = f"""
    CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        IF message ? 'timers' THEN
            PERFORM djactor.set_timer('t' || i, interval '1 day')
            FROM generate_series(1, {OF_ONE}) i;
        END IF;
        RETURN state;
    END $$"""


def run(options: Options) -> Result:
    """Fill the tables and watch."""
    scale = longrun.QUICK if options.quick else 1
    seconds = 3.0 if options.quick else 30.0
    actors, timers = ACTORS // scale, TIMERS // scale
    result = Result(NAME, f"A server with {actors:,} actors and {timers:,} timers")
    settings = longrun.SETTINGS | {"djactor.poll_interval": "1h", "autovacuum": "off"}
    with server(result, settings) as private:
        create_database(private, DBNAME)
        with connect(private, DBNAME) as owner, admin(private, DBNAME) as su:
            owner.execute(_HANDLER)
            owner.execute("SELECT djactor.define_actor_type(%s, 'handle')", [longrun.TYPE])
            longrun.preload(owner, actors, actors)
            owner.execute(
                "INSERT INTO djactor.message (actor_type, actor_key, payload)"
                " SELECT %s, i::text, '{\"timers\": true}' FROM generate_series(1, %s) i",
                [longrun.TYPE, timers // OF_ONE],
            )
            longrun.wait_idle(owner, 600)
            there = number(su, "SELECT count(*) FROM djactor.actor")
            pending = number(su, "SELECT count(*) FROM djactor.timer")
            require(
                there == actors and pending == timers, f"{there:.0f} actors, {pending:.0f} timers"
            )
            su.execute("VACUUM (ANALYZE)")
            su.execute("CHECKPOINT")
        watch(private, result, seconds)
    return result
