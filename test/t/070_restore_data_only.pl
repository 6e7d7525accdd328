# Contract 27, operations.md "Backup, restore, copies": only the data of a dump is restored, into a database that has the schema already.
# pg_restore turns all triggers of a table off and on again then (--disable-triggers), those for replication too.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('data', 'djactor.max_workers' => 2);

new_app($node, 'app');
define_work($node, 'app', 'app', 't.paused');
$node->safe_psql('app', q{SELECT djactor.pause('t.paused'); SELECT post(1, 1, 100, 't.paused', 30)});

my $folder = PostgreSQL::Test::Utils::tempdir();
command_ok([ 'pg_dump', '-Fc', '-f', "$folder/dump", '-d', $node->connstr('app') ], 'pg_dump');
my $triggers = q{SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'djactor.%' ORDER BY 1, 2};
my $before = $node->safe_psql('app', $triggers);

for my $options ([], ['--disable-triggers'])
{
	my $how = "@$options" || 'plain';
	my $database = @$options ? 'without_triggers' : 'with_triggers';

	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER app");
	ok(run_log([ 'pg_restore', '-e', '--schema-only', '-d', $node->connstr($database), "$folder/dump" ]), "$how: the schema is restored");
	ok(run_log([ 'pg_restore', '-e', '--data-only', @$options, '-d', $node->connstr($database), "$folder/dump" ]), "$how: and the data");
	is($node->safe_psql($database, $triggers), $before, "$how: the triggers are as they were");
	is($node->safe_psql($database, 'SELECT djactor.held()'), 't', "$how: it is held");
	as_role($node, $database, 'app', q{SELECT djactor.resume(); SELECT djactor.resume('t.paused')});
	ok(wait_drained($node, $database), "$how: after resume() the mail is handled");
	as_role($node, $database, 'app', q{SELECT post(2, 1, 10, 't.work', 5)});
	ok(wait_drained($node, $database, 10), "$how: and what is sent then");
	$node->safe_psql($database, q{SELECT djactor.pause('t.work'); SET session_replication_role = replica;
		INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.work', 'k')});
	is($node->safe_psql($database, 'SELECT aside FROM djactor.message'), 'held', "$how: what arrives by replication is put aside");
}

# A dump of INSERTs, into a database that is at home: no COPY and no trigger tells that mail is restored
$node->safe_psql('app', q{SELECT djactor.pause('t.work'); SELECT post(3, 1, 10, 't.work', 5)});
$node->safe_psql('postgres', 'ALTER ROLE app NOLOGIN');
$node->safe_psql('app', q{SELECT djactor.resume('t.work')});
command_ok([ 'pg_dump', '-Fc', '--inserts', '-f', "$folder/inserts", '-d', $node->connstr('app') ], 'inserts: pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE inserts OWNER app');
ok(run_log([ 'pg_restore', '-e', '--schema-only', '-d', $node->connstr('inserts'), "$folder/inserts" ]), 'inserts: the schema is restored');
ok(wait_until('at home', sub { $node->safe_psql('inserts', 'SELECT count(*) FROM djactor.home') eq '1' }), 'inserts: it is at home');
ok(run_log([ 'pg_restore', '-e', '--data-only', '--disable-triggers', '-d', $node->connstr('inserts'), "$folder/inserts" ]), 'inserts: and the data');
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
is($node->safe_psql('inserts', 'SELECT djactor.held()'), 't', 'inserts: it is held');
$node->restart;
ok(wait_until('the original', sub { $node->safe_psql('app', q{SELECT count(*) FROM ledger WHERE sender = 3}) eq '10' }), 'inserts: the original runs');
sleep 1;
is($node->safe_psql('inserts', 'SELECT count(*) FROM ledger'), '0', 'inserts: the copy does not');
as_role($node, 'inserts', 'app', q{SELECT djactor.resume(); SELECT djactor.resume('t.paused')});
ok(wait_drained($node, 'inserts'), 'inserts: after resume() the mail is handled');
check_ledger($node, 'inserts');

# As long as the triggers are off, rows that are restored may lie there, and nothing is handled; here nothing has told that they are
$node->safe_psql('inserts', q{ALTER TABLE djactor.message DISABLE TRIGGER ALL;
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('t.work', 'k', '{"sender": 4, "seq": 1}');
	NOTIFY djactor});
$node->restart;
ok(wait_until('the log', sub { log_count($node, qr/triggers of table djactor\.message are disabled/) > 0 }), 'off: the log says so');
is($node->safe_psql('inserts', 'SELECT count(*) FROM ledger WHERE sender = 4'), '0', 'off: nothing is handled');
$node->safe_psql('inserts', q{INSERT INTO sent VALUES (4, 1, 't.work', 'k'); ALTER TABLE djactor.message ENABLE TRIGGER ALL});
ok(wait_drained($node, 'inserts'), 'off: until they are on again');
check_ledger($node, 'inserts');
$node->stop;
done_testing();
