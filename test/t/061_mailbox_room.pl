# A mailbox limit counts what waits and was sent (contract 20): not what a savepoint has undone, drain() has handled or
# cancel() has taken back, and not djactor's own messages.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('room', 'djactor.max_workers' => 1, 'djactor.batch_time' => '60s', 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'lock' THEN
			PERFORM pg_advisory_xact_lock_shared(4711);
		END IF;
		IF message ? 'do' THEN
			EXECUTE message->>'do';
		END IF;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.step', 'public.step', backoff => '1 h', backoff_max => '1 h'),
		djactor.define_actor_type('t.limit', 'public.step', mailbox_limit => 3, backoff => '1 h', backoff_max => '1 h')});

sub app { return as_role($node, 'app', 'app', join("\n", @_)) }

# the SQL ends with sending so many that have room, and one more that has none
sub has_room
{
	my ($name, $key, $n, @sql) = @_;
	my ($status, $out, $err) = $node->psql('app', join("\n", @sql,
		qq{SELECT 'sent ' || count(djactor.send('t.limit', '$key')) FROM generate_series(1, $n);}, qq{SELECT djactor.send('t.limit', '$key')}),
		connstr => $node->connstr('app') . ' user=app');

	like($out, qr/sent $n\z/, "$name: there is room for $n");
	like($err, qr/mailbox of actor t.limit "$key" is full/, '... and not for one more');
}
sub held
{
	my ($key) = @_;

	return wait_until('a failure', sub { app(qq{SELECT count(*) FROM djactor.message WHERE actor_key = '$key' AND retry_at IS NOT NULL}) eq '1' });
}

app(q{SELECT djactor.pause('t.limit')});
has_room('a savepoint that was undone', 'savepoint', 2,
	q{BEGIN; SELECT djactor.send('t.limit', 'savepoint'); SAVEPOINT a; SELECT djactor.send('t.limit', 'savepoint'); SELECT djactor.send('t.limit', 'savepoint'); ROLLBACK TO a;});
app(q{SELECT djactor.resume('t.limit')});
has_room('drain()', 'drained', 3, q{BEGIN; SELECT djactor.send('t.limit', 'drained') FROM generate_series(1, 3); SELECT djactor.drain();});

# the mailbox is held by a failed message, so the run queue knows its depth
app(q{SELECT djactor.send('t.limit', 'cancelled', '{"do": "SELECT 1/0"}')});
ok(held('cancelled'), 'a mailbox that is held');
my @ids = split "\n", app(q{SELECT djactor.send('t.limit', 'cancelled') FROM generate_series(1, 2)});
has_room('cancel()', 'cancelled', 1, map { "SELECT djactor.cancel($_);" } $ids[0]);

# answers wait in the asker's mailbox
app(q{SELECT djactor.send('t.limit', 'asker', jsonb_build_object('do',
	$do$SELECT djactor.send('t.step', 'asked', wants_reply => true), djactor.pause('t.limit', 'asker') FROM generate_series(1, 4)$do$))});
ok(wait_until('four answers', sub { app(q{SELECT count(*) FROM djactor.message WHERE actor_key = 'asker' AND kind = 'reply'}) eq '4' }), 'answers that wait');
has_room('answers', 'asker', 3);

# a batch with savepoints: a turn has sent, and fails; the next one sends to the same actor
app(q{SELECT djactor.pause('t.limit')});
my $lock = session($node, 'app');
$lock->query('SELECT pg_advisory_lock(4711)');
app(q{SELECT djactor.send('t.step', 'first', '{"lock": 1}')});
ok(wait_until('a turn that waits', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) eq '1' }), 'a batch');
app(q{SELECT djactor.send('t.step', 'fails', jsonb_build_object('do', $do$SELECT djactor.send('t.limit', 'x') FROM generate_series(1, 3); SELECT 1/0$do$))},
	q{; SELECT djactor.send('t.step', 'sends', jsonb_build_object('do', $do$SELECT djactor.send('t.limit', 'x') FROM generate_series(1, 3)$do$))});
$lock->query('SELECT pg_advisory_unlock(4711)');
ok(held('fails'), '... in which a turn has failed');
is(app(q{SELECT count(*) FROM djactor.message WHERE actor_key = 'x'}), '3', '... the next one has sent');
is(app(q{SELECT string_agg(actor_key, ' ') FROM djactor.message WHERE actor_type = 't.step'}), 'fails', '... and has not failed');

$lock->quit;
$node->stop;
done_testing();
