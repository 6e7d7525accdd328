"""Classes of actors that tests register; plain, and without Django, so the server can run some."""

import djactor


class Basket:
    """Keeps what it is told; runs inside PostgreSQL as well as in a host."""

    def __init__(self, number: int):
        self.number = number
        self.items = []

    def handle_message(self, message: dict):
        if message.get("fail"):
            raise ValueError("no more room")
        self.items.append(message)
        return {"items": len(self.items)}


class Waiting(djactor.PythonActor):
    """One that is async."""

    async def handle_message(self, message: dict):
        return {"was": message}


class WithoutKey:
    def __init__(self):
        pass

    def handle_message(self, message):
        pass


class Outer:
    class Inner(Basket):
        pass
