# pg_stat_statements and auto_explain preloaded beside djactor, before it and after it.
#
# All three hang into the same hooks (shared memory, parse analysis, executor, utility commands), so
# each must call the one before it, and nobody may miss anything:
#
# - Statements of handlers are counted, for the role and the database that they run in, and explained.
# - Utility commands are counted, and djactor sees them: COMMIT PREPARED wakes, DROP DATABASE stops workers,
#   CREATE DATABASE ... TEMPLATE brings new ones, a dump's INSERTs make a held copy.
# - All of it once more after a crash restart, when shared memory is new.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($stdout) = run_command([ 'pg_config', '--pkglibdir' ]);
plan skip_all => 'this server has no contrib modules'
  unless -f "$stdout/pg_stat_statements.so" && -f "$stdout/auto_explain.so";

sub calls
{
	my ($node, $like, $database) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
		WHERE query ILIKE '$like' AND dbid = (SELECT oid FROM pg_database WHERE datname = '$database')
			AND userid = 'app'::regrole});
}

sub check_neighbours
{
	my ($node, $sender) = @_;
	my $session = session($node, 'app', 'app');
	my $log = -s $node->logfile;

	$node->safe_psql('postgres', 'SELECT pg_stat_statements_reset()');
	$session->query("SELECT post($sender, 1, 20, 't.work', 5)");
	ok(wait_drained($node, 'app'), 'messages are handled');
	is(calls($node, 'INSERT INTO ledger %', 'app'), 20, 'statements of handlers are counted, each once');
	is(log_count($node, qr/Query Text: INSERT INTO ledger /, $log), 20, 'and explained');
	ok($session->query('SELECT query_id <> 0 FROM pg_stat_activity WHERE pid = pg_backend_pid()') eq 't',
		'queries have their ids');

	is(calls($node, 'SELECT post($1, $2, $3, $4, $5)', 'app'), 1, 'constants are taken out of them');

	$session->query("BEGIN; SELECT post($sender, 100, 1, 't.work', 5); PREPARE TRANSACTION 'p'");
	$session->query("COMMIT PREPARED 'p'");
	ok(wait_drained($node, 'app'), 'COMMIT PREPARED wakes a worker');
	is(calls($node, 'COMMIT PREPARED %', 'app'), 1, 'and is counted');
	$session->quit;

	# workers are connected to both databases meanwhile
	as_role($node, 'postgres', 'app', 'CREATE DATABASE clone TEMPLATE app');
	is(calls($node, 'CREATE DATABASE clone %', 'postgres'), 1, 'CREATE DATABASE is counted');
	as_role($node, 'clone', 'app', "SELECT post($sender, 200, 5, 't.work', 5)");
	ok(wait_drained($node, 'clone'), 'the clone has workers');
	is($node->safe_psql('clone', q{
		INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (1000000, 't.work', 'restored');
		SELECT djactor.held()}), 't', 'an INSERT of a dump is noticed');
	as_role($node, 'postgres', 'app', 'DROP DATABASE clone');
	is(calls($node, 'DROP DATABASE clone%', 'postgres'), 1, 'DROP DATABASE is counted');

	check_ledger($node, 'app');
}

for my $libraries ('djactor,pg_stat_statements,auto_explain', 'auto_explain,pg_stat_statements,djactor')
{
	my $node = new_server($libraries =~ /^djactor/ ? 'first' : 'last',
		shared_preload_libraries => $libraries,
		max_prepared_transactions => 2,
		'djactor.poll_interval' => '1h',
		'pg_stat_statements.track_planning' => 'on',
		'auto_explain.log_min_duration' => 0,
		'auto_explain.log_analyze' => 'on');

	note($libraries);
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements');
	new_app($node, 'app');
	$node->safe_psql('postgres', 'ALTER ROLE app CREATEDB');
	check_neighbours($node, 1);

	kill 'KILL', (worker_pids($node, 'app'))[0];
	ok(wait_until('the server is back', sub { log_count($node, qr{ready to accept connections}) == 2 }), 'crash restart');
	check_neighbours($node, 2);
	is(log_count($node, qr/PANIC|TRAP/), 0, 'nothing has gone wrong');
	$node->stop;
}

done_testing();
