# Contract 24: the worker's session is logged in as the type's owner, whatever ALTER ROLE and ALTER
# DATABASE say; and an owner that may not log in any more has no worker: its mail waits.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('rights', 'djactor.poll_interval' => '2s');

new_app($node, 'app');
$node->safe_psql('app', q{
	CREATE ROLE boss LOGIN;
	CREATE ROLE second LOGIN;
	GRANT boss TO app;
	CREATE SCHEMA elsewhere AUTHORIZATION app;
	CREATE TABLE elsewhere.marker AS SELECT 'elsewhere'::text AS place;
	CREATE TABLE public.marker AS SELECT 'public'::text AS place;
	GRANT SELECT ON elsewhere.marker, public.marker TO app;
	CREATE TABLE public.fired (id int);
	CREATE TABLE public.target (id int);
	GRANT INSERT ON public.target TO app;
	CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
		'BEGIN INSERT INTO public.fired VALUES (NEW.id); RETURN NEW; END';
	CREATE TRIGGER fire AFTER INSERT ON public.target FOR EACH ROW EXECUTE FUNCTION public.fire();
	CREATE FUNCTION public.look(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.target VALUES ((message->>'n')::int);
		RETURN jsonb_build_object('n', message->'n', 'current', current_user, 'session', session_user,
			'isolation', current_setting('transaction_isolation'),
			'read_only', current_setting('transaction_read_only'),
			'replication_role', current_setting('session_replication_role'),
			'place', (SELECT place FROM marker));
	END $$;
	SELECT djactor.define_actor_type('t.look', 'public.look', owner => 'app', settings => '{"search_path": null}')});

my $n = 0;
sub look
{
	my ($name) = @_;
	my $state;

	$n++;
	# a new session: that is when such settings count
	$node->safe_psql('app', 'SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL');
	$node->safe_psql('app', qq{SELECT djactor.send('t.look', 'k', '{"n": $n}')});
	ok(wait_drained($node, 'app'), "$name: handled");
	$state = $node->safe_psql('app', q{
		SELECT state->>'n', state->>'current', state->>'session', state->>'isolation', state->>'read_only',
			state->>'replication_role' FROM djactor.actor WHERE actor_type = 't.look'});
	is($state, "$n|app|app|read committed|off|origin", "$name: the session is as it should be");
	is($node->safe_psql('app', "SELECT count(*) FROM fired WHERE id = $n"), 1, "$name: triggers fired");
}

sub place { return $node->safe_psql('app', q{SELECT state->>'place' FROM djactor.actor WHERE actor_type = 't.look'}) }

look('no settings');
is(place(), 'public', 'the role\'s own search_path: public');
for my $whose ('ROLE app', 'DATABASE app', 'ROLE app IN DATABASE app')
{
	for my $setting (q{role = 'boss'}, q{default_transaction_isolation = 'serializable'},
		q{default_transaction_read_only = on}, q{session_replication_role = 'replica'},
		q{default_transaction_deferrable = on}, q{statement_timeout = '1ms'}, q{idle_in_transaction_session_timeout = '1ms'},
		q{enable_indexscan = off})
	{
		$node->safe_psql('postgres', "ALTER $whose SET $setting");
	}
	# A read-only default would keep our own sessions from writing, too
	$ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c session_replication_role=origin'
	  . ' -c statement_timeout=0 -c role=none -c default_transaction_isolation=read\ committed';
	look("ALTER $whose SET ...");
	$node->safe_psql('postgres', "ALTER $whose SET search_path = elsewhere, public");
	look("ALTER $whose SET search_path");
	is(place(), 'elsewhere', 'search_path is the role\'s, for the handler');
	$node->safe_psql('postgres', "ALTER $whose RESET ALL");
	delete $ENV{PGOPTIONS};
}
look('settings taken back');

#
# An owner that may not log in any more, and again
#
$node->safe_psql('app', q{
	GRANT USAGE ON SCHEMA public TO second;
	GRANT SELECT ON public.marker, djactor.message TO second;
	GRANT INSERT ON public.target TO second;
	SELECT djactor.define_actor_type('t.second', 'public.look', owner => 'second')});

sub second
{
	return grep { $_->[2] eq 'second' } workers($node, 'app');
}

my @states = (
	[ 'NOLOGIN', 'ALTER ROLE second NOLOGIN', 'ALTER ROLE second LOGIN' ],
	[ 'REVOKE CONNECT', 'REVOKE CONNECT ON DATABASE app FROM PUBLIC', 'GRANT CONNECT ON DATABASE app TO PUBLIC' ],
	[ 'REVOKE EXECUTE', 'REVOKE EXECUTE ON FUNCTION public.look FROM PUBLIC', 'GRANT EXECUTE ON FUNCTION public.look TO PUBLIC' ],
	[ 'DROP ROLE', undef, undef ]);
for my $state (@states)
{
	my ($name, $away, $back) = @$state;

	$n++;
	$node->safe_psql('app', qq{SELECT djactor.send('t.second', 'k', '{"n": $n}')});
	ok(wait_drained($node, 'app'), "$name: handled before");
	ok(scalar(second()), "$name: a worker lives");
	if ($name eq 'DROP ROLE')
	{
		$node->safe_psql('app', q{DROP OWNED BY second; DROP ROLE second});
	}
	else
	{
		$node->safe_psql('app', $away);
	}
	$n++;
	$node->safe_psql('app', qq{SELECT djactor.send('t.second', 'k', '{"n": $n}')});
	ok(wait_until('no worker', sub { !second() }), "$name: the worker ends") if $name ne 'REVOKE EXECUTE';
	sleep 2;
	is($node->safe_psql('app', q{SELECT count(*), max(attempts) FROM djactor.message}), '1|0', "$name: mail waits, no attempt is used up");
	$node->safe_psql('app', qq{SELECT post($n, 1, 3, 't.work', 3)});
	ok(wait_until('t.work is handled', sub {
		$node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $n") eq '3' }),
		"$name: another owner's mail is not concerned");
	if ($name eq 'DROP ROLE')
	{
		$node->safe_psql('app', q{
			CREATE ROLE third LOGIN;
			GRANT USAGE ON SCHEMA public TO third;
			GRANT SELECT ON public.marker, djactor.message TO third;
			GRANT INSERT ON public.target TO third;
			SELECT djactor.define_actor_type('t.second', 'public.look', owner => 'third')});
	}
	else
	{
		$node->safe_psql('app', $back);
	}
	ok(wait_drained($node, 'app'), "$name: and is handled once that is mended");
	is($node->safe_psql('app', q{SELECT state->>'n', failures FROM djactor.actor WHERE actor_type = 't.second'}), "$n|0", "$name: without a failure");
}
is($node->safe_psql('app', q{SELECT state->>'session' FROM djactor.actor WHERE actor_type = 't.second'}), 'third', 'by the new owner');
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');

$node->stop;
done_testing();
