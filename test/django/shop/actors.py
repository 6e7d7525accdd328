"""Python actors, which the server imports."""

import djactor


class NotificationActor(djactor.PythonActor):
    """Keeps what it is told."""

    def __init__(self, user_id: int):
        self.user_id = user_id
        self.messages = []

    def handle_message(self, message: dict):
        self.messages.append(message)
        return {"status": "ok", "count": len(self.messages)}


class Closing(djactor.PythonActor):
    """Uses what acts on the turn."""

    def handle_message(self, message: dict):
        self.send("shop.notification", 7, {"from": self.current().key})
        self.reply({"bye": True})
        self.stop()
