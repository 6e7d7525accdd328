# Load on hosted types: senders, hosts and workers, with clients killed, sessions terminated, backends killed, types moved to hosts and back.
# Each committed message is handled once, and in order; at the end nothing is claimed or lost.
#
# A host is a psql that calls serve(): it takes mail, writes the ledger as the handler work() does, and completes, in one transaction.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('hosted_load', 'djactor.max_workers' => 3, fsync => 'off', max_connections => 60);

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('h.' || i, NULL, hosted => true, max_attempts => 20, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms')
	FROM generate_series(1, 2) i;
	-- moves between hosts and workers
	SELECT djactor.define_actor_type('h.moves', 'public.work', max_attempts => 20, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms');

	-- What take() has handed out, in one transaction; a message that is to fail fails.
	CREATE PROCEDURE serve_once(mailboxes int, messages int) LANGUAGE plpgsql AS $$
	DECLARE
		t record;
		turn int;
		verdict text[];
	BEGIN
		FOR t IN SELECT * FROM djactor.take(mailboxes, messages) LOOP
			turn := CASE WHEN t.first THEN coalesce((t.state->>'turn')::int, 0) ELSE turn END + 1;
			IF t.attempts < (t.payload->>'fail')::int THEN
				PERFORM djactor.fail(t.token, t.id, '38000', 'fails');
				CONTINUE;
			END IF;
			BEGIN
				verdict := djactor.complete(ARRAY[t.token], ARRAY[t.id], ARRAY[jsonb_build_object('turn', turn)]);
				IF verdict <> '{done}' THEN
					RAISE EXCEPTION USING errcode = 'P0099';
				END IF;
				INSERT INTO ledger (message, sender, seq, actor_type, actor_key, turn, pid, at)
					VALUES (t.id, (t.payload->>'sender')::int, (t.payload->>'seq')::int, t.actor_type, t.actor_key, turn, pg_backend_pid(), clock_timestamp());
			EXCEPTION WHEN SQLSTATE 'P0099' THEN
				NULL;
			END;
		END LOOP;
	END $$;
	-- ... with begin_turn() and end_turn(), and a commit between take and turns
	CREATE TABLE host_log (pid int, took bigint);
	CREATE PROCEDURE serve(types text[], batched boolean) LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM djactor.host_open(types, lease => '2 s');
			EXCEPTION WHEN object_not_in_prerequisite_state THEN
				NULL;	-- is a host already, or a type is not hosted now
			END;
			COMMIT;
			FOR i IN 1 .. 50 LOOP
				BEGIN
					IF batched THEN
						CALL serve_once(20, 10);
					ELSE
						CALL serve_once(1, 3);
					END IF;
				EXCEPTION WHEN object_not_in_prerequisite_state OR serialization_failure OR lock_not_available THEN
					NULL;
				END;
				COMMIT;
				PERFORM pg_sleep(0.002);
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;
});

my (@hosts, @errors);
sub serving
{
	my ($types, $batched) = @_;
	my $session = session($node, 'app', 'app');

	# one statement for ever: it would not notice that its client has been killed
	$session->query(q{SET client_connection_check_interval = '100 ms'});
	$session->start("CALL serve('{$types}', $batched)");
	return $session;
}
sub start_host
{
	my ($types, $batched) = @_;
	push @hosts, { session => serving($types, $batched), types => $types, batched => $batched };
}
# Starts anew who was killed; a CALL that has ended did so with an error.
sub restart_hosts
{
	for my $host (@hosts)
	{
		# an object of IPC::Run whose process has ended is not to be touched: its file descriptors are others' by now
		if (eval { $host->{session}->finished })
		{
			$host->{session}->quit;
			push @errors, $host->{session}{err} unless $host->{session}{err} =~ /terminating connection|server closed|connection to server was lost/;
		}
		elsif (eval { $host->{session}{run}->pumpable })
		{
			next;
		}
		eval { $host->{session} = serving($host->{types}, $host->{batched}) };
	}
}

# A host whose type list names one that is not hosted cannot be opened: one host for each group.
start_host('h.1,h.2', 'true');
start_host('h.1,h.2', 'false');
start_host('h.2', 'true');
start_host('h.moves', 'true');
start_sender($node, 'app', 'app', id => $_, types => [ 'h.1', 'h.2', 'h.moves', 't.work' ], fail => 40, keys => 10, pause => 0.01, big => 20) for 1 .. 3;

my $rounds = $ENV{DJACTOR_ROUNDS} // 40;
my ($kills, $crashes) = (0, 0);
for my $round (1 .. $rounds)
{
	sleep rand 0.3;
	my $what = rand;

	if ($what < 0.4)
	{
		# a client
		my $victim = $hosts[ rand @hosts ];

		eval { $victim->{session}{run}->signal('KILL') };
		$kills++;
	}
	elsif ($what < 0.6)
	{
		eval { $node->safe_psql('app', q{SELECT pg_terminate_backend(pid) FROM djactor.host ORDER BY random() LIMIT 1}) };
	}
	elsif ($what < 0.9)
	{
		# to hosts and back
		eval { as_role($node, 'app', 'app', q{SELECT djactor.alter_actor_type('h.moves', hosted => NOT hosted) FROM djactor.actor_type WHERE name = 'h.moves'}) };
	}
	elsif ($crashes < 2)
	{
		my $pid = eval { $node->safe_psql('app', q{SELECT pid FROM djactor.host ORDER BY random() LIMIT 1}) };

		if ($pid)
		{
			$crashes++;
			kill_backend($node, $pid);
		}
	}
	restart_hosts();
}
my $known = stop_senders();
my $done = wait_until('no mail waits', sub { restart_hosts(); $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '0' });
ok($done, "all mail is handled after $rounds blows, $kills of them to clients, $crashes to the server")
  or diag($node->safe_psql('app', q{SELECT actor_type, actor_key, count(*), max(attempts), max(crashes), min(retry_at), (SELECT hosted FROM djactor.actor_type t WHERE t.name = actor_type) FROM djactor.message GROUP BY 1, 2}),
	$node->safe_psql('app', q{SELECT * FROM djactor.host}), $node->safe_psql('app', 'SELECT * FROM djactor.dead_letter LIMIT 5'));
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
check_ledger($node, 'app', $known);
cmp_ok($node->safe_psql('app', q{SELECT count(*) FROM ledger WHERE actor_type LIKE 'h%'}), '>', 100, 'there was load');
ok(wait_until('no claim is left', sub { $node->safe_psql('app', 'SELECT coalesce(sum(claims), 0) FROM djactor.host') eq '0' }), 'no claim is left');
eval { $_->{session}{run}->signal('KILL') } for @hosts;
ok(wait_until('no host is left', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.host') eq '0' }), 'no host is left');

is("@errors", '', 'no host met an error');
is(log_count($node, qr/PANIC|TRAP:/), 0, 'nothing broke');
is(log_count($node, qr/terminated by signal/), $crashes, 'nothing crashed but what was killed');
$node->stop;
done_testing();
