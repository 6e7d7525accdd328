# A database with djactor moves to another server by logical replication of all its tables, under load: its workers go on, its
# actors' states may be updated by hand, nothing runs on the new server before it is told to, and then it has everything:
# state, mailboxes, timers, dead letters and user tables agree.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $from = new_server('from', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 2);
my $to = new_server('to', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 2);

new_app($from, 'app');
define_work($from, 'app', 'app', 't.paused');
send_broken($from, 'app', 'app', 5);
start_ticking($from, 'app', 'app', '100 ms');
as_role($from, 'app', 'app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 200, 't.paused', 20)});
ok(wait_until('dead letters', sub { $from->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') eq '5' }), 'some messages are given up');
start_sender($from, 'app', 'app', id => 10 + $_, fail => 50, pause => 0.01, keys => 5) for 1 .. 2;

#
# Tables first, then all rows
#
my $schema = PostgreSQL::Test::Utils::tempdir() . '/schema.sql';
$to->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE app OWNER app');
command_ok([ 'pg_dump', '--schema-only', '-f', $schema, '-d', $from->connstr('app') ], 'pg_dump of the tables');
ok(run_log([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $to->connstr('app'), '-f', $schema ]), '... which are made on the new server');
$from->safe_psql('app', 'CREATE PUBLICATION everything FOR ALL TABLES');
$to->safe_psql('app', q{CREATE SUBSCRIPTION moving CONNECTION '} . $from->connstr . q{ dbname=app' PUBLICATION everything});
$to->wait_for_subscription_sync($from, 'moving', 'app');

my $before = $from->safe_psql('app', 'SELECT count(*) FROM ledger');
ok(wait_until('load', sub { $from->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 100 }), 'published, mail is handled as before');
is(($from->psql('app', q{UPDATE djactor.actor SET state = state || '{"by": "hand"}' WHERE actor_type = 't.ticks'}))[2], '', '... and a state may be updated');
is($to->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE aside IS NULL OR aside NOT LIKE 'held%'}), 0, 'what arrives is held, failed attempts at it, too');

#
# The old server comes to rest, the new one takes over
#
my $known = stop_senders();
$from->safe_psql('app', 'SELECT djactor.pause(name) FROM djactor.actor_type');
# until no batch is under way, in its commit neither, and the timer, which was due within 0.1 s, has been seen to
ok(wait_until('rest', sub { $from->safe_psql('app', q{
	SELECT count(*) FROM djactor.worker WHERE pid IS NOT NULL AND (state <> 'idle' OR now() - since < '0.5 s')}) eq '0' }), 'all types are paused');
$from->wait_for_catchup('moving');
$to->safe_psql('app', 'ALTER SUBSCRIPTION moving DISABLE');
for (split /\n/, $from->safe_psql('app', q{
	SELECT format('SELECT setval(%L, %s)', format('%I.%I', schemaname, sequencename), last_value) FROM pg_sequences WHERE last_value IS NOT NULL}))
{
	$to->safe_psql('app', $_);
}
for my $table ('sent', 'ledger', 'djactor.dead_letter', 'djactor.timer', 'djactor.actor', 'djactor.actor_identity', 'djactor.message')
{
	my $content = "SELECT count(*), md5(string_agg((to_jsonb(t) - 'aside')::text, ',' ORDER BY to_jsonb(t)->>'id', t::text)) FROM $table t";

	is($to->safe_psql('app', $content), $from->safe_psql('app', $content), "$table has arrived, all of it");
}
$before = $to->safe_psql('app', 'SELECT count(*) FROM ledger');
sleep 0.7;
is($to->safe_psql('app', 'SELECT count(*) FROM ledger'), $before, 'nothing runs by itself');
as_role($to, 'app', 'app', 'SELECT djactor.resume(); SELECT djactor.resume(name) FROM djactor.actor_type');
my $ticks = q{SELECT (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks' AND state->>'by' = 'hand'};
my $ticked = $to->safe_psql('app', $ticks);
ok(wait_until('a tick', sub { $to->safe_psql('app', $ticks) > $ticked }), 'after resume() the timer ticks, with the state that was updated');
ok(wait_until('mail', sub { $to->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE kind <> 'timer'}) eq '0' }), '... and what waited is handled');
$to->safe_psql('app', q{SELECT post(2, 1, 100, 't.work', 10)});
as_role($to, 'app', 'app', q{SELECT djactor.stop_actor('t.ticks', 'k')});
ok(wait_drained($to, 'app'), '... and new mail');
check_ledger($to, 'app', $known);
is($to->safe_psql('app', q{SELECT count(*) FROM djactor.message}), 0, 'no message is left');
is(log_count($to, qr/ERROR|PANIC|terminated by signal/), 0, 'nothing went wrong there');
$_->stop for $to, $from;
done_testing();
