"""A chat: rooms and users are actors, the history is an ordinary Django table."""
