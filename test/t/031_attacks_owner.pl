# Contract 24: what is done to the owner of a type while its worker lives counts from the next batch on. (NOLOGIN, REVOKE CONNECT,
# REVOKE EXECUTE, DROP ROLE and ALTER ROLE SET: 009_rights.)
#
# - Who may connect by membership only, and loses it, has no worker any more; its mail waits, and costs no attempt.
# - No session outlives what its role was at login: a former superuser's worker cannot become one again.
# - A role that is dropped, or shut out, while its handler runs: the turn is all there or not at all, nothing crashes,
#   and nobody else is concerned.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('owner', 'djactor.poll_interval' => '1h');

new_app($node, 'app', 'app');
$node->safe_psql('app', q{
	CREATE ROLE connectors;
	CREATE ROLE member LOGIN IN ROLE connectors;
	CREATE ROLE boss LOGIN SUPERUSER;
	CREATE ROLE leaver LOGIN;
	REVOKE CONNECT ON DATABASE app FROM PUBLIC;
	GRANT CONNECT ON DATABASE app TO connectors, leaver, boss;
	CREATE TABLE public.done (key text, role name, superuser text);
	GRANT INSERT ON public.done TO PUBLIC;
	GRANT USAGE ON SCHEMA public TO PUBLIC;
	CREATE FUNCTION public.run(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(coalesce((message->>'sleep')::float8, 0));
		IF message ? 'do' THEN
			EXECUTE message->>'do';
		END IF;
		INSERT INTO public.done VALUES ((djactor.self()).actor_key, current_user, current_setting('is_superuser'));
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.' || r, 'public.run', owner => r::regrole, max_attempts => 1)
	FROM unnest('{member, boss, leaver}'::text[]) r});
my $session = session($node, 'app');

sub send_to
{
	my ($type, $key, $payload) = @_;

	return $session->query(sprintf q{SELECT djactor.send('%s', '%s', '%s')}, $type, $key, $payload // '{}');
}

sub done
{
	my ($key) = @_;

	return $session->query("SELECT role || ' ' || superuser FROM done WHERE key = '$key'");
}

sub handled
{
	my ($type) = @_;

	return $session->query("SELECT djactor.wait_idle('1 min', '$type')") eq 't';
}

sub worker_of
{
	my ($role) = @_;

	return $session->query("SELECT pid FROM djactor.worker WHERE role = (SELECT oid FROM pg_roles WHERE rolname = '$role')");
}

# Others are served meanwhile, which also shows that time has passed.
my $posted = 0;
sub others_are_served
{
	$session->query(sprintf q{SELECT post(1, %d, 3, 't.work', 3)}, $posted * 3 + 1);
	ok(handled('t.work') && $session->query('SELECT count(*) FROM ledger') == 3 * ++$posted, "... others' mail is handled");
}

# ---- membership ----
send_to('t.member', 'before');
ok(handled('t.member'), 'a role that may connect as a member of another: handled');
is(done('before'), 'member off', '... as that role');
$session->query('REVOKE connectors FROM member');
send_to('t.member', 'without');
ok(wait_until('the worker ends', sub { worker_of('member') eq '' }), 'the membership is revoked: its worker ends');
others_are_served();
is(done('without'), '', '... its mail waits');
is($session->query(q{SELECT attempts FROM djactor.message WHERE actor_type = 't.member'}), '0', '... and no attempt is used up');
like(log_since($node), qr/FATAL:.*may not log in any more/, '... the log says why');
$session->query('GRANT connectors TO member');
ok(handled('t.member'), 'granted again: handled');
is(done('without'), 'member off', '... as that role');

# ---- superuser ----
my $rob = q{SET SESSION AUTHORIZATION postgres; ALTER ROLE member SUPERUSER};
send_to('t.boss', 'as superuser');
ok(handled('t.boss') && done('as superuser') eq 'boss on', 'handlers of a superuser run as a superuser');
my $pid = worker_of('boss');
$session->query('ALTER ROLE boss NOSUPERUSER');
send_to('t.boss', 'robbery', qq({"do": "$rob"}));
ok(handled('t.boss'), 'ALTER ROLE NOSUPERUSER: its handlers run on');
is($session->query(q{SELECT sqlstate FROM djactor.dead_letter WHERE actor_key = 'robbery'}), '42501', '... and cannot become a superuser again');
isnt(worker_of('boss'), $pid, '... since it is a new session');
send_to('t.boss', 'robbed');
ok(handled('t.boss') && done('robbed') eq 'boss off', '... without the rights of the former');
is($session->query(q{SELECT count(*) FROM pg_roles WHERE rolname = 'member' AND rolsuper}), 0, '... nor has it made others one');
$session->query('ALTER ROLE member SUPERUSER');
send_to('t.member', 'promoted');
ok(handled('t.member') && done('promoted') eq 'member on', 'ALTER ROLE SUPERUSER: likewise');
$session->query('ALTER ROLE member NOSUPERUSER');
$session->query('ALTER ROLE member RENAME TO renamed');
send_to('t.member', 'renamed');
ok(handled('t.member') && done('renamed') eq 'renamed off', 'ALTER ROLE RENAME: its mail is handled under the new name');

# ---- while its handler runs ----
sub busy
{
	my ($type, $key) = @_;

	send_to($type, $key, '{"sleep": 1}');
	wait_until('its handler runs', sub { $session->query("SELECT count(*) FROM djactor.worker WHERE actor_type = '$type'") });
}
busy('t.leaver', 'shut out');
$session->query('ALTER ROLE leaver NOLOGIN');
send_to('t.leaver', 'later');
ok(wait_until('the worker ends', sub { worker_of('leaver') eq '' }), 'NOLOGIN while its handler runs: the worker ends afterwards');
is(done('shut out'), 'leaver off', '... with the turn that had begun');
is(done('later'), '', '... and without another');
$session->query('ALTER ROLE leaver LOGIN');
ok(handled('t.leaver') && done('later') eq 'leaver off', 'LOGIN again: handled');
busy('t.leaver', 'dropped');
$session->query('DROP OWNED BY leaver; DROP ROLE leaver');
send_to('t.leaver', 'orphan');
ok(wait_until('the worker ends', sub { $session->query(q{SELECT count(*) FROM pg_stat_activity WHERE query = 'djactor: t.leaver' AND state = 'active'}) == 0 }),
	'DROP ROLE while its handler runs: the worker ends');
others_are_served();
is($session->query(q{SELECT count(*) FROM done WHERE key = 'dropped'}) + $session->query(q{SELECT count(*) FROM djactor.message WHERE actor_key = 'dropped'})
	+ $session->query(q{SELECT count(*) FROM djactor.dead_letter WHERE actor_key = 'dropped'}), 1,
	'... the turn is done, or its message is still to be handled: one of both');
is($session->query(q{SELECT attempts FROM djactor.message WHERE actor_key = 'orphan'}), '0', '... mail for its type waits, and is not charged');
$session->query(q{SELECT djactor.define_actor_type('t.leaver', 'public.run', owner => 'renamed')});
ok(handled('t.leaver') && done('orphan') eq 'renamed off', '... until another role owns the type');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$session->quit;
$node->stop;
done_testing();
