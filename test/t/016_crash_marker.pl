# Contract 15: who is charged when a process dies.
#
# - A message that kills the process of its handler is charged a crash, runs alone next, and after
#   max_crashes goes to dead_letter; its batch-mates, and everybody else's mail, are handled exactly once.
# - Whoever was merely taken down with the server is not charged: another process that crashed, an
#   immediate or fast stop, a terminated worker.
# - Of several that were killed at once, or with the whole server, none is charged; each runs alone next,
#   and one that is killed then, too, is.
# - A handler that ignores its time limit for ever ends like one that crashes.
# - A charge that could not be written down yet outlives the next crash.
# - A worker that cannot make its marker works without.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('crash_marker', 'djactor.max_workers' => 2, 'djactor.batch_time' => '1s');

for my $database ('app', 'other')
{
	new_app($node, $database, $database);
	# "nap" sleeps until the test wakes it
	$node->safe_psql($database, qq{
		CREATE TABLE bed (awake bool);
		INSERT INTO bed VALUES (false);
		GRANT SELECT ON bed TO $database;
		CREATE FUNCTION nap(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			WHILE message ? 'nap' AND NOT (SELECT awake FROM public.bed) LOOP
				PERFORM pg_sleep(0.05);
			END LOOP;
			RETURN public.work(state, message);
		END \$\$;
		SELECT djactor.define_actor_type('t.nap', 'public.nap', owner => '$database')});
}
define_work($node, 'app', 'app', 't.other');
$node->safe_psql('app', q{
	-- The parent of the program is the process that calls
	CREATE FUNCTION kill_myself() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
	BEGIN
		COPY (SELECT 1) TO PROGRAM 'kill -KILL $PPID';
	END $$;
	-- "kill" kills the process so many times
	CREATE FUNCTION deadly(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		WHILE message ? 'nap' AND NOT (SELECT awake FROM public.bed) LOOP
			PERFORM pg_sleep(0.05);
		END LOOP;
		IF (djactor.message()).crashes < (message->>'kill')::int THEN
			PERFORM kill_myself();
		END IF;
		IF message ? 'fatal' THEN
			PERFORM end_myself();
		END IF;
		RETURN public.work(state, message);
	END $$;
	CREATE FUNCTION stubborn(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(3600);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	END $$;
	SELECT djactor.define_actor_type('t.deadly', 'public.deadly', owner => 'app',
		backoff => '10 ms', backoff_max => '100 ms');
	SELECT djactor.define_actor_type('t.stubborn', 'public.stubborn', owner => 'app',
		handler_timeout => '10 ms')});

my $python = has_extension('plpython3u');
$node->safe_psql('app', q{
	CREATE EXTENSION plpython3u;
	CREATE FUNCTION end_myself() RETURNS void LANGUAGE plpython3u AS $$
		import ctypes
		ctypes.CDLL(None).exit(0)
	$$}) if $python;

my $sender = 0;

sub dead_letters
{
	return $node->safe_psql('app',
		q{SELECT actor_type, actor_key, reason, crashes, attempts, sqlstate FROM djactor.dead_letter ORDER BY id});
}

sub forget
{
	for my $database ('app', 'other')
	{
		$node->safe_psql($database, 'DELETE FROM djactor.dead_letter; DELETE FROM sent; DELETE FROM ledger');
	}
}

# The postmaster reads its settings when it comes to it, and tells its children then.
sub max_crashes
{
	my ($n) = @_;

	$node->append_conf('postgresql.conf', "djactor.max_crashes = $n");
	$node->reload;
	wait_until('the setting', sub { $node->safe_psql('app', 'SHOW djactor.max_crashes') eq $n });
}

sub crash_lines { return log_count($node, qr/crashed the process that ran its handler/, @_) }
sub suspect_lines { return log_count($node, qr/was being handled in database/, @_) }
sub log_end { return -s $node->logfile }

# naps(@databases): one message that naps in each, with mates; the pids of their workers.
sub naps
{
	my @pids;

	$sender++;
	for my $database (@_)
	{
		$node->safe_psql($database, qq{
			UPDATE bed SET awake = false;
			BEGIN;
			SELECT post($sender, 1, 5, 't.nap', 5);
			SELECT post($sender, 6, 1, 't.nap', 1, '{"nap": true}');
			SELECT post($sender, 7, 5, 't.nap', 5);
			COMMIT});
	}
	return map { napping($_) } @_;
}

# The worker in whose handler the message with the nap runs, other than a former one
sub napping
{
	my ($database, $former) = @_;

	return wait_until("a handler naps in $database", sub { $node->safe_psql($database, qq{
		SELECT w.pid FROM djactor.worker w JOIN djactor.message m ON m.id = w.message_id
		JOIN pg_stat_activity a ON a.pid = w.pid AND a.datname = current_database()
		WHERE m.payload ? 'nap' AND a.wait_event = 'PgSleep' AND w.pid <> @{[ $former // 0 ]}}) });
}

sub wake_up
{
	$node->safe_psql($_, 'UPDATE bed SET awake = true') for @_;
}

# The postmaster with these of its children, as when a container is killed
sub kill_server
{
	my @pids = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my $data = $node->data_dir;

	kill 'STOP', $postmaster;
	kill 'KILL', @pids;
	$node->kill9;
	wait_until('all processes have ended', sub {
		!kill(0, $postmaster) && !grep { (readlink("/proc/$_/cwd") // '') eq $data } map { m{/proc/(\d+)} } glob '/proc/[0-9]*' });
	$node->start;
}

sub restarted
{
	my ($offset) = @_;

	return wait_until('the server restarts',
		sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset) > 0
			&& $node->safe_psql('app', 'SELECT 1') });
}

# all_handled($name [, @databases]): exactly what was sent, but for the messages that are dead.
sub all_handled
{
	my ($name, @databases) = @_;

	for my $database (@databases ? @databases : 'app')
	{
		ok(wait_drained($node, $database), "$name: no mail is left");
		is($node->safe_psql($database, q{
			SELECT sender, seq FROM sent s
			WHERE (SELECT count(*) FROM ledger l WHERE l.sender = s.sender AND l.seq = s.seq)
				+ (SELECT count(*) FROM djactor.dead_letter d
					WHERE (d.payload->>'sender')::int = s.sender AND (d.payload->>'seq')::int = s.seq) <> 1}),
			'', "$name: each message was handled once, or is dead");
	}
}

# Messages that were handled in the transaction of that one; a turn's rows tell its transaction.
sub mates
{
	my ($database, $seq) = @_;

	return $node->safe_psql($database, qq{
		SELECT count(*) FROM ledger WHERE sender = $sender AND seq <> $seq
			AND xmin = (SELECT xmin FROM ledger WHERE sender = $sender AND seq = $seq)});
}

#
# A poison message in the middle of a batch, in a database with other mail
#
my $offset = log_end();
$sender++;
$node->safe_psql('app', qq{
	BEGIN;
	SELECT post($sender, 1, 30, 't.deadly', 3);
	SELECT post($sender, 31, 1, 't.deadly', 1, '{"kill": 100}');
	SELECT post($sender, 32, 30, 't.deadly', 3);
	SELECT post($sender, 62, 50, 't.other', 10);
	COMMIT});
all_handled('poison');
is(dead_letters(), 't.deadly|k0|crashed|2|0|57P02', 'poison: it is in dead_letter after two crashes, and no mate is');
is(log_count($node, qr/was terminated by signal 9/, $offset), 2, 'poison: it took the server down twice');
is(crash_lines($offset), 2, 'poison: and nobody else was charged');
is($node->safe_psql('app', 'SELECT error FROM djactor.dead_letter'),
	'the process that ran its handler died 2 times', 'poison: the dead letter says why');
is(log_count($node, qr/OVERLAP/), 0, 'poison: no two turns of an actor at once');
is($node->safe_psql('app', q{
	SELECT * FROM (SELECT actor_type, actor_key, lag(seq) OVER (PARTITION BY actor_type, actor_key ORDER BY turn) AS before, seq
		FROM ledger) l WHERE before >= seq}), '', 'poison: the others were handled in their order');
forget();

#
# One that crashes only once
#
$offset = log_end();
$sender++;
$node->safe_psql('app', qq{
	BEGIN;
	SELECT post($sender, 1, 10, 't.deadly', 10);
	SELECT post($sender, 11, 1, 't.deadly', 1, '{"kill": 1}');
	SELECT post($sender, 12, 10, 't.deadly', 10);
	COMMIT});
all_handled('once');
is(dead_letters(), '', 'once: a message that crashed once is run again');
is(crash_lines($offset), 1, 'once: it was charged once');
is(mates('app', 11), 0, 'once: it ran in a transaction of its own');
cmp_ok($node->safe_psql('app', 'SELECT count(DISTINCT xmin::text) FROM ledger'), '<', 21, 'once: its mates shared theirs');
forget();

#
# Workers that are merely taken down
#
for my $how ('a client that is killed', 'an immediate stop', 'a fast stop', 'pg_terminate_backend()')
{
	$offset = log_end();
	my ($pid) = naps('app');
	ok($pid, "$how: a handler runs");
	if ($how =~ /client/)
	{
		my $session = session($node, 'app');

		kill 'KILL', $session->query('SELECT pg_backend_pid()');
		ok(restarted($offset), "$how: the server starts anew");
		$session->quit;
	}
	elsif ($how =~ /(immediate|fast)/)
	{
		$node->stop($1);
		$node->start;
	}
	else
	{
		$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
	}
	ok(napping('app', $pid), "$how: the message runs again");
	is($node->safe_psql('app', 'SELECT sum(crashes) FROM djactor.message'), 0, "$how: not charged");
	wake_up('app');
	all_handled($how);
	is(crash_lines($offset), 0, "$how: nobody is charged");
	is(suspect_lines($offset), 0, "$how: nor suspected");
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, "$how: no dead letters");
	forget();
}

#
# Several at once, and the whole server
#
for my $how ('two workers', 'the whole server')
{
	$offset = log_end();
	my @pids = naps('app', 'other');
	is(scalar @pids, 2, "$how: two handlers run");
	if ($how eq 'two workers')
	{
		# at once for the postmaster, who would have the second one mark itself innocent otherwise
		my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
		kill 'STOP', $postmaster;
		kill 'KILL', @pids;
		kill 'CONT', $postmaster;
		ok(restarted($offset), "$how: killed at once, the server starts anew");
	}
	else
	{
		kill_server(@pids);
	}
	is(suspect_lines($offset), 2, "$how: two messages are suspected");
	for my $database ('app', 'other')
	{
		ok(napping($database), "$how: they run again");
		is($node->safe_psql($database, 'SELECT sum(crashes) FROM djactor.message'), 0, "$how: not charged");
	}
	wake_up('app', 'other');
	all_handled($how, 'app', 'other');
	is(crash_lines($offset), 0, "$how: nobody is charged");
	is(mates($_, 6), 0, "$how: each ran in a transaction of its own") for 'app', 'other';
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, "$how: no dead letters");
	ok(wait_until('no file', sub { !glob($node->data_dir . '/pg_stat_tmp/djactor.crash.*') }), "$how: they are acquitted");
	# and that is over
	$offset = log_end();
	naps('app');
	wake_up('app');
	all_handled("after $how");
	forget();
}

# A message that always takes the whole server along
my ($pid) = naps('app');
for my $time (1 .. 3)
{
	is($node->safe_psql('app', q{SELECT crashes FROM djactor.message WHERE payload ? 'nap'}), $time == 3 ? 1 : 0,
		"a container killer is suspected, then charged: time $time");
	kill_server($pid);
	$pid = napping('app') if $time < 3;
}
all_handled('a container killer');
is(dead_letters(), 't.nap|k0|crashed|2|0|57P02', 'a container killer is given up');
forget();

#
# A handler that catches every cancel, and one that ends its process
#
$offset = log_end();
max_crashes(1);
$sender++;
$node->safe_psql('app', qq{
	INSERT INTO sent VALUES ($sender, 1, 't.stubborn', 'k');
	SELECT djactor.send('t.stubborn', 'k', '{"sender": $sender, "seq": 1}');
	SELECT post($sender, 2, 1, 't.deadly', 1, '{"fatal": true}') WHERE @{[ $python ? 'true' : 'false' ]};
	SELECT post($sender, 3, 20, 't.deadly', 20);
	SELECT post($sender, 23, 20, 't.work', 20)});
all_handled('stubborn');
my $stubborn = q{SELECT reason, crashes, error FROM djactor.dead_letter WHERE actor_type};
my $died = 'crashed|1|the process that ran its handler died 1 time';
is($node->safe_psql('app', "$stubborn = 't.stubborn'"), $died, 'stubborn: a handler that does not let go of its process is given up');
SKIP:
{
	skip 'no PL/Python here', 1 unless $python;
	is($node->safe_psql('app', "$stubborn <> 't.stubborn'"), $died, '... and one that ends it');
}
is(log_count($node, qr/was terminated by signal|reinitializing/, $offset), 0, 'stubborn: the server goes on');
forget();
max_crashes(2);

#
# A charge that is not written down outlives a crash, and does not pass over the mail of its type
#
$offset = log_end();
$sender++;
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 2');
$node->restart;
$node->safe_psql('app', qq{
	UPDATE bed SET awake = false;
	SELECT post($sender, 1, 1, 't.deadly', 1, '{"kill": 100, "nap": true}')});
ok(napping('app'), 'locked: a handler runs');
$node->safe_psql('app', q{
	BEGIN;
	SELECT 1 FROM djactor.message WHERE payload ? 'kill' FOR SHARE;
	PREPARE TRANSACTION 'lock'});
wake_up('app');
ok(wait_until('the charge cannot be written down', sub { log_count($node, qr/reinitializing/, $offset) > 0
	&& log_count($node, qr/could not|locked|concurrent/, $offset) > 0 && $node->safe_psql('app', 'SELECT 1') }),
	'locked: a charge waits for the row');
$sender++;
$node->safe_psql('app', "SELECT post($sender, 1, 5, 't.deadly', 5), post($sender, 6, 5, 't.work', 5)");
ok(wait_until('handled', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE actor_type = 't.work'") == 5 }),
	'locked: other types go on');
is($node->safe_psql('app', q{SELECT count(*) FROM ledger WHERE actor_type = 't.deadly'}), 0, 'locked: its type waits');
{
	my $session = session($node, 'app');
	my $again = log_end();

	kill 'KILL', $session->query('SELECT pg_backend_pid()');
	ok(restarted($again), 'locked: another crash');
	$session->quit;
}
$node->safe_psql('app', q{COMMIT PREPARED 'lock'});
all_handled('locked');
is(dead_letters(), 't.deadly|k0|crashed|2|0|57P02', 'locked: no charge was lost, none counted twice');
is(log_count($node, qr/terminated by signal 9/, $offset), 3, 'locked: the message crashed twice, the client once');
forget();

#
# A charge of a database that is gone
#
my ($gone) = naps('other');
$offset = log_end();
kill 'KILL', $gone;
ok(restarted($offset), 'gone: a worker is killed');
$node->safe_psql('postgres', 'DROP DATABASE other WITH (FORCE)');
$sender++;
$node->safe_psql('app', "SELECT post($sender, 1, 5, 't.work', 5)");
all_handled('gone');
$node->safe_psql('app', 'DELETE FROM sent; DELETE FROM ledger');
$node->restart;
ok(wait_until('no file', sub { !glob($node->data_dir . '/pg_stat_tmp/djactor.crash.*') }),
	'gone: nothing is left of its charge');

#
# No marker
#
$node->stop;
for my $slot (0, 1)
{
	unlink $node->data_dir . "/pg_stat_tmp/djactor.$slot";
	mkdir $node->data_dir . "/pg_stat_tmp/djactor.$slot";
}
$offset = log_end();
$node->start;
$sender++;
$node->safe_psql('app', "SELECT post($sender, 1, 20, 't.work', 20, '{\"sleep\": 0.1}')");
all_handled('no marker');
is(log_count($node, qr/could not create file "pg_stat_tmp\/djactor/, $offset), 1, 'no marker: one line says so');
for (1 .. 2)
{
	$node->safe_psql('app', 'SELECT pg_terminate_backend(pid) FROM djactor.worker');
	$sender++;
	$node->safe_psql('app', "SELECT post($sender, 1, 5, 't.work', 5)");
	all_handled('no marker');
}
is(log_count($node, qr/could not create file "pg_stat_tmp\/djactor/, $offset), 1, 'no marker: the next workers do not repeat it');

is(log_count($node, qr/PANIC|TRAP:|WARNING: .*leak|terminated by signal (?!9)/), 0, 'nothing else crashed');
$node->stop;
done_testing();
