# A worker that is asked to make room and cannot end, since it is stuck outside of any turn, is no reason to ask nobody else.
#
# - The owner of a database keeps its extension locked: the worker waits between two turns.
# - A handler leaves a cursor WITH HOLD that takes for ever at the commit: its time limit counts there, too, and so does a crash.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('stuck', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, $_, $_) for qw(mine one two);
sub post
{
	my ($database, $key, $payload) = @_;

	as_role($node, $database, $database, qq{SELECT djactor.send('t.work', '$key', '$payload')});
}
sub handled
{
	my ($database, $key) = @_;

	return wait_until("$key in $database", sub {
		$node->safe_psql($database, qq{SELECT 1 FROM djactor.actor WHERE actor_key = '$key'}) });
}
for (qw(mine one two))
{
	post($_, 'first', '{}');
	ok(handled($_, 'first'), "$_ is served");
}

# ---- a worker waits between two turns ----
my $mine = session($node, 'mine', 'mine');
$mine->query('BEGIN');
$mine->query('ALTER EXTENSION djactor UPDATE');
$node->safe_psql('mine', q{SELECT pg_notify('djactor', '')});
as_role($node, 'mine', 'mine', q{SELECT djactor.send('t.work', 'locked')});
ok(wait_until('a worker that waits', sub { $node->safe_psql('postgres',
	q{SELECT 1 FROM pg_stat_activity WHERE backend_type = 'djactor worker' AND datname = 'mine' AND wait_event_type = 'Lock'}) }),
	'a worker waits for the extension');

# two databases take turns for the other place, one of which is busy for a while
post('one', 'busy', '{"sleep": 4}');
sleep 2;
post('two', 'soon', '{}');
ok(handled('two', 'soon'), 'another database gets the other place');
post('one', 'again', '{}');
ok(handled('one', 'again'), '... and then the next one');
post('two', 'again', '{}');
ok(handled('two', 'again'), '... and so on');
$mine->query('ROLLBACK');
ok(handled('mine', 'locked'), 'the lock is gone: its mail is handled');
$mine->quit;

# ---- a cursor that is filled at the commit ----
as_role($node, 'mine', 'mine', q{
	CREATE FUNCTION hold(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT pg_sleep(1000)';
	END $$;
	SELECT djactor.define_actor_type('t.hold', 'public.hold', max_attempts => 1, handler_timeout => '1 s');
	SELECT djactor.send('t.hold', 'k')});
ok(wait_until('the dead letter', sub { $node->safe_psql('mine', q{SELECT 1 FROM djactor.dead_letter WHERE actor_type = 't.hold'}) }),
	'a cursor WITH HOLD that is filled at the commit: the time limit of the handler counts there, too');
is($node->safe_psql('mine', q{SELECT reason || ' ' || sqlstate FROM djactor.dead_letter}), 'failed 57014', '... and the message is charged with it');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');

# ---- ... and kills its process then ----
$node->safe_psql('one', q{
	-- The parent of the program is the process that calls
	CREATE FUNCTION kill_myself() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
	BEGIN
		COPY (SELECT 1) TO PROGRAM 'kill -KILL $PPID';
	END $$});
as_role($node, 'one', 'one', q{
	CREATE FUNCTION deadly(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.kill_myself()';
	END $$;
	SELECT djactor.define_actor_type('t.deadly', 'public.deadly');
	SELECT djactor.send('t.deadly', 'k')});
ok(wait_until('the dead letter', sub { $node->safe_psql('one', q{SELECT 1 FROM djactor.dead_letter WHERE actor_type = 't.deadly' AND reason = 'crashed'}) }),
	'a cursor WITH HOLD that kills its process: the message is charged with the crash');
$node->stop('immediate');
done_testing();
