# DjactorTest
#     What the tests of processes share.
#
# - new_server() makes a server with djactor preloaded, new_app() a database in it that
#   belongs to an ordinary role, with the ledger below.
# - A session() is a psql that stays; query() waits for the answer.
# - A start_sender() process sends in many small transactions, some of which it
#   rolls back, and goes on after any crash of the server.
# - check_ledger() compares what was committed with what was handled.
#
# The ledger.  A sender writes each message that it sends into table sent as well, in the
# same transaction: so sent is, by PostgreSQL's own promise, the list of the committed messages, also
# of those whose COMMIT was cut off before its answer came.  The handler writes each message
# that it handles into table ledger, in the transaction of its turn, and counts in the actor's
# state.  Exactly once means that the two tables agree.
#
# Every wait here is bounded.  No process is signalled that the test did not start.

package DjactorTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename;
use File::Path qw(make_path);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(new_server new_database new_app define_work start_ticking send_broken as_role session wait_until wait_drained wait_written
  start_sender stop_senders check_ledger workers worker_pids process_ids log_since log_count kill_backend has_extension
  copy_server put_file);

# How long the slowest machine may take for what should be done at once.
our $PATIENCE = $ENV{DJACTOR_PATIENCE} // 60;

# new_server($name, setting => value, ...): a running server with djactor preloaded.
# Options with a capital letter are not settings: Init => [options of init], Install => where the server's
# bin lies, if it is not the one under test.
sub new_server
{
	my ($name, %settings) = @_;
	my $init = delete $settings{Init} // [];
	my $install = delete $settings{Install};
	my $node = PostgreSQL::Test::Cluster->new($name, $install ? (install_path => $install) : ());

	$node->init(@$init);
	%settings = (
		shared_preload_libraries => 'djactor',
		restart_after_crash => 'on',
		log_statement => 'none',
		max_connections => 50,
		max_worker_processes => 16,
		%settings);
	$node->append_conf('postgresql.conf',
		join('', map { "$_ = '$settings{$_}'\n" } sort keys %settings));
	$node->start;
	return $node;
}

# new_database($node, $database, $role): a database of its own role, with the extension.
sub new_database
{
	my ($node, $database, $role) = @_;

	$role //= 'app';
	$node->safe_psql('postgres', qq{
		DO \$\$ BEGIN
			CREATE ROLE $role LOGIN;
		EXCEPTION WHEN duplicate_object THEN NULL;
		END \$\$});
	$node->safe_psql('postgres', qq{CREATE DATABASE $database OWNER $role});
	as_role($node, $database, $role, 'CREATE EXTENSION djactor');
}

# has_extension($name): could the server under test create it?
sub has_extension
{
	my ($name) = @_;

	chomp(my $share = `pg_config --sharedir`);
	return -f "$share/extension/$name.control";
}

# copy_server(): a copy of the server under test, whose files put_file() may replace. Returns the root of its
# directories, and their names below it: bindir, pkglibdir and sharedir.
sub copy_server
{
	my $root = PostgreSQL::Test::Utils::tempdir();
	my %dir;

	for my $name (qw(bindir pkglibdir sharedir))
	{
		chomp($dir{$name} = `pg_config --$name`);
	}
	_link_all($root, $dir{pkglibdir});
	_link_all($root, $dir{sharedir});
	unlink "$root$dir{sharedir}/extension";
	_link_all($root, "$dir{sharedir}/extension");
	make_path("$root$dir{bindir}");
	# real copies: a server looks for its files beside the file that it was started from
	system('cp', '-RL', "$dir{bindir}/.", "$root$dir{bindir}/") == 0 or die 'cp';
	return $root, %dir;
}

# A directory of its own with links to what is in the other one
sub _link_all
{
	my ($root, $from) = @_;

	make_path("$root$from");
	symlink $_, "$root$from/" . basename($_) or die "$_: $!" for glob "$from/*";
}

# put_file($path, $content): writes a file where a link may be; one that is in use stays as it is for who uses it.
sub put_file
{
	my ($path, $content) = @_;

	open my $out, '>:raw', "$path.new" or die "$path: $!";
	print $out $content;
	close $out;
	chmod 0755, "$path.new";
	rename "$path.new", $path or die "$path: $!";
}

# as_role($node, $database, $role, $sql): runs SQL as a role and returns the output.
sub as_role
{
	my ($node, $database, $role, $sql) = @_;

	return $node->safe_psql($database, $sql, extra_params => [ '-U', $role ]);
}

# new_app($node, $database, $role): new_database() with the ledger, the handler work() and a
# type t.work.
sub new_app
{
	my ($node, $database, $role) = @_;

	$role //= 'app';
	new_database($node, $database, $role);
	as_role($node, $database, $role, q{
		ALTER SCHEMA public OWNER TO CURRENT_USER;
		CREATE TABLE sent (sender int, seq int, actor_type text, actor_key text,
			PRIMARY KEY (sender, seq));
		CREATE TABLE ledger (serial bigserial, message bigint, sender int, seq int,
			actor_type text, actor_key text, turn int, pid int, at timestamptz);

		-- Payload: sender, seq; sleep = seconds; lock = waits for that advisory lock; fail = so many attempts fail.
		-- One actor, one turn: the lock stands until the end of the batch, and is
		-- free again before another worker may run the actor.
		CREATE FUNCTION work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		DECLARE
			m djactor.message := djactor.message();
			turn int := coalesce((state->>'turn')::int, 0) + 1;
		BEGIN
			IF NOT pg_try_advisory_xact_lock(hashtext(m.actor_type), hashtext(m.actor_key)) THEN
				RAISE LOG 'OVERLAP: two turns of % % at once', m.actor_type, m.actor_key;
			END IF;
			IF message ? 'sleep' THEN
				PERFORM pg_sleep((message->>'sleep')::float8);
			END IF;
			IF message ? 'lock' THEN
				PERFORM pg_advisory_xact_lock_shared((message->>'lock')::bigint);
			END IF;
			IF m.attempts < (message->>'fail')::int THEN
				RAISE EXCEPTION 'attempt % fails', m.attempts + 1;
			END IF;
			INSERT INTO ledger (message, sender, seq, actor_type, actor_key, turn, pid, at)
				VALUES (m.id, (message->>'sender')::int, (message->>'seq')::int,
					m.actor_type, m.actor_key, turn, pg_backend_pid(), clock_timestamp());
			RETURN jsonb_build_object('turn', turn);
		END $$;

		-- Sends n messages, round robin to so many actors of a type, and writes down that it did.
		CREATE FUNCTION post(sender int, first int, n int, type text, keys int,
				extra jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
			INSERT INTO sent SELECT $1, s, $4, 'k' || s % $5
				FROM generate_series($2, $2 + $3 - 1) s;
			INSERT INTO djactor.message (actor_type, actor_key, payload)
				SELECT $4, 'k' || s % $5, jsonb_build_object('sender', $1, 'seq', s) || $6
				FROM generate_series($2, $2 + $3 - 1) s;
		$$;
	});
	define_work($node, $database, $role, 't.work');
}

# define_work($node, $database, $role, $type, $options): a type with the handler work().
sub define_work
{
	my ($node, $database, $role, $type, $options) = @_;

	as_role($node, $database, $role, sprintf(q{
		SELECT djactor.define_actor_type('%s', 'public.work', max_attempts => 20, breaker_failures => NULL,
			backoff => '10 ms', backoff_max => '100 ms'%s)},
		$type, $options ? ", $options" : ''));
}

# start_ticking($node, $database, $role, $every): the actor k of type t.ticks has a timer, and counts its turns
# in its state.
sub start_ticking
{
	my ($node, $database, $role, $every) = @_;

	as_role($node, $database, $role, qq{
		CREATE FUNCTION ticks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			IF message ? 'set' THEN
				PERFORM djactor.set_timer('tick', every => '$every', payload => '{"tick": true}');
			END IF;
			RETURN state || jsonb_build_object('ticks', coalesce((state->>'ticks')::int, 0) + 1);
		END \$\$;
		SELECT djactor.define_actor_type('t.ticks', 'public.ticks');
		SELECT djactor.send('t.ticks', 'k', '{"set": true}')});
}

# send_broken($node, $database, $role, $n): so many messages of type t.broken, to become dead letters.
sub send_broken
{
	my ($node, $database, $role, $n) = @_;

	as_role($node, $database, $role, qq{
		CREATE FUNCTION broken(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
			\$\$ BEGIN RAISE EXCEPTION 'broken'; END \$\$;
		SELECT djactor.define_actor_type('t.broken', 'public.broken', max_attempts => 1);
		SELECT djactor.send('t.broken', 'k' || g) FROM generate_series(1, $n) g});
}

# wait_until($what, $sub [, $seconds]): calls $sub until it is true; an exception is "not yet". False,
# with a diagnosis, when the time is over.
sub wait_until
{
	my ($what, $sub, $seconds) = @_;
	my $start = time;
	my $pause = 0.01;

	$seconds //= $PATIENCE;
	while (1)
	{
		my $result = eval { $sub->() };

		return $result if $result;
		if (time - $start > $seconds)
		{
			diag("waited $seconds s in vain for: $what" . ($@ ? ": $@" : ''));
			return 0;
		}
		sleep $pause;
		$pause = 0.2 if ($pause *= 1.5) > 0.2;
	}
}

# wait_written($node, $database): until djactor.stat_history has all that was counted since the server's first start. That takes up to a
# minute, and after it the server is idle.
sub wait_written
{
	my ($node, $database) = @_;

	return wait_until("the history of $database is written", sub {
		$node->safe_psql($database, q{
			SELECT coalesce(sum(handled + failed + retried + dead + duplicates + expired + coalesced), 0) FROM djactor.stat
			EXCEPT SELECT coalesce(sum(handled + failed + retried + dead + duplicates + expired + coalesced), 0) FROM djactor.stat_history}) eq ''
	}, 2 * $PATIENCE + 60);
}

# wait_drained($node, $database [, $seconds]): until no message waits.
sub wait_drained
{
	my ($node, $database, $seconds) = @_;

	return wait_until("no message waits in $database", sub {
		$node->safe_psql($database, 'SELECT count(*) FROM djactor.message') eq '0'
	}, $seconds);
}

# workers($node, $database): live workers, as a list of [pid, state, role, resident].
sub workers
{
	my ($node, $database) = @_;

	return map { [ split /\|/ ] } split /\n/, $node->safe_psql($database,
		q{SELECT pid, state, role, resident FROM djactor.worker WHERE pid IS NOT NULL ORDER BY pid});
}

sub worker_pids
{
	return map { $_->[0] } workers(@_);
}

# process_ids($node, $backend_type): of processes as pg_stat_activity calls them.
sub process_ids
{
	my ($node, $type) = @_;

	return split /\n/, $node->safe_psql('postgres',
		qq{SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' ORDER BY 1});
}

# log_since($node, $offset): the server's log from there on; $offset may be undef.
sub log_since
{
	my ($node, $offset) = @_;

	return PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset // 0);
}

# kill_backend($node, $pid): kills a backend with SIGKILL, and waits until the server is back after that.
sub kill_backend
{
	my ($node, $pid) = @_;
	my $starts = log_count($node, qr{ready to accept connections});

	kill 'KILL', $pid;
	return wait_until('the server is back', sub { log_count($node, qr{ready to accept connections}) > $starts });
}

# log_count($node, $regexp [, $offset]): lines of the log that match.
sub log_count
{
	my ($node, $regexp, $offset) = @_;

	return scalar grep { $_ =~ $regexp } split /\n/, log_since($node, $offset);
}

#
# Senders
#

my @senders;

# start_sender($node, $database, $role, id => N, keys => N, ...): a process that sends until
# stop_senders().  Options: types => [...], pause => seconds between transactions,
# fail => one message in so many fails twice, big => transactions of up to so many messages,
# or => another server, which takes the place of the first.
sub start_sender
{
	my ($node, $database, $role, %option) = @_;
	my $base = PostgreSQL::Test::Utils::tempdir_short() . "/sender$option{id}";
	my $parent = $$;
	my $pid = fork;

	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# none of the END blocks of the test, whatever happens
		eval { send_on(connstr($database, $node, $option{or}) . " user=$role", $base, $parent, %option) };
		POSIX::_exit($@ ? 1 : 0);
	}
	push @senders, { pid => $pid, base => $base, id => $option{id}, database => $database };
}

# Of whichever of the nodes takes writes.
sub connstr
{
	my ($database, @nodes) = @_;
	my %at;

	@nodes = grep { defined } @nodes;
	return $nodes[0]->connstr($database) if @nodes == 1;
	for my $node (@nodes)
	{
		push @{ $at{host} }, $node->host;
		push @{ $at{port} }, $node->port;
	}
	return join(' ', map { "$_=" . join(',', @{ $at{$_} }) } sort keys %at) . " dbname=$database target_session_attrs=read-write";
}

sub send_on
{
	my ($connstr, $base, $parent, %option) = @_;
	my @types = @{ $option{types} // ['t.work'] };
	my $keys = $option{keys} // 20;
	my $seq = 1;

	srand($option{id});
	while (!-e "$base.stop" && getppid() == $parent)
	{
		my $script = '';
		my $out;
		my $rolled_back = '';
		my $ok;

		for (1 .. 20)
		{
			my $type = $types[ rand @types ];
			my $n = 1 + int(rand() < 0.7 ? rand 3 : rand($option{big} // 60));
			my $kind = rand;
			my $post = sub {
				my ($rows) = @_;
				my $fail = $option{fail} && rand($option{fail}) < 1 ? q{, '{"fail": 2}'} : '';
				my $call = "SELECT post($option{id}, $seq, $rows, '$type', $keys$fail);\n";

				$seq += $rows;
				return $call;
			};

			if ($kind < 0.2)
			{
				$rolled_back .= "rolled back $seq $n\n";
				$script .= "BEGIN;\n" . $post->($n) . "ROLLBACK;\n";
			}
			elsif ($kind < 0.35)
			{
				my $first = $seq;

				$script .= "BEGIN;\n" . $post->(1) . "SAVEPOINT s;\n";
				$rolled_back .= "rolled back $seq $n\n";
				$script .= $post->($n) . "ROLLBACK TO s;\n";
				my $last = $seq;
				$script .= $post->(1) . "COMMIT;\n\\echo ack $first 1\n\\echo ack $last 1\n";
			}
			else
			{
				my $first = $seq;

				$script .= "BEGIN;\n" . $post->($n) . "COMMIT;\n\\echo ack $first $n\n";
			}
			$script .= "SELECT pg_sleep($option{pause});\n" if $option{pause};
		}
		$ok = eval {
			IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $connstr ],
				'<', \$script, '>', \$out, '2>', '/dev/null', IPC::Run::timeout(120));
		};
		append_to_file("$base.acks", join('', map { "$_\n" } grep { /^ack / } split /\n/, $out // '')
			  . $rolled_back);
		sleep 0.05 unless $ok;
	}
}

# stop_senders(): and waits for their end.  Returns the rows they know to be committed, and those that
# they rolled back, as lists of [sender, first, count].
sub stop_senders
{
	my %known = (ack => [], 'rolled back' => []);

	append_to_file("$_->{base}.stop", '') for @senders;
	for my $sender (@senders)
	{
		my $done;

		wait_until("sender $sender->{id} ends",
			sub { ($done = waitpid($sender->{pid}, POSIX::WNOHANG())) != 0 }, 150)
		  or kill 'KILL', $sender->{pid};
		next unless -e "$sender->{base}.acks";
		for (split /\n/, PostgreSQL::Test::Utils::slurp_file("$sender->{base}.acks"))
		{
			push @{ $known{$1} }, [ $sender->{id}, $2, $3 ] if /^(ack|rolled back) (\d+) (\d+)$/;
		}
	}
	@senders = ();
	return \%known;
}

END
{
	# a test that died leaves no sender behind
	my $status = $?;

	kill 'KILL', map { $_->{pid} } @senders;
	$? = $status;
}

# check_ledger($node, $database, $known): six assertions; $known is what stop_senders()
# returned, undef without senders.
sub check_ledger
{
	my ($node, $database, $known) = @_;
	my %sql = (
		'every committed message was handled' =>
		  q{SELECT sender, seq FROM sent EXCEPT SELECT sender, seq FROM ledger},
		'no message was handled that was not committed' =>
		  q{SELECT sender, seq FROM ledger EXCEPT SELECT sender, seq FROM sent},
		'no message was handled twice' =>
		  q{SELECT sender, seq, count(*), array_agg(message) FROM ledger GROUP BY 1, 2 HAVING count(*) > 1},
		'state and turns of each actor count its handled messages' =>
		  q{SELECT * FROM (SELECT actor_type, actor_key, count(*), max(turn) FROM ledger GROUP BY 1, 2) l
			FULL JOIN djactor.actor a USING (actor_type, actor_key)
			WHERE (l.count = l.max AND a.turns = l.count AND (a.state->>'turn')::int = l.count) IS NOT TRUE},
		'each actor got each sender\'s messages in order' =>
		  q{SELECT * FROM (SELECT *, lag(seq) OVER (PARTITION BY actor_type, actor_key, sender ORDER BY turn) AS before
				FROM ledger) l WHERE before >= seq});

	for my $name (sort keys %sql)
	{
		is($node->safe_psql($database, "SELECT * FROM ($sql{$name}) x LIMIT 10"), '', $name);
	}
	is(log_count($node, qr/OVERLAP/), 0, 'no two turns of one actor at once');
	return unless $known;

	# What a client was told is committed is so; and what it rolled back is not.
	my $values = join ',', map { "($_->[0],$_->[1],$_->[2])" } @{ $known->{ack} };
	is($node->safe_psql($database, qq{
		SELECT count(*) FROM (VALUES $values) AS ack (sender, first, n),
			generate_series(first, first + n - 1) AS seq
		WHERE NOT EXISTS (SELECT FROM sent WHERE sent.sender = ack.sender AND sent.seq = seq.seq)}),
		0, 'every acknowledged COMMIT is durable') if $values;
	$values = join ',', map { "($_->[0],$_->[1],$_->[2])" } @{ $known->{'rolled back'} };
	is($node->safe_psql($database, qq{
		SELECT count(*) FROM (VALUES $values) AS back (sender, first, n)
		JOIN ledger ON ledger.sender = back.sender AND seq >= first AND seq < first + n}),
		0, 'no rolled-back message was handled') if $values;
}

#
# Sessions
#

# session($node, $database, $role): a psql that stays open.
sub session
{
	my ($node, $database, $role) = @_;

	return DjactorTest::Session->new(
		$node->connstr($database) . ($role ? " user=$role" : ''));
}

package DjactorTest::Session;

use Time::HiRes qw(sleep time);

sub new
{
	my ($class, $connstr) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, $class;

	$self->{timer} = IPC::Run::timer(120);
	$self->{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $connstr ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer});
	$self->query('SELECT 1');
	return $self;
}

# start($sql): sends it and does not wait.
sub start
{
	my ($self, $sql) = @_;

	$self->{out} = $self->{err} = '';
	$self->{mark} = 'DONE ' . ++$self->{n};
	# output and errors come by two pipes: each has to say that all of it is there
	$self->{in} .= "$sql;\n\\warn '$self->{mark}'\n\\echo '$self->{mark}'\n";
	$self->{timer}->start(120);
	$self->{run}->pump_nb;
}

# finished(): has what start() sent been answered?
sub finished
{
	my ($self) = @_;

	eval { $self->{run}->pump_nb };
	return $self->{out} =~ /^\Q$self->{mark}\E\n/m && $self->{err} =~ /^\Q$self->{mark}\E\n/m;
}

# finish(): waits for what start() sent; returns the output, errors are in {err}.
sub finish
{
	my ($self) = @_;

	until ($self->finished)
	{
		die "psql session: timeout" if $self->{timer}->is_expired;
		die "psql session ended: $self->{err}" unless $self->{run}->pumpable;
		eval { $self->{run}->pump; 1 } or die "psql session ended: $self->{err} $@";
	}
	s/^\Q$self->{mark}\E\n//m for $self->{out}, $self->{err};
	chomp(my $out = $self->{out});
	return $out;
}

# query($sql): the output; dies on an error.
sub query
{
	my ($self, $sql) = @_;

	$self->start($sql);
	my $out = $self->finish;
	die "$sql: $self->{err}" if $self->{err} =~ /(ERROR|FATAL)/;
	return $out;
}

sub quit
{
	my ($self) = @_;

	$self->{in} .= "\\q\n";
	eval { $self->{run}->finish };
}

1;
