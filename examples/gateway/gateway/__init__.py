"""An API gateway: rate limiters and circuit breakers are actors, asked from an async view."""
