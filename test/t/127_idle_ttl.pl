# Idle actors stop: also those whose time has come while the server was down, also if who is at it is killed; and whoever sends
# to an actor at that very moment loses nothing.
# Section 3, points 3, 6 and 23.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('idle',
	'djactor.poll_interval' => '1h',
	'djactor.idle_timeout' => '1s');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (id bigint);
	CREATE FUNCTION note(state jsonb, message jsonb) RETURNS void LANGUAGE sql
		AS 'INSERT INTO done VALUES ((djactor.message()).id)';
	SELECT djactor.define_actor_type('t.soon', 'note', idle_ttl => '5 s'), djactor.define_actor_type('t.brief', 'note', idle_ttl => '100 ms'),
		djactor.define_actor_type('t.many', 'note')});

sub actors
{
	my ($type) = @_;

	return $node->safe_psql('app', "SELECT count(*) FROM djactor.actor WHERE actor_type = '$type'");
}

# A restart: nothing wakes the pool but the time.
$node->safe_psql('app', q{SELECT djactor.send('t.soon', 'k')});
ok(wait_drained($node, 'app'), 'an actor has a turn');
$node->restart;
is(actors('t.soon'), 1, 'it is there after a restart');
ok(wait_until('the actor stops', sub { actors('t.soon') == 0 }), 'and stops when its time has come, though nobody sends');

# Longer down than idle_ttl.
$node->safe_psql('app', q{SELECT djactor.send('t.soon', 'k')});
ok(wait_drained($node, 'app'), 'another one has a turn');
$node->stop;
sleep 5.5;
$node->start;
ok(wait_until('the actor stops', sub { actors('t.soon') == 0 }), 'the time that the server is down counts');

# Senders that meet actors which are just being stopped.
my $before = $node->safe_psql('app', 'SELECT count(*) FROM done');
my @senders = map { session($node, 'app', 'app') } 1 .. 2;
my $sent = 0;
my $until = time + 6;

while (time < $until)
{
	for my $sender (@senders)
	{
		$sender->query(q{INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.brief', 'k' || (random() * 40)::int FROM generate_series(1, 5) RETURNING 0 AS sent});
		$sent += 5;
	}
	sleep 0.02;
}
$_->quit for @senders;
ok(wait_drained($node, 'app'), 'all mail is handled');
is($node->safe_psql('app', 'SELECT count(*), count(DISTINCT id) FROM done'), ($sent + $before) . '|' . ($sent + $before), 'once each');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'and none of it failed');
cmp_ok($node->safe_psql('app', 'SELECT max(id) FROM djactor.actor_identity'), '>=', 0, 'actors came and went');
ok(wait_until('all stop', sub { actors('t.brief') == 0 }), 'when nobody sends any more all stop');

# Whoever is stopping many is killed.
$node->safe_psql('app', q{INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.many', n::text FROM generate_series(1, 20000) n});
ok(wait_drained($node, 'app'), 'many actors have had a turn');
as_role($node, 'app', 'app', q{SELECT djactor.alter_actor_type('t.many', idle_ttl => '100 ms')});
ok(wait_until('some have stopped', sub { actors('t.many') < 20000 }), 'some have stopped');
my ($resident) = map { $_->[0] } grep { $_->[3] eq 't' } workers($node, 'app');
ok(defined $resident && kill_backend($node, $resident), 'the resident is killed');
ok(wait_until('all have stopped', sub { actors('t.many') == 0 }), 'its successor stops the rest');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.actor_identity'), 0, 'no half of an actor is left');

# One that is merely asked to end, again and again, before it can come to the end.
$node->safe_psql('app', q{INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.many', n::text FROM generate_series(1, 3000) n});
ok(wait_until('all have stopped', sub {
	$node->safe_psql('app', q{SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE resident});
	sleep 0.4;
	actors('t.many') == 0 && $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') == 0
}), 'a walk goes on where the last resident has stopped');

done_testing();
