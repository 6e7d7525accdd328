# Mail that cannot be handled now, however much of it there is, does not keep other mail out of the run queue
# (djactor.run_queue_size = 64): that of a type whose rate is used up, that nobody hosts, whose only place is taken by a
# long turn, or whose actors somebody else has locked; nor, within a type, that of one tenant the mail of another
# (contract 28).
#
# Each of these has more mailboxes than the run queue has room for.  Polling is off.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('room',
	'djactor.run_queue_size' => 64,
	'djactor.poll_interval' => '1h',
	'djactor.max_workers' => 2,
	'djactor.idle_timeout' => '10min',
	fsync => 'off');

new_app($node, 'app');

sub app
{
	my ($sql) = @_;

	return as_role($node, 'app', 'app', $sql);
}

app(q{
	CREATE TABLE begun (serial serial, type text, key text);
	CREATE FUNCTION begins(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO begun (type, key) VALUES ((djactor.self()).actor_type, (djactor.self()).actor_key);
		PERFORM pg_sleep((message->>'sleep')::float);
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.other', 'begins')});

# begun($type, $n): have so many turns begun?
sub begun
{
	my ($type, $n) = @_;

	return wait_until("$n turns of $type", sub { app("SELECT count(*) FROM begun WHERE type = '$type'") >= $n });
}

# others_go_on($what): mail of another type, of more actors than there is room for, is handled.
my $others = 0;
sub others_go_on
{
	my ($what) = @_;

	app(q{INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.other', i::text FROM generate_series(1, 100) i});
	$others += 100;
	ok(begun('t.other', $others), "$what: others' mail is handled");
	app(q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.other', 'one')});
	ok(begun('t.other', ++$others), '... and one more message');
}

# send_many($type, $payload): to more actors than there is room for.
sub send_many
{
	my ($type, $payload) = @_;

	app(qq{INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT '$type', i::text, '$payload' FROM generate_series(1, 200) i});
}

# A rate
app(q{SELECT djactor.define_actor_type('t.rated', 'begins', rate => '2/hour')});
send_many('t.rated', '{}');
ok(begun('t.rated', 2), 'a type has had its turns, and has mail for 200 actors');
others_go_on('a rate');
is(app(q{SELECT count(*) FROM begun WHERE type = 't.rated'}), 2, '... while it waits');

# Nobody hosts it
app(q{SELECT djactor.define_actor_type('t.hosted', NULL, hosted => true)});
send_many('t.hosted', '{}');
others_go_on('a type that nobody hosts');

# One place, and a turn that lasts
app(q{SELECT djactor.define_actor_type('t.long', 'begins', concurrency => 1, handler_timeout => '1 h')});
send_many('t.long', '{"sleep": 300}');
ok(wait_until('the long turn', sub { app(q{SELECT count(*) FROM djactor.worker WHERE actor_type = 't.long'}) eq '1' }), 'a turn lasts');
others_go_on('a type whose only place is taken');

# Somebody has locked its actors
app(q{SELECT djactor.define_actor_type('t.locked', 'begins')});
send_many('t.locked', '{}');
ok(begun('t.locked', 200), 'actors');
my $session = session($node, 'app', 'app');
$session->query(q{BEGIN; UPDATE djactor.actor SET state = '{"n": 10}' WHERE actor_type = 't.locked'});
send_many('t.locked', '{}');
others_go_on('a type whose actors are locked');
is(app(q{SELECT count(*) FROM begun WHERE type = 't.locked'}), 200, '... while they are');
$session->query('COMMIT');
ok(begun('t.locked', 400), '... and when they are locked no longer, it goes on');
$session->quit;

# Tenants
app(q{
	SELECT djactor.drop_actor_type('t.rated', true);
	SELECT djactor.define_actor_type('t.tenants', 'begins', rate => '2/hour', rate_by => 'header:tenant')});

# send_as($tenant, $n, $payload): so many messages of a tenant, each to another actor
sub send_as
{
	my ($tenant, $n) = @_;

	app(qq{INSERT INTO djactor.message (actor_type, actor_key, headers)
		SELECT 't.tenants', '$tenant' || i, '{"tenant": "$tenant"}' FROM generate_series(1, $n) i});
}
send_as('a', 300);
ok(begun('t.tenants', 2), 'a tenant has had its turns, and has mail for 300 actors');
send_as('b', 2);
ok(begun('t.tenants', 4), '... the mail of another is handled');
send_as('c', 300);
ok(begun('t.tenants', 6), '... and that of one that has as much');
is(app(q{SELECT string_agg(DISTINCT left(key, 1), '' ORDER BY left(key, 1)) FROM begun WHERE type = 't.tenants'}), 'abc', '... each had its turns');

# A restart: the sweep finds it all
my $last = app('SELECT max(serial) FROM begun');
$node->restart;
send_as('d', 1);
ok(begun('t.tenants', 6 + 2 + 2 + 1), 'after a restart, too');
is(app(q{SELECT string_agg(DISTINCT left(key, 1), '' ORDER BY left(key, 1)) FROM begun WHERE type = 't.tenants' AND serial > } . $last),
	'acd', '... whose counting begins anew');

# All of it is handled in the end
app(q{SELECT djactor.alter_actor_type('t.tenants', rate => NULL, rate_by => NULL)});
ok(begun('t.tenants', 603), 'without rate all is handled');

$node->stop('immediate');
done_testing();
