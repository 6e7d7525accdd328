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
$node->stop;
done_testing();
