# What a test runner, an operator and two of them at a time do to databases with workers in them.
#
# - Django's: a role with CREATEDB, without further rights, makes a test database, copies of it, uses and drops them.
# - A template may be copied by whoever may create databases, while its handlers run; template1 is one, named or not.
# - Where other sessions or prepared transactions are in the way, a command fails as it does without djactor, and says so;
#   the workers are back. So they are when it was cancelled.
# - Two copies at a time. A database that takes no connections.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('tests', 'djactor.max_workers' => 6, 'djactor.poll_interval' => '1h', fsync => 'off', max_prepared_transactions => 2);

# ---- Django's test runner, as a role that is no superuser ----
$node->safe_psql('postgres', 'CREATE ROLE django LOGIN CREATEDB');
sub django { return as_role($node, $_[0], 'django', $_[1]) }
my @databases = ('test_shop', map { "test_shop_$_" } 1 .. 3);
for my $round (1, 2)
{
	django('postgres', 'CREATE DATABASE test_shop');
	django('test_shop', q{
		CREATE EXTENSION djactor;
		CREATE TABLE public.done (n int);
		CREATE FUNCTION public.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$INSERT INTO public.done VALUES (1); SELECT state$$;
		SELECT djactor.define_actor_type('shop.type', 'public.handle')});
	django('postgres', "CREATE DATABASE $_ WITH TEMPLATE test_shop") for @databases[ 1 .. 3 ];
	django($_, q{SELECT djactor.send('shop.type', 'k' || i) FROM generate_series(1, 20) i}) for @databases;
	for my $database (@databases)
	{
		ok(wait_drained($node, $database), "round $round: $database: its workers handle its mail");
		is(django($database, 'SELECT count(*) FROM done'), 20, '... and nobody else\'s');
	}
	django('postgres', "DROP DATABASE $_") for @databases;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'}), 0, '... all are dropped at the first try');
}

# ---- a template ----
new_app($node, 'app');
my $postgres = session($node, 'postgres');
sub long_handler
{
	$node->safe_psql('app', q{SELECT djactor.send('t.work', 'long', '{"sleep": 300}')})
	  if $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key = 'long'}) eq '0';
	return wait_until('the handler runs', sub { $postgres->query(q{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'djactor worker' AND datname = 'app' AND query = 'djactor: t.work' AND state = 'active'}) });
}
long_handler();
$postgres->query('ALTER DATABASE app IS_TEMPLATE true');
django('postgres', 'CREATE DATABASE from_template TEMPLATE app');
ok(long_handler(), 'a template is copied by a role with CREATEDB, while its handler runs, which runs again');
$postgres->query('ALTER DATABASE app IS_TEMPLATE false');
django('postgres', 'DROP DATABASE from_template');

# ---- template1, which is the template when none is named ----
$node->safe_psql('template1', q{
	CREATE EXTENSION djactor;
	CREATE FUNCTION public.nap(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(300); RETURN state; END$$;
	SELECT djactor.define_actor_type('t.nap', 'public.nap', owner => 'app', handler_timeout => '0');
	SELECT djactor.send('t.nap', 'k')});
sub template1_runs
{
	return wait_until('the handler runs', sub { $postgres->query(q{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'djactor worker' AND datname = 'template1' AND query = 'djactor: t.nap' AND state = 'active'}) });
}
for my $template ('', ' TEMPLATE DEFAULT')
{
	ok(template1_runs(), 'a handler runs in template1');
	django('postgres', "CREATE DATABASE test_default$template");
	is($node->safe_psql('test_default', q{SELECT count(*), max(attempts) FROM djactor.message}), '1|0', "CREATE DATABASE$template: copied all the same");
	django('postgres', 'DROP DATABASE test_default');
}
ok(template1_runs(), '... the handler runs again');
is($node->safe_psql('template1', q{SELECT attempts FROM djactor.message}), 0, '... and was not charged');
$postgres->query('ALTER DATABASE template1 IS_TEMPLATE false; DROP DATABASE template1; CREATE DATABASE template1 TEMPLATE template0');

# ---- somebody is in the way ----
my $other = session($node, 'app');
$other->query(q{BEGIN; CREATE TABLE public.prepared (); PREPARE TRANSACTION 'p'});
for my $command ('DROP DATABASE app', 'ALTER DATABASE app RENAME TO renamed', 'CREATE DATABASE copy TEMPLATE app')
{
	ok(long_handler(), 'a handler runs');
	$postgres->start("SET statement_timeout = '300ms'; $command");
	$postgres->finish;
	like($postgres->{err}, qr/canceling statement due to statement timeout/, "$command: cancelled while it waits for other sessions");
}
$postgres->query('RESET statement_timeout');
ok(long_handler(), '... the workers are back each time');
$postgres->start('DROP DATABASE app');
$postgres->finish;
like($postgres->{err}, qr/is being accessed by other users.*1 other session\S* and 1 prepared transaction/s, 'DROP DATABASE says who is in the way');
ok(long_handler(), '... and the workers are back');
$other->query(q{ROLLBACK PREPARED 'p'});
$other->quit;

# ---- two at a time ----
my $second = session($node, 'postgres');
$postgres->start('CREATE DATABASE copy1 TEMPLATE app');
$second->start('CREATE DATABASE copy2 TEMPLATE app');
$postgres->finish;
$second->finish;
is($postgres->{err} . $second->{err}, '', 'two copies at a time');
is($node->safe_psql('app', q{SELECT attempts FROM djactor.message WHERE actor_key = 'long'}), 0, 'a message that was cut off so often was never charged');

# ---- no connections allowed ----
my $offset = -s $node->logfile;
my $refused = qr/FATAL:.*not currently accepting connections/;
$postgres->query(q{ALTER DATABASE app ALLOW_CONNECTIONS false});
# one that was just getting in is seen a moment later only
ok(wait_until('no session', sub { $postgres->query(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'app'}) eq '0' }),
	'ALLOW_CONNECTIONS false: no worker is left');
sleep 2;
# a worker and a scout may have been on their way
cmp_ok(log_count($node, $refused, $offset), '<=', 2, '... nor does one try to get in');
$postgres->query('DROP DATABASE app');
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$_->quit for $postgres, $second;
$node->stop;
done_testing();
