# Databases come and go although workers are connected to them: DROP, RENAME, SET TABLESPACE and
# copies succeed while a handler runs, without FORCE; copies and renamed databases get workers; a
# command that is refused, or not allowed, leaves the workers where they are. One that fails, or is rolled
# back, brings them back. The message of a handler that was cut off is not charged.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('databases', 'djactor.max_workers' => 6, 'djactor.poll_interval' => '1h');

new_app($node, 'app');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN CREATEDB');

# the handler sleeps, far longer than any of this takes
sub busy_worker
{
	my ($database, $key) = @_;

	$node->safe_psql($database, qq{SELECT djactor.send('t.work', '$key', '{"sleep": 300}')});
	return wait_until("a handler sleeps in $database", sub {
		$node->safe_psql($database, q{SELECT pid FROM djactor.worker WHERE message_id IS NOT NULL LIMIT 1}) });
}

# pids of an earlier look that are still there
sub alive
{
	my ($pid) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid");
}

# ---- who may not, stops nobody ----
my $pid = busy_worker('app', 'one');
ok($pid, 'a handler runs');
for my $command ('DROP DATABASE app', 'ALTER DATABASE app RENAME TO mine', 'CREATE DATABASE mine TEMPLATE app')
{
	my ($status, undef, $error) = $node->psql('postgres', $command, extra_params => [ '-U', 'stranger' ]);

	isnt($status, 0, "$command: refused to a stranger");
	is(alive($pid), '1', '... and the worker goes on');
}
my ($status) = $node->psql('postgres', q{DO $$BEGIN EXECUTE 'DROP DATABASE app'; END$$});
isnt($status, 0, 'DROP DATABASE in a block: refused');
is(alive($pid), '1', '... and the worker goes on');

# ---- a copy, while a handler runs ----
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app OWNER app');
is(alive($pid), '0', 'a copy is made: the worker had to go');
$node->safe_psql('copy', 'SELECT djactor.resume()');	# a copy with mail is held
for my $database ('app', 'copy')
{
	ok(wait_until("a worker in $database", sub {
		$node->safe_psql($database, q{SELECT count(*) FROM djactor.worker WHERE message_id IS NOT NULL}) ne '0' }),
		"$database: the message is run again");
	is($node->safe_psql($database, 'SELECT max(attempts) FROM djactor.message'), '0', '... and was not charged');
}

# ---- rename, move, drop ----
$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO renamed');
ok(busy_worker('renamed', 'two'), 'a renamed database has workers');
$node->safe_psql('postgres', 'ALTER DATABASE renamed SET TABLESPACE pg_default');
ok(busy_worker('renamed', 'three'), 'so has one that was moved');
$node->safe_psql('postgres', 'DROP DATABASE renamed');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'renamed'}), '0', 'DROP DATABASE, though a handler runs');

# ---- an aborted command brings the workers back ----
$pid = busy_worker('app', 'four');
$node->psql('postgres', 'ALTER DATABASE app RENAME TO template1');
ok(wait_until('a worker', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM djactor.worker WHERE message_id IS NOT NULL}) ne '0' }),
	'after a RENAME that failed workers are back');
my $session = session($node, 'postgres');
$session->query('BEGIN; ALTER DATABASE app RENAME TO renamed');
sleep 1;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor worker'}), '0', 'a RENAME in an open transaction: no worker is there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_locks WHERE NOT granted'), '0', '... and none waits for its end in a place of its own');
$session->query('ROLLBACK');
ok(busy_worker('app', 'five'), '... it is rolled back: workers are back');
$session->quit;

# ---- a database of the same name begins anew ----
$node->safe_psql('postgres', 'DROP DATABASE app');
new_app($node, 'app');
$node->safe_psql('app', q{SELECT post(1, 1, 100, 't.work', 10)});
ok(wait_drained($node, 'app'), 'a database of the same name gets workers');
is($node->safe_psql('app', 'SELECT count(*) FROM ledger'), '100', '... which handle its mail');

# ---- a transaction may change a type and drop the extension ----
$node->safe_psql('app', q{
	BEGIN;
	SELECT djactor.define_actor_type('t.late', 'public.work');
	DROP EXTENSION djactor CASCADE;
	COMMIT});
is($node->safe_psql('app', q{SELECT count(*) FROM pg_extension WHERE extname = 'djactor'}), '0',
	'DROP EXTENSION in the transaction that defined a type');

$node->stop;
done_testing();
