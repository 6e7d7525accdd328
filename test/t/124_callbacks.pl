# A backend has ten places for callbacks on changes of tables. PostgreSQL takes two, Citus takes five, and djactor one: beside a library that
# takes seven, it loads, sends, handles mail, and notices changes of types and of the extension.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/greedy.so';
chomp(my $headers = `pg_config --includedir-server`);

system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/greedy.c") == 0
  or die 'greedy.c does not compile';

my $node = new_server('callbacks', shared_preload_libraries => "$library, djactor", 'djactor.poll_interval' => '1h');

new_app($node, 'app');
my $session = session($node, 'app', 'app');
$session->query("SELECT post(1, 1, 20, 't.work', 5)");
ok(wait_drained($node, 'app'), 'mail is handled');

# by other sessions, while this one keeps what it knows
as_role($node, 'app', 'app', q{
	CREATE FUNCTION other(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '"other"'::jsonb$$;
	SELECT djactor.define_actor_type('t.work', 'public.other')});
$session->query("SELECT djactor.send('t.work', 'changed')");
ok(wait_until('other', sub { $node->safe_psql('app', q{SELECT state FROM djactor.actor WHERE actor_key = 'changed'}) eq '"other"' }),
	'a worker notices that a type has changed');
as_role($node, 'app', 'app', 'DROP EXTENSION djactor CASCADE; CREATE EXTENSION djactor');
define_work($node, 'app', 'app', 't.again');
as_role($node, 'app', 'app', 'TRUNCATE sent, ledger');
$session->query("SELECT post(2, 1, 20, 't.again', 5)");
ok(wait_drained($node, 'app'), 'a session notices that the extension was created anew');
check_ledger($node, 'app');
is(log_count($node, qr/out of relcache_callback_list slots|PANIC/), 0, 'nothing has run out of places');
$session->quit;
$node->stop;
done_testing();
