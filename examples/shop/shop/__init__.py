"""A shop: orders are sagas of hosted actors, which reserve stock, call a bank and send mail."""
