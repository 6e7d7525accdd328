# Copies are held (contract 27).  A database that was restored from a dump, cloned, started from a
# base backup or recovered to a point in time while it has mail or timers runs nothing of it until
# djactor.resume(); nor does one whose djactor.instance has changed.  Mail that arrives by
# logical replication is put aside. An empty copy just runs, and so does a promoted standby (011_promote.pl).
#
# Mail is made to wait by a role that may not log in: its workers cannot.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('original', Init => [ allows_streaming => 'logical', has_archiving => 1 ],
	max_wal_senders => 10, shared_buffers => '16MB');

new_app($node, 'app');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');

# mail that waits in app, delayed mail too
my $sender = 0;

sub mail_waits
{
	$node->safe_psql('postgres', 'ALTER ROLE app NOLOGIN');
	$node->safe_psql('app', q{SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL});
	ok(wait_until('workers end', sub { worker_pids($node, 'app') == 0 }), 'no worker is left');
	$sender++;
	$node->safe_psql('app', qq{
		SELECT post($sender, 1, 300, 't.work', 30);
		SELECT djactor.send('t.work', 'later', '{"sender": $sender, "seq": 1001}', deliver_at => now() + '10 ms');
		INSERT INTO sent VALUES ($sender, 1001, 't.work', 'later')});
}

# what has run in a database, and who might run it
sub ran
{
	my ($where, $database) = @_;

	return $where->safe_psql($database, 'SELECT count(*) FROM ledger');
}

my $posted = 0;

# stays_held($node, $database, $why): nothing runs, whatever happens, and the log says so once
sub stays_held
{
	my ($where, $database, $why) = @_;
	my $before = ran($where, $database);

	ok(wait_until('the log says so', sub { log_count($where, qr/holds the mail of database "$database"/) }),
		"$why: it is held, and the log says so");
	like(log_since($where), qr/holds the mail of database "$database": it is a copy\n.*DETAIL:.*\n.*HINT:.*djactor\.resume\(\)/,
		"$why: ... with a hint");
	is($where->safe_psql($database, 'SELECT djactor.held()'), 't', "$why: held() knows it");
	$posted += 10;
	$where->safe_psql($database, qq{
		SELECT post(99, $posted, 10, 't.work', 30);
		NOTIFY djactor;
		SELECT djactor.resume('t.work')});
	sleep 1.5;
	is(ran($where, $database), $before, "$why: nothing runs, new mail and resume(type) change nothing");
	is($where->safe_psql($database, 'SELECT count(*) FROM djactor.message WHERE attempts > 0'), '0', "$why: ... nor fails");
}

# resumes($node, $database, $why): and all of it runs, once
sub resumes
{
	my ($where, $database, $why) = @_;

	as_role($where, $database, 'app', 'SELECT djactor.resume()');
	ok(wait_drained($where, $database), "$why: resume() lets it run");
	is($where->safe_psql($database, 'SELECT djactor.held()'), 'f', "$why: ... and it is not held any more");
	check_ledger($where, $database);
}

# ---- dump and restore ----
mail_waits();
my $folder = PostgreSQL::Test::Utils::tempdir();
my %restore = (
	psql => [ 'p', [], sub {
		run_log([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($_[1]), '-f', $_[0] ]) } ],
	'psql -1' => [ 'p', [], sub {
		run_log([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($_[1]), '-f', $_[0] ]) } ],
	inserts => [ 'p', ['--inserts'], sub {
		run_log([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($_[1]), '-f', $_[0] ]) } ],
	'inserts -j 4' => [ 'c', ['--inserts'], sub {
		run_log([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr($_[1]), $_[0] ]) } ],
	'pg_restore -j 4' => [ 'c', [], sub {
		run_log([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr($_[1]), $_[0] ]) } ]);

sub dump_app
{
	my ($name) = @_;

	for my $how (sort keys %restore)
	{
		my ($format, $options) = @{ $restore{$how} };

		command_ok([ 'pg_dump', "-F$format", @$options, '-f', dump_file($name, $how), '-d', $node->connstr('app') ],
			"$how: pg_dump");
	}
}

sub dump_file
{
	my ($name, $how) = @_;

	return "$folder/$name." . $how =~ s/\W//gr;
}

dump_app('mail');
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
ok(wait_drained($node, 'app'), 'the original goes on');
check_ledger($node, 'app');
dump_app('empty');

for my $how (sort keys %restore)
{
	my $database = 'copy_' . $how =~ s/\W//gr;

	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER app");
	ok($restore{$how}[2]->(dump_file('mail', $how), $database), "$how: restored, while workers run");
	is(ran($node, $database), '0', "$how: nothing has run during the restore");
	stays_held($node, $database, $how);
	is(log_count($node, qr/holds the mail of database "$database"/), 1, "$how: said once");
	next unless $how eq 'psql';

	my (undef, undef, $error) = $node->psql($database, 'SELECT djactor.drain()', extra_params => [ '-U', 'app' ]);
	like($error, qr/mail of database "$database" is held.*HINT:.*djactor\.resume\(\)/s, 'drain() is refused');
	(undef, undef, $error) = $node->psql($database, "\\set VERBOSITY verbose\nSELECT djactor.resume()", extra_params => [ '-U', 'stranger' ]);
	like($error, qr/42501/, 'resume() is refused to a stranger');
	$node->psql($database, "BEGIN; SELECT djactor.resume(); ROLLBACK");
	is($node->safe_psql($database, 'SELECT djactor.held()'), 't', 'a resume() that is rolled back is none');
	$node->restart;
	stays_held($node, $database, 'restarted');
}
resumes($node, 'copy_' . $_ =~ s/\W//gr, $_) for sort keys %restore;

# ---- an empty copy just runs, though mail comes at once ----
for my $how (sort keys %restore)
{
	my $database = 'empty_' . $how =~ s/\W//gr;

	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER app");
	ok($restore{$how}[2]->(dump_file('empty', $how), $database), "$how: an empty dump is restored");
	$node->safe_psql($database, q{SELECT post(50, 1, 100, 't.work', 30)});
	ok(wait_drained($node, $database), "$how: what is sent then runs");
	check_ledger($node, $database);
	$node->safe_psql('postgres', "DROP DATABASE $database");
}

# ---- rows are loaded under a worker that is awake ----
$node->safe_psql('postgres', 'CREATE DATABASE live TEMPLATE app OWNER app');
for my $round (1 .. 5)
{
	my $before;

	$node->safe_psql('live', qq{SELECT post(51, $round, 1, 't.work', 30)});
	ok(wait_drained($node, 'live'), "round $round: a worker is there");
	$before = ran($node, 'live');
	$node->safe_psql('live', "INSERT INTO sent VALUES (52, $round, 't.work', 'k1');\n"
		  . "COPY djactor.message (id, actor_type, actor_key, payload) FROM stdin;\n"
		  . (500000 + $round) . qq{\tt.work\tk1\t{"sender": 52, "seq": $round}\n\\.\n});
	ok(wait_until('held', sub { log_count($node, qr/holds the mail of database "live"/) == $round }), "round $round: it is held");
	ok(wait_until('no worker', sub { worker_pids($node, 'live') == 0 }), "round $round: the worker goes");
	is(ran($node, 'live'), $before, "round $round: nothing that was loaded has run");
	$node->safe_psql('live', 'SELECT djactor.resume()');
	ok(wait_drained($node, 'live'), "round $round: until resume()");
}
check_ledger($node, 'live');

# ---- timers alone hold a copy, too ----
$node->safe_psql('postgres', 'CREATE DATABASE timers TEMPLATE app OWNER app');
$node->safe_psql('timers', q{INSERT INTO djactor.timer (actor_type, actor_key, name, due_at, payload, message_id)
	VALUES ('t.work', 'k1', 'tick', now() + '1 day', '{}', 281474976710000)});
$node->safe_psql('postgres', 'CREATE DATABASE copy_timers OWNER app');
command_ok([ 'pg_dump', '-Fp', '-f', dump_file('timers', 'psql'), '-d', $node->connstr('timers') ], 'timers: pg_dump');
ok($restore{psql}[2]->(dump_file('timers', 'psql'), 'copy_timers'), 'timers: restored');
stays_held($node, 'copy_timers', 'timers');

# ---- clones ----
mail_waits();
$node->safe_psql('postgres', 'CREATE DATABASE clone TEMPLATE app OWNER app');
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
stays_held($node, 'clone', 'a clone with mail');
ok(wait_drained($node, 'app'), 'its original runs');
resumes($node, 'clone', 'a clone with mail');
check_ledger($node, 'app');
for my $i (1 .. 20)
{
	$node->safe_psql('postgres', 'CREATE DATABASE clone_empty TEMPLATE app OWNER app');
	$node->safe_psql('clone_empty', qq{SELECT post(60, $i, 1, 't.work', 30)});
	ok(wait_drained($node, 'clone_empty'), "clone $i of an empty database runs");
	$node->safe_psql('postgres', 'DROP DATABASE clone_empty');
}

# The same with senders who come before any scout: scouts go one at a time, and one hangs elsewhere.
new_database($node, 'block');
my $lock = session($node, 'block');
$lock->query('BEGIN; LOCK TABLE djactor.home');
$node->safe_psql('block', "COPY djactor.actor_type FROM stdin;\n\\.\n");
ok(wait_until('a scout hangs', sub {
	$node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor scout'
		AND datname = 'block' AND wait_event_type = 'Lock'}) eq '1' }), 'a scout hangs');
$node->safe_psql('postgres', 'CREATE DATABASE clone_early TEMPLATE app OWNER app');
my ($one, $two) = map { session($node, 'clone_early', 'app') } 1 .. 2;
$one->query(q{BEGIN; SELECT post(61, 1, 1, 't.work', 30)});
$two->query(q{BEGIN; SELECT post(62, 1, 1, 't.work', 30); SELECT post(62, 2, 1, 't.work', 30); COMMIT});
ok(wait_drained($node, 'clone_early'), 'sent into a clone before a scout has looked: it runs, while another sender is open');
$one->query(q{ROLLBACK; SELECT post(61, 2, 1, 't.work', 30)});
ok(wait_drained($node, 'clone_early'), '... and after that one has rolled back');
is($node->safe_psql('clone_early', 'SELECT djactor.held()'), 'f', '... it is not held');
$_->quit for $one, $two;
$lock->query('ROLLBACK');
$lock->quit;

# ---- base backup, recovery to a point in time, another instance ----
mail_waits();
$node->backup('base');
my $start = PostgreSQL::Test::Cluster->new('from_backup');
$start->init_from_backup($node, 'base');
$start->append_conf('postgresql.conf', "archive_mode = off\n");	# the archive is the original's
$start->start;
$start->safe_psql('postgres', 'ALTER ROLE app LOGIN');
stays_held($start, 'app', 'started from a base backup');
$start->restart;
stays_held($start, 'app', 'restarted');
$start->stop('immediate');
$start->start;
stays_held($start, 'app', 'started after a crash');
resumes($start, 'app', 'started from a base backup');
$start->stop('immediate');
$start->start;
$start->safe_psql('app', q{SELECT post(70, 1, 100, 't.work', 30)});
ok(wait_drained($start, 'app'), 'resumed, it stays so');
$start->stop;

$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
my $pitr = PostgreSQL::Test::Cluster->new('pitr');
$pitr->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$pitr->append_conf('postgresql.conf', "archive_mode = off\n");
$pitr->start;
$pitr->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$pitr->safe_psql('postgres', 'ALTER ROLE app LOGIN');
stays_held($pitr, 'app', 'recovered to a point in time');
resumes($pitr, 'app', 'recovered to a point in time');
$pitr->stop;

$node->append_conf('postgresql.conf', "djactor.instance = 'snapshot'\n");
$node->restart;
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
stays_held($node, 'app', 'another instance');
$node->append_conf('postgresql.conf', "djactor.instance = ''\n");
$node->restart;
ok(wait_drained($node, 'app'), 'back under its name it runs');
check_ledger($node, 'app');
$node->append_conf('postgresql.conf', "djactor.instance = 'moved'\n");
$node->restart;
$node->safe_psql('app', q{SELECT post(80, 1, 100, 't.work', 30)});
ok(wait_drained($node, 'app'), 'without mail a new name does not matter');

# ---- logical replication ----
my $subscriber = new_server('subscriber', Init => [ allows_streaming => 'logical' ]);
new_app($subscriber, 'app');
$subscriber->safe_psql('app', q{ALTER SEQUENCE djactor.message_id_seq RESTART 1000000});
mail_waits();
$node->safe_psql('app', 'CREATE PUBLICATION mail FOR TABLE djactor.message');
my $publisher = $node->connstr . ' dbname=app';
$subscriber->safe_psql('app', "CREATE SUBSCRIPTION mail CONNECTION '$publisher' PUBLICATION mail");
$subscriber->wait_for_subscription_sync($node, 'mail', 'app');
$node->safe_psql('app', q{SELECT post(90, 1, 50, 't.work', 30)});
$node->wait_for_catchup('mail');
my $arrived = $node->safe_psql('app', 'SELECT count(*) FROM djactor.message');
is($subscriber->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE aside = 'held'}), $arrived,
	'what is copied and what arrives by replication is put aside');
$subscriber->safe_psql('app', q{SELECT post(91, 1, 50, 't.work', 30); NOTIFY djactor});
ok(wait_until("the subscriber's own mail", sub { ran($subscriber, 'app') eq '50' }), "the subscriber's own mail runs");
is($subscriber->safe_psql('app', 'SELECT djactor.held()'), 'f', '... since its database is not held');
is($subscriber->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE aside = 'held'}), $arrived,
	'... and what arrived does not');
is(log_count($subscriber, qr/holds mail that arrives by replication/) > 0, 1, '... which the log says');

# What the publisher changes of it arrives as an update of the whole row
sub changed
{
	my ($column, $value, $where) = @_;

	$subscriber->safe_psql('app', "SET session_replication_role = replica; UPDATE djactor.message SET $column = $value WHERE $where");
}
changed('(attempts, aside)', "(1, NULL)", 'true');
is($subscriber->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE aside = 'held' AND attempts = 1}), $arrived,
	'... nor does what failed there since');
my ($stashed, $deferred) = split /\n/, $subscriber->safe_psql('app', 'SELECT id FROM djactor.message ORDER BY id LIMIT 2');
changed('aside', "'stashed'", "id = $stashed");
changed('aside', "'deferred'", "id = $deferred");
is($subscriber->safe_psql('app', "SELECT aside, djactor.outcome(id) FROM djactor.message WHERE id IN ($stashed, $deferred) ORDER BY id"),
	"held stashed|held\nheld deferred|held", '... nor what was put aside there');
changed('aside', 'NULL', "id = $stashed");
is($subscriber->safe_psql('app', "SELECT aside FROM djactor.message WHERE id = $stashed"), 'held', '... nor what was put back there');
$subscriber->safe_psql('app', q{NOTIFY djactor});
$subscriber->safe_psql('app', 'ALTER SUBSCRIPTION mail DISABLE');
as_role($subscriber, 'app', 'app', 'SELECT djactor.resume()');
ok(wait_until('the mail', sub { ran($subscriber, 'app') eq 50 + $arrived - 1 }), 'resume() lets it run');
is($subscriber->safe_psql('app', q{SELECT djactor.wait_idle('1 min')}), 't', '... and comes to an end');
is(ran($subscriber, 'app'), 50 + $arrived - 1, '... all of it, once');
is($subscriber->safe_psql('app', "SELECT aside FROM djactor.message WHERE id = $deferred"), 'deferred', '... but what was handled there, and waits for its reply only');
$subscriber->safe_psql('app', q{ALTER SUBSCRIPTION mail ENABLE});
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
ok(wait_drained($node, 'app'), 'the publisher runs its own');
$node->wait_for_catchup('mail');
is(ran($subscriber, 'app'), 50 + $arrived - 1, 'whose end reaches the subscriber without harm');
check_ledger($node, 'app');

$subscriber->stop;
$node->stop;
done_testing();
