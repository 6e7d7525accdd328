"""The classes of message_classes.py as actor types; imported where turns run."""

import djactor
from message_classes import AsyncWish, Cart, Wish

TYPES = {"typed.cart": Cart, "typed.wish": Wish, "typed.awish": AsyncWish}
for name, cls in TYPES.items():
    djactor.register(cls, name)
