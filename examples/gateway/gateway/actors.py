"""The two kinds of actors; their handlers are the .sql files beside. ``migrate`` defines them."""

import djactor

djactor.register_sql(
    "gateway.bucket",
    "gateway_bucket_handle",
    sql="bucket.sql",
    initial_state={"allowed": 0, "refused": 0},
    mailbox_limit=100,  # a flood of one client's requests is refused before it waits
)
djactor.register_sql(
    "gateway.breaker",
    "gateway_breaker_handle",
    sql="breaker.sql",
    initial_state={
        "mode": "closed",
        "failures": 0,
        "probing": False,
        "round": 0,
        "passed": 0,
        "refused": 0,
        "until": None,
    },
)
