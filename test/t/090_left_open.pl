# What a turn leaves open is closed at its end: cursors, and connections of dblink, which no transaction ends.
#
# - The next turns of the batch meet neither, so nobody's handler is called again for that; nor do they in drain().
# - drain() leaves alone the cursors of who calls it.
# - A turn that fails has its connections closed, too, with what they have begun elsewhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('left_open', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1, fsync => 'off');

new_database($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE SCHEMA own;
	CREATE SEQUENCE own.calls;

	CREATE FUNCTION own.reads(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		named refcursor := 'left_open';
		bound CURSOR FOR SELECT 1;
		unnamed refcursor;
		others int;
	BEGIN
		PERFORM nextval('own.calls');
		SELECT count(*) INTO others FROM pg_cursors WHERE name LIKE '<unnamed%' OR name IN ('left_open', 'bound');
		OPEN named FOR SELECT 1;
		OPEN bound;
		OPEN unnamed FOR SELECT 2;
		RETURN jsonb_build_object('turns', coalesce((state->>'turns')::int, 0) + 1,
			'others', coalesce((state->>'others')::int, 0) + others);
	END $$;
	SELECT djactor.define_actor_type('t.reads', 'own.reads', max_attempts => 1)});

# send_many($type, $n): so many to one actor at once; returns how often the handler was called until they are done. On a
# busy machine a turn may take so long that its batch is run again: then once more.
sub send_many
{
	my ($type, $n) = @_;
	my $calls;

	for (1 .. 10)
	{
		$calls = send_once($type, $n);
		last if $calls == $n;
	}
	return $calls;
}

sub send_once
{
	my ($type, $n) = @_;

	as_role($node, 'app', 'app', qq{
		SELECT djactor.pause('$type');
		SELECT setval('own.calls', 1000);
		SELECT djactor.send('$type', 'k') FROM generate_series(1, $n);
		SELECT djactor.resume('$type')});
	wait_drained($node, 'app');
	return $node->safe_psql('app', 'SELECT last_value - 1000 FROM own.calls');
}

is(send_many('t.reads', 5), 5, 'turns that leave cursors open are not in the way of those that come next');
is($node->safe_psql('app', q{SELECT state->'others' FROM djactor.actor}), 0, '... which find none open');

my $session = session($node, 'app', 'app');
$session->query(q{BEGIN; SELECT djactor.send('t.reads', 'd') FROM generate_series(1, 3)});
is($session->query(q{DECLARE mine CURSOR FOR SELECT 'mine'; DECLARE kept CURSOR WITH HOLD FOR SELECT 'kept';
	SELECT djactor.drain()}), 3, 'so it is in drain()');
is($session->query('FETCH mine; FETCH kept'), "mine\nkept", '... which closes none of its caller');
is($session->query(q{SELECT name FROM pg_cursors ORDER BY 1}), "kept\nmine", '... and only those');
is($session->query(q{SELECT state FROM djactor.actor WHERE actor_key = 'd'}), '{"turns": 3, "others": 0}', '... between its turns');
$session->query('ROLLBACK');
$session->quit;
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'nothing failed');

SKIP:
{
	skip 'no dblink here' unless $node->safe_psql('app', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'});

	my $remote = sprintf q{host=%s port=%d dbname=app user=app application_name=left}, $node->host, $node->port;
	my $left = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'left'};

	$node->safe_psql('app', q{CREATE EXTENSION dblink SCHEMA own; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA own TO app});
	as_role($node, 'app', 'app', qq{
		SELECT djactor.discard(id) FROM djactor.dead_letter;
		CREATE TABLE own.noted (n int);

		CREATE FUNCTION own.connects(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM nextval('own.calls');
			PERFORM own.dblink_connect_u('c', '$remote');
			RETURN state;
		END \$\$;
		SELECT djactor.define_actor_type('t.connects', 'own.connects', max_attempts => 1);

		CREATE FUNCTION own.unnamed(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM nextval('own.calls');
			PERFORM own.dblink_connect_u('$remote');
			PERFORM own.dblink_exec('BEGIN');
			RETURN state;
		END \$\$;
		SELECT djactor.define_actor_type('t.unnamed', 'own.unnamed', max_attempts => 1);

		CREATE FUNCTION own.fails(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			IF (djactor.message()).attempts > 0 THEN
				RETURN to_jsonb(own.dblink_get_connections());
			END IF;
			PERFORM own.dblink_connect_u('c', '$remote');
			PERFORM own.dblink_exec('c', 'BEGIN');
			PERFORM own.dblink_exec('c', 'INSERT INTO own.noted VALUES (1)');
			RAISE EXCEPTION 'it fails';
		END \$\$;
		SELECT djactor.define_actor_type('t.fails', 'own.fails', max_attempts => 2, backoff => '10 ms', initial_state => '"new"')});

	my $pid = wait_until('a worker', sub { (worker_pids($node, 'app'))[0] });
	is(send_many('t.connects', 5), 5, 'turns that connect elsewhere by the same name, and leave that open');
	ok(wait_until('no session', sub { $node->safe_psql('app', $left) eq '0' }), '... leave no session there');
	is(send_many('t.unnamed', 5), 5, 'turns that connect without a name');
	ok(wait_until('no session', sub { $node->safe_psql('app', $left) eq '0' }), '... leave none either');
	as_role($node, 'app', 'app', q{SELECT djactor.send('t.fails', 'k')});
	ok(wait_until('a dead letter', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.message}) eq '0' }),
		'a turn that fails with a connection open');
	like($node->safe_psql('app', q{SELECT error FROM djactor.dead_letter WHERE actor_type = 't.fails'}), qr/^handler own.fails\(jsonb,jsonb\) returned NULL/,
		'... does not find it when it is run again');
	ok(wait_until('no session', sub { $node->safe_psql('app', $left) eq '0' }), '... and what it had begun there is over');
	is($node->safe_psql('app', 'SELECT count(*) FROM own.noted'), 0, '... without effect');
	is(join(' ', worker_pids($node, 'app')), $pid, 'the worker is the same through all that');
}
# a client that goes is no worker that ends
is(log_count($node, qr/FATAL:(?!  connection to client lost)|PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
