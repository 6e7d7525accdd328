# A host that is not heard of loses what it has when its lease is over, and a turn that lasts too long loses its claim: who comes late finds his
# token stale. A heartbeat from any session of the role keeps the lease. Limits and rights: what other roles and databases may do to a host.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('hosted_leases', Init => [ allows_streaming => 1 ], 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
new_database($node, 'other_db', 'app');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
$node->safe_psql('app', q{
	GRANT USAGE ON SCHEMA djactor TO stranger;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA djactor TO stranger;
	GRANT SELECT ON ALL TABLES IN SCHEMA djactor TO stranger});
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('h', NULL, hosted => true);
	SELECT djactor.define_actor_type('h.limit', NULL, hosted => true, handler_timeout => '100 ms')});
as_role($node, 'other_db', 'app', q{SELECT djactor.define_actor_type('h', NULL, hosted => true)});

my ($sql, $host, $other) = map { session($node, 'app', 'app') } 1 .. 3;

sub open_host
{
	my ($session, $lease) = @_;

	return $session->query("SELECT djactor.host_open('{h,h.limit}', lease => '$lease')");
}

# token and id of the first message that is there
sub take
{
	my ($session) = @_;
	my $row = '';

	wait_until('mail', sub { ($row = $session->query('SELECT token, id FROM djactor.take(1)')) ne '' });
	return split /\|/, $row;
}

sub complete
{
	my ($session, $token, $id) = @_;

	return $session->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')");
}

#
# The lease
#
my $other_host = open_host($other, '10 min');
my $id_of_host = open_host($host, '1 s');
$sql->query(q{SELECT djactor.send('h', 'a', '1')});
my ($token, $id) = take($host);
my $start = time;
# heartbeats of another session, at most half a second apart, for longer than the lease
while (time - $start < 1.6)
{
	is($sql->query("SELECT djactor.heartbeat($id_of_host)"), 't', 'a heartbeat from another session') or last;
	sleep 0.2;
}
is($sql->query("SELECT claims FROM djactor.host WHERE id = $id_of_host"), 1, 'while there are heartbeats the claim is kept');
my ($token2, $id2) = take($other);
cmp_ok(time - $start, '>', 1.5, 'after the lease another host gets it');
is($id2, $id, '... the same message');
isnt($token2, $token, '... with another token');
is(complete($host, $token, $id), '{stale}', 'the first one comes too late');
$host->start("BEGIN; SELECT djactor.begin_turn($token, $id); ROLLBACK");
$host->finish;
like($host->{err}, qr/ERROR: .*stale/, '... for begin_turn, too');
is($sql->query("SELECT djactor.heartbeat($id_of_host)"), 'f', 'its heart has stopped');
$host->start('SELECT djactor.take(1)');
$host->finish;
like($host->{err}, qr/the lease of this host is over.*HINT: .*host_open/s, '... which take() says');
is(complete($other, $token2, $id2), '{done}', 'the other one is in time');
is(log_count($node, qr/took mail of 1 actors? back/), 1, 'the log says so');
like(open_host($host, '10 min'), qr/^\d+$/, 'a session whose lease was over can be a host again');

# a transaction that is at it when the lease ends
$host->query('SELECT djactor.host_close()');
$id_of_host = open_host($host, '1 s');
$sql->query(q{SELECT djactor.send('h', 'a', '2')});
($token, $id) = take($host);
$sql->query("BEGIN; SELECT djactor.begin_turn($token, $id)");
ok(wait_until('the lease is over', sub { $other->query("SELECT count(*) FROM djactor.host WHERE id = $id_of_host") eq '0' }, 20), 'a lease ends while a turn is being completed');
is($other->query('SELECT count(*) FROM djactor.take(1)'), 0, '... nobody else gets it');
$sql->query('CALL djactor.end_turn(); COMMIT');
is($sql->query(q{SELECT turns FROM djactor.actor WHERE actor_key = 'a'}), 2, '... it is committed');
is($other->query('SELECT count(*) FROM djactor.take(1)'), 0, '... and done');
is($sql->query('SELECT count(*) FROM djactor.message'), 0, '... for good');

#
# The time limit: the claim is taken back a little later (5 s), whatever the lease
#
open_host($host, '10 min');
$sql->query(q{SELECT djactor.send('h.limit', 'a', '1')});
($token, $id) = take($host);
$start = time;
($token2, $id2) = take($other);
cmp_ok(time - $start, '>', 4, 'the server waits for the host to end it');
is($id2, $id, '... and gives the mail to another');
is(complete($host, $token, $id), '{stale}', 'the zombie comes too late');
is($sql->query("SELECT djactor.fail($token, $id, '57014', 'time limit')"), 'stale', '... also with its failure');
is($other->query("SELECT djactor.fail($token2, $id2, '57014', 'time limit')"), 'retry', 'the time limit is a failure');
is($sql->query('SELECT attempts FROM djactor.message'), 1, '... that counts');
$sql->query("SELECT djactor.cancel($id)");

# ... also if the transaction of take() is still open when the server looks: it has to look again
$sql->query(q{SELECT djactor.send('h.limit', 'b', '1')});
$host->query('BEGIN');
($token, $id) = take($host);
sleep 7;    # beyond the limit and the five seconds
is($other->query('SELECT count(*) FROM djactor.take(1)'), 0, 'what is being taken is not taken back');
$host->query('COMMIT');
$start = time;
($token2, $id2) = take($other);
cmp_ok(time - $start, '<', 30, '... but soon afterwards, long before the lease is over');
is($id2, $id, '... the same message');
is(complete($host, $token, $id), '{stale}', '... of which the first host has nothing any more');
is(complete($other, $token2, $id2), '{done}', '... and the other one has all');

#
# Whose it is
#
my $stranger = session($node, 'app', 'stranger');
my $elsewhere = session($node, 'other_db', 'app');
$id_of_host = $host->query(q{SELECT djactor.host_close(); SELECT djactor.host_open('{h}')});
$id_of_host =~ s/\s//g;
$sql->query(q{SELECT djactor.send('h', 'b', '1')});
is($other->query('SELECT djactor.host_close()'), '', 'one host only');
($token, $id) = take($host);
for ([ 'another role', $stranger ], [ 'another database', $elsewhere ])
{
	my ($who, $session) = @$_;

	is(complete($session, $token, $id), '{stale}', "$who: complete");
	is($session->query("SELECT djactor.fail($token, $id, '38000', 'x')"), 'stale', '... fail');
	is($session->query("SELECT djactor.release('{$token}')"), 0, '... release');
	is($session->query("SELECT djactor.heartbeat($id_of_host)"), 'f', '... heartbeat');
	is($session->query("SELECT djactor.host_drain($id_of_host)"), 'f', '... host_drain');
	is($session->query("SELECT djactor.host_crashed($id_of_host, '{$id}')"), 'f', '... host_crashed');
	$session->start("BEGIN; SELECT djactor.begin_turn($token, $id); ROLLBACK");
	$session->finish;
	like($session->{err}, qr/ERROR: .*stale/, '... begin_turn');
}
$stranger->start(q{SELECT djactor.host_open('{h}')});
$stranger->finish;
like($stranger->{err}, qr/does not own actor type "h".*HINT: .*Connect as role "app"/s, 'another role cannot be a host of the type');
is(complete($sql, $token, $id), '{done}', 'after all that it is whose it was');
is($elsewhere->query('SELECT count(*) FROM djactor.host'), 0, 'a database shows its own hosts');

#
# A new owner
#
$sql->query(q{SELECT djactor.send('h', 'c', '1'), djactor.send('h', 'c', '2')});
($token, $id) = take($host);
$node->safe_psql('app', q{GRANT ALL ON SCHEMA djactor TO stranger; GRANT ALL ON ALL TABLES IN SCHEMA djactor TO stranger; SELECT djactor.alter_actor_type('h', owner => 'stranger')});
$host->start("SELECT djactor.complete('{$token}', '{$id}', '{1}')");
$host->finish;
like($host->{err}, qr/can only be run by its owner/, 'what is in flight when the owner changes cannot be ended by the old one');
$host->query('SELECT djactor.host_close()');
$stranger->query(q{SELECT djactor.host_open('{h}')});
($token, $id) = take($stranger);
is(complete($stranger, $token, $id), '{done}', 'it goes to the new one');
$stranger->query('SELECT djactor.host_close()');

$_->quit for $sql, $host, $other, $stranger, $elsewhere;

#
# A standby
#
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('hosted_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# psql of the standby, or what it says of an error
sub on_standby
{
	my ($query) = @_;
	my (undef, $out, $err) = $standby->psql('app', $query, extra_params => [ '-U', 'app' ], on_error_stop => 1);

	return $err || $out;
}

# of what a host of the primary has taken one turn is done when the primary goes; one delayed message is due later
$host = session($node, 'app', 'app');
$host->query(q{SELECT djactor.host_open('{h.limit}')});
$host->query(q{SELECT djactor.send('h.limit', 'p', '"done"'), djactor.send('h.limit', 'p', '"in flight"');
	SELECT djactor.send('h.limit', 'q', '"delayed"', deliver_at => clock_timestamp() + '2 s')});
my @taken = map { [ split /\|/ ] } split /\n/, $host->query('SELECT token, id FROM djactor.take(10, 2)');
is(scalar(@taken), 2, 'a host of the primary has mail');
is(complete($host, @{ $taken[0] }), '{done}', '... and does a part of it');
$node->wait_for_catchup($standby);

like(on_standby(q{SELECT djactor.host_open('{h.limit}')}), qr/cannot execute djactor.host_open\(\) during recovery/, 'a standby refuses hosts');
like(on_standby(q{SELECT djactor.take(1)}), qr/cannot execute djactor.take\(\)/, '... hands nothing out');
like(on_standby(q{SELECT djactor.drain_take()}), qr/cannot execute djactor.drain\(\)/, '... not for a drain either');
like(on_standby(sprintf q{SELECT djactor.complete('{%s}', '{%s}', '{1}')}, @{ $taken[1] }), qr/cannot execute a turn/, '... ends no turn');
like(on_standby(sprintf q{SELECT djactor.fail(%s, %s, '38000', 'x')}, @{ $taken[1] }), qr/cannot execute a turn/, '... and fails none');
is(on_standby('SELECT count(*) FROM djactor.host'), 0, '... nor has it the hosts of the primary');
$node->stop('immediate');
$standby->promote;

my $promoted = session($standby, 'app', 'app');
ok(wait_until('a host', sub { $promoted->query(q{SELECT djactor.host_open('{h.limit}') > 0}) =~ /t/ }), 'promoted, it takes hosts');
is($promoted->query('SELECT djactor.held()'), 'f', '... and is no copy (contract 27)');
is(complete($promoted, @{ $taken[1] }), '{stale}', '... for which the primary\'s tokens are nothing');
my %got;
ok(wait_until('the mail', sub {
	for (split /\n/, $promoted->query(q{SELECT token, id, payload #>> '{}', state FROM djactor.take(10, 10)}))
	{
		my ($with, $message, $word, $state) = split /\|/;

		$got{$word} = [ $with, $message, $state ];
	}
	return keys %got == 2 }), '... and hands out what was in flight there, and what is due since');
is(join(', ', sort keys %got), 'delayed, in flight', '... that, and nothing else');
is($got{'in flight'}[2], '1', '... with the state that the turn before has left');
is(complete($promoted, @{ $got{$_} }[ 0, 1 ]), '{done}', "... which can be done: $_") for sort keys %got;
is($promoted->query(q{SELECT turns FROM djactor.actor WHERE actor_key = 'p'}), 2, 'each message had one turn');
$promoted->query(q{LISTEN djactor_host; SELECT djactor.send('h.limit', 'r', '"new"')});
like($promoted->query(q{SELECT payload FROM djactor.take(1)}), qr/"new"/, '... and so has new mail');
$promoted->quit;

is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$standby->stop;
done_testing();
