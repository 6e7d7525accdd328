# Upgrades.  Extension and library change at two moments, with mail waiting, senders at work and workers running:
#
# - ALTER EXTENSION UPDATE waits for the batches under way, and lets no other begin meanwhile.
# - An extension that is newer than the loaded library stands still, and so does one that is older: a line in the log with
#   a hint, a clear error for who sends, nothing handled. The other databases of the server go on.
# - When the two fit again all goes on, in old sessions too, and the ledger agrees.
# - An update that fails, is rolled back or is cut off by a crash leaves all as it was.
#
# The next version exists here only: a script that adds little, and the library with another version written over its own.
# The server is a copy of the one under test, with files of this test's own.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my ($root, %dir) = copy_server();
my $library = slurp_file("$dir{pkglibdir}/djactor.so");
my $control = slurp_file("$dir{sharedir}/extension/djactor.control");
# of the same length in the library
my ($this) = $control =~ /^default_version = '([^']*)'/m or die 'no version';
my $next = $this =~ s/.$/$& eq '9' ? 0 : $& + 1/er;

# installs the files of a version
sub install_library
{
	my ($version) = @_;

	put_file("$root$dir{pkglibdir}/djactor.so", $library =~ s/djactor serves \Q$this\E\0/djactor serves $version\0/r);
}

sub install_script
{
	put_file("$root$dir{sharedir}/extension/djactor.control", $control =~ s/default_version = '[^']*'/default_version = '$next'/r);
	put_file("$root$dir{sharedir}/extension/djactor--$this--$next.sql", q{
		CREATE FUNCTION djactor.news() RETURNS text LANGUAGE sql AS $$ SELECT 'are good'::pg_catalog.text $$;
	});
}

is(scalar(() = $library =~ /djactor serves \Q$this\E\0/g), 1, 'the library says once which version it serves');

my $node = new_server('upgrade', Install => dirname("$root$dir{bindir}"), 'djactor.max_workers' => 4);
my %stands = (
	newer => qr/djactor stands still in database "(\w+)": the extension has version \Q$next\E, the loaded library serves \Q$this\E\n.*HINT:  Restart the server/,
	older => qr/djactor stands still in database "(\w+)": the extension has version \Q$this\E, the loaded library serves \Q$next\E\n.*HINT:  Use ALTER EXTENSION djactor UPDATE/);

for my $database ('app', 'late')
{
	new_app($node, $database);
	define_work($node, $database, 'app', 't.paused');
	as_role($node, $database, 'app', q{
		CREATE TABLE bed (awake bool);
		INSERT INTO bed VALUES (false);
		CREATE FUNCTION nap(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			WHILE NOT (SELECT awake FROM public.bed) LOOP
				PERFORM pg_sleep(0.05);
			END LOOP;
			RETURN public.work(state, message);
		END $$;
		CREATE FUNCTION broken(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'broken'; END $$;
		CREATE FUNCTION ticks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			IF message ? 'set' THEN
				PERFORM djactor.set_timer('tick', '1 s', '{"sender": 4, "seq": 2}');
			END IF;
			RETURN public.work(state, message);
		END $$;
		SELECT djactor.define_actor_type('t.nap', 'public.nap', handler_timeout => '0');
		SELECT djactor.define_actor_type('t.broken', 'public.broken', max_attempts => 1);
		SELECT djactor.define_actor_type('t.ticks', 'public.ticks');
		SELECT djactor.send('t.broken', 'k')});
	ok(wait_until("$database: a dead letter", sub { $node->safe_psql($database, 'SELECT count(*) FROM djactor.dead_letter') == 1 }),
		"$database: a message is given up");
	as_role($node, $database, 'app', q{
		SELECT djactor.pause('t.paused');
		SELECT post(2, 1, 200, 't.paused', 20);
		SELECT djactor.send('t.work', 'later', '{"sender": 3, "seq": 1}', deliver_at => clock_timestamp() + '1 s');
		SELECT djactor.send('t.ticks', 'k', '{"sender": 4, "seq": 1, "set": true}');
		INSERT INTO sent VALUES (3, 1, 't.work', 'later'), (4, 1, 't.ticks', 'k'), (4, 2, 't.ticks', 'k')});
}

# what the server says of a database; a list, without it
sub stands_still
{
	my ($which, $database, $offset) = @_;

	return scalar grep { $_ eq $database } log_since($node, $offset) =~ /$stands{$which}/g;
}

sub handled { return $node->safe_psql($_[0], 'SELECT count(*) FROM ledger') }

my %refused = (
	newer => qr/extension djactor \Q$next\E is newer than the loaded library, which serves \Q$this\E\nHINT:  Restart the server/,
	older => qr/extension djactor \Q$this\E is older than the loaded library, which serves \Q$next\E\nHINT:  Use ALTER EXTENSION djactor UPDATE/);

# all_still($which, $database, @sessions): refuses mail, in old sessions and new ones, and handles none
sub all_still
{
	my ($which, $database, @sessions) = @_;
	my $before;

	ok(wait_until('no worker', sub { worker_pids_of($database) eq '0' }), "$database, $which: no worker is left");
	$before = handled($database);
	for my $session (@sessions, session($node, $database, 'app'))
	{
		for my $sql (q{SELECT post(9, 1, 1, 't.work', 1)}, q{SELECT djactor.pause('t.work')}, q{SELECT djactor.drain()})
		{
			$session->start($sql);
			$session->finish;
			like($session->{err}, $refused{$which}, "$database, $which: $sql is refused, with a hint");
		}
	}
	sleep 1.2;
	is(handled($database), $before, "$database, $which: nothing is handled");
}

# The view djactor.worker may not answer now.
sub worker_pids_of
{
	my ($database) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor worker' AND datname = '$database'");
}

#
# No update after all
#
install_script();
for my $how ('fails', 'is rolled back', 'is cut off by a crash')
{
	my $session = session($node, 'late', 'app');
	# this loop's own: what was sent for later and timers come when they come
	my $own = sub { $node->safe_psql('late', 'SELECT count(*) FROM ledger WHERE sender = 20') };
	my $before = $own->();
	my $offset = -s $node->logfile;

	put_file("$root$dir{sharedir}/extension/djactor--$this--half.sql", 'CREATE TABLE djactor.half (n int); SELECT 1 / 0;') if $how eq 'fails';
	$session->start('BEGIN; ALTER EXTENSION djactor UPDATE' . ($how eq 'fails' ? q{ TO 'half'} : ''));
	$session->finish;
	like($session->{err}, $how eq 'fails' ? qr/division by zero/ : qr/^$/, "an update that $how");
	# it keeps no batch from running but for its end
	$node->safe_psql('late', q{SELECT post(20, coalesce(max(seq), 0) + 1, 20, 't.work', 5) FROM sent WHERE sender = 20});
	if ($how =~ /crash/)
	{
		kill 'KILL', $session->query('SELECT pg_backend_pid()');
		ok(wait_until('a restart', sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset)
			&& $node->safe_psql('late', 'SELECT 1') }), '... the server starts anew');
	}
	else
	{
		$session->query('ROLLBACK');
	}
	$session->quit;
	ok(wait_until('mail', sub { $own->() == $before + 20 }), '... leaves its database as it was: mail is handled');
	is($node->safe_psql('late', q{SELECT extversion, to_regclass('djactor.half') IS NULL FROM pg_extension WHERE extname = 'djactor'}), "$this|t", '... by the same version');
	is(log_count($node, qr/stands still in database/, $offset), 0, '... and nobody complains');
}

#
# The script comes first
#
my $old = session($node, 'app', 'app');
$old->query(q{SELECT post(8, 1, 1, 't.work', 1)});
$node->safe_psql('app', q{SELECT post(7, 1, 1, 't.nap', 1)});
ok(wait_until('a handler naps', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.worker WHERE actor_type = 't.nap'}) == 1 }),
	'a batch is under way');
start_sender($node, 'app', 'app', id => 10 + $_, fail => 50, pause => 0.01) for 1 .. 2;
ok(wait_until('load', sub { handled('app') > 50 }), 'there is load');

$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
my (undef, undef, $error) = $node->psql('app', "SET lock_timeout = '30s'; ALTER EXTENSION djactor UPDATE", extra_params => [ '-U', 'stranger' ]);
like($error, qr/must be owner of extension djactor/, 'who may not update it does not wait');

my $update = session($node, 'app', 'app');
my $offset = -s $node->logfile;
my $begin = time;
$update->start('ALTER EXTENSION djactor UPDATE');
ok(wait_until('it waits', sub { $node->safe_psql('app', q{
	SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
		AND classid = 'pg_extension'::regclass}) == 1 }), 'the update waits for the end of the batch');
$node->safe_psql('app', 'UPDATE bed SET awake = true');
$update->finish;
is($update->{err}, '', '... and is done then');
is($node->safe_psql('app', q{SELECT extversion FROM pg_extension WHERE extname = 'djactor'}), $next, 'the extension has the new version');
is($node->safe_psql('app', 'SELECT djactor.news()'), 'are good', 'what the script brought is there');
ok(wait_until('a line in the log', sub { stands_still('newer', 'app', $offset) }), 'the log says that it stands still, and why');
is($node->safe_psql('app', q{SELECT count(*) FROM ledger WHERE sender = 7}), 1, 'the batch under way was committed');
all_still('newer', 'app', $old, $update);
is(log_count($node, qr/a batch of djactor is tried again|could not record|PANIC|TRAP:/), 0, 'no batch was torn');
$node->safe_psql('late', q{SELECT post(1, 1, 20, 't.work', 5)});
ok(wait_until('the other database', sub { handled('late') >= 20 }), 'a database with the extension of before goes on');
cmp_ok(stands_still('newer', 'app', $offset), '<=', 2 + (time - $begin) / 10, 'it says so each ten seconds at the most');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), '>=', 200, 'mail waits');

# the old library is loaded by a restart, too
$node->restart;
ok(wait_until('a line in the log', sub { stands_still('newer', 'app', $offset) }), 'restarted with the old library it stands still');
all_still('newer', 'app');

#
# The library comes
#
install_library($next);
$node->safe_psql('late', q{
	SELECT djactor.pause('t.work');
	SELECT post(1, 21, 100, 't.work', 10);
	SELECT djactor.resume('t.paused')});
$offset = -s $node->logfile;
$node->restart;
ok(wait_until('mail flows', sub { $node->safe_psql('app', q{
		SELECT count(*) FROM djactor.message WHERE actor_type <> 't.paused' AND (payload->>'sender')::int < 10}) eq '0' }),
	'with the new library what waited is handled');
my $known = stop_senders();
$node->safe_psql('app', q{SELECT djactor.resume('t.paused')});
ok(wait_drained($node, 'app'), 'all mail is handled in the end');
ok(wait_until('the timer', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 4') eq '2' }), 'a timer fires');
is(stands_still('newer', 'app', $offset) + stands_still('older', 'app', $offset), 0, 'nobody complains of this database');
check_ledger($node, 'app', $known);
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter}), 1, 'the dead letter is there');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM sent'), '>', 300, 'there was load');

#
# The other database is behind now
#
ok(wait_until('a line in the log', sub { stands_still('older', 'late', $offset) }), 'an extension that is behind stands still');
$old = session($node, 'late', 'app');
all_still('older', 'late', $old);
as_role($node, 'late', 'app', 'ALTER EXTENSION djactor UPDATE');
$old->query(q{SELECT post(8, 1, 10, 't.work', 5)});
pass('updated, it takes mail again, in sessions that were refused before');
$node->safe_psql('late', q{SELECT djactor.resume('t.work'); SELECT djactor.resume('t.paused')});
ok(wait_drained($node, 'late'), '... and its workers come, without a restart');
ok(wait_until('the timer', sub { $node->safe_psql('late', 'SELECT count(*) FROM ledger WHERE sender = 4') eq '2' }), 'a timer fires');
check_ledger($node, 'late');

new_app($node, 'new');
is($node->safe_psql('new', q{SELECT extversion FROM pg_extension WHERE extname = 'djactor'}), $next, 'a new database gets the new version');
$node->safe_psql('new', q{SELECT post(1, 1, 50, 't.work', 5)});
ok(wait_drained($node, 'new'), '... and serves it');
check_ledger($node, 'new');

$node->stop;
done_testing();
