# Fifty databases are created, used and dropped in a loop, four at a time, as Django's test runner does all day: copies
# of a template, in which mail is sent and handled, and DROP DATABASE without FORCE and without a second try. All succeed, and
# nothing of them is left: no process, no file, no place in shared memory. That is seen to the last place: afterwards as many
# types and owners find room as there are places in a fresh server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $databases = 50;
my $at_a_time = 4;
my $types = 4096;			# DJA_MAX_TYPE_QUEUES
my $owners = 512;			# DJA_MAX_POOLS
my $node = new_server('loop', 'djactor.max_workers' => 6, 'djactor.poll_interval' => '1h', fsync => 'off');
my $files = files();

# Files that a database, or a crash, would leave behind.
sub files
{
	my $data = $node->data_dir;

	return join ' ', map { s/^\Q$data\E\///r } sort(glob("$data/base/*"), glob("$data/pg_stat_tmp/*"), glob("$data/djactor*"));
}

new_app($node, 'seed');
# Each database has an owner of its own, too, so that it brings pools that nobody else uses
my $use = q{
	CREATE ROLE "owner of %1$s" LOGIN;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO "owner of %1$s";
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "owner of %1$s";
	GRANT USAGE ON SCHEMA public TO "owner of %1$s";
	GRANT SELECT ON djactor.message TO "owner of %1$s";
	SELECT djactor.define_actor_type('t.own', 'public.work', owner => '"owner of %1$s"', backoff => '10 ms');
	SELECT post(1, 1, 20, 't.work', 5), post(2, 1, 5, 't.own', 5, '{"fail": 1}');
	SELECT djactor.send('t.work', 'later', deliver_at => now() + interval '1 h');
	SELECT djactor.wait_idle('2 min') OR 1 / (random() * 0)::int > 0;
	SELECT (count(*) = 25) OR 1 / (random() * 0)::int > 0 FROM ledger};

# One of the four: a process that does so with each database whose turn it is; its exit code tells.
sub runner
{
	my ($mine) = @_;
	my $pid = fork;

	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	for my $i (grep { $_ % $at_a_time == $mine } 1 .. $databases)
	{
		my $name = "test_$i";

		# a copy of the template wants it without sessions: the server lets one copy at a time have it
		for my $step ([ 'postgres', "SELECT pg_advisory_lock(1); CREATE DATABASE $name TEMPLATE seed; SELECT pg_advisory_unlock(1)" ],
			[ $name, sprintf $use, $name ], [ 'postgres', "DROP DATABASE $name; DROP ROLE \"owner of $name\"" ])
		{
			my ($in, $sql) = @$step;

			IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($in), map { ('-c', $_) } split /;\n?\s*/, $sql ],
				'>', \my $out, '2>', \my $error, IPC::Run::timeout(300)) and next;
			append_to_file($node->basedir . '/failed', "$name: $error");
			POSIX::_exit(1);
		}
	}
	POSIX::_exit(0);
}

my $start = time;
my @runners = map { runner($_) } 0 .. $at_a_time - 1;
my @status = map { waitpid($_, 0); $? } @runners;
is("@status", join(' ', (0) x $at_a_time), "$databases databases were created, used and dropped, $at_a_time at a time")
  or diag(-e $node->basedir . '/failed' ? PostgreSQL::Test::Utils::slurp_file($node->basedir . '/failed') : 'no reason given');
note sprintf 'measured: %d databases in %.1f s', $databases, time - $start;
$node->safe_psql('postgres', 'DROP DATABASE seed');
is($node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database}), 'postgres template0 template1', 'none is left');
ok(wait_until('no process', sub { $node->safe_psql('postgres',
	q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('djactor worker', 'djactor scout') OR datname NOT IN ('postgres')}) eq '0' }),
	'no worker, scout or session is left');
is(scalar(process_ids($node, 'djactor launcher')), 1, 'the launcher is');
$node->safe_psql('postgres', 'CHECKPOINT');
# a worker's place has a marker file, as long as the server runs: djactor.0 and so on
is(files() =~ s/ pg_stat_tmp\/djactor\.[0-5]\b//gr, $files, 'no file is left');
is(log_count($node, qr/terminated by signal|PANIC|TRAP:|no room for actor type|cannot start a process|accessed by other users/), 0, 'the log has no complaint');

# ---- as many types and owners as there are places ----
new_database($node, 'filled', 'app');
$node->safe_psql('filled', q{CREATE FUNCTION public.f(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'; GRANT USAGE ON SCHEMA public TO PUBLIC});
$node->safe_psql('filled', "DO \$\$BEGIN FOR i IN 1 .. $owners LOOP EXECUTE format('CREATE ROLE o%s LOGIN', i); END LOOP; END\$\$");
my $rows = $node->basedir . '/types';
$node->safe_psql('filled', qq{COPY (SELECT 't' || i, 'public.f(jsonb,jsonb)', 'o' || 1 + i % $owners, '{}', 1, 5, '1 s', '1 h', 'hold', 'dead_letter', '1 s', 'raise', '1 min', 'app'
	FROM generate_series(1, $types) i) TO '$rows'});
my $offset = -s $node->logfile;
$node->safe_psql('filled', qq{COPY djactor.actor_type (name, handler, owner, initial_state, state_version, max_attempts, backoff, backoff_max, retry_order,
	on_exhausted, handler_timeout, on_full, breaker_window, handler_owner) FROM '$rows'});
ok(wait_until('workers', sub { $node->safe_psql('filled', 'SELECT count(*) FROM djactor.worker') }), "$types types of $owners owners are found");
ok(wait_until('the scout ends', sub { !process_ids($node, 'djactor scout') }), '... by a scout');
is(log_count($node, qr/no room for actor type/, $offset), 0, '... and there is a place for each: nothing was left of the others');
my ($status, undef, $error) = $node->psql('filled', q{SELECT djactor.define_actor_type('one too many', 'public.f')});
like($error, qr/too many actor types or owners/, 'one more is refused');
$node->stop('immediate');
done_testing();
