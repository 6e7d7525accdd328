-- handlers.sql
--     The handlers of the chat's actors, run by migrate, see actors.py.
--
-- A handler gets the actor's state and a message's payload, and returns the new
-- state.  What it writes, what it sends, its state and the removal of the message
-- commit together, or not at all.  At most one turn of a room runs at a time, so
-- counting needs no locks.

-- chat.room, one actor per room.  State: the number of posts (count), the author of
-- the last one (last_author), and the number of posts of each author (members).
CREATE OR REPLACE FUNCTION chat_room_handle(state jsonb, message jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  room text := (djactor.self()).actor_key;
  author text := message ->> 'author';
  posts integer := (state ->> 'count')::integer + 1;
  posts_of_author integer := coalesce((state -> 'members' ->> author)::integer, 0) + 1;
BEGIN
  INSERT INTO chat_chatmessage (room, number, author, text, message_id)
    VALUES (room, posts, author, message ->> 'text', (djactor.message()).id);

  -- Sending is an insert, here as in Django.
  PERFORM djactor.send('chat.user', author, jsonb_build_object('room', room));

  RETURN jsonb_build_object(
    'count', posts,
    'last_author', author,
    'members', state -> 'members' || jsonb_build_object(author, posts_of_author));
END
$$;

-- chat.user, one actor per user.  State: the number of posts, and the room of the last.
CREATE OR REPLACE FUNCTION chat_user_handle(state jsonb, message jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
  RETURN jsonb_build_object(
    'posts', (state ->> 'posts')::integer + 1,
    'last_room', message ->> 'room');
END
$$;
