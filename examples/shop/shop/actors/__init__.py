"""The actors of the shop; djactor imports this module when Django starts, ``migrate`` defines them.

Each hosted one is a class in a file of its own, and its turns run in ``manage.py djactor_worker``.
The handler of the cart is SQL, ``cart.sql``, and runs inside PostgreSQL.
"""

import djactor
from shop.actors.mail import Mail
from shop.actors.order import OrderSaga
from shop.actors.payment import Payment
from shop.actors.stock import Stock

djactor.register_sql(
    "shop.cart",
    "shop_cart_handle",
    sql="cart.sql",
    initial_state={"lines": {}},
    mailbox_limit=100,  # nobody needs more, and a flood of one browser's is refused
)

__all__ = ["Mail", "OrderSaga", "Payment", "Stock"]
