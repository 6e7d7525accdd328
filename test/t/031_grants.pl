# The sets of GRANTs in docs/sql.md, exactly as they stand there: sender, reader and operator may do what they are
# for, and nothing beyond; the owner of types may define them. It is the database's owner, no superuser, who gives them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $page = PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/../../docs/sql.md");
my ($rights) = $page =~ /^## Rights\n(.*?)^## /ms;
my ($grants) = $rights =~ /^```sql\n(.*?)^```/ms;
my $node = new_server('grants', 'djactor.poll_interval' => '1h');

# The SQLSTATE of the error that a role gets.
sub psql_as
{
	my ($role, $statement) = @_;
	my (undef, undef, $stderr) = $node->psql('app', $statement, extra_params => [ '-U', $role, '-v', 'VERBOSITY=sqlstate' ]);

	return $stderr =~ /ERROR:\s+(\w+)/ ? $1 : "no error $stderr";
}

ok($grants, 'docs/sql.md has the GRANTs');
$node->safe_psql('postgres', 'CREATE ROLE dba LOGIN CREATEROLE');
new_database($node, 'app', 'dba');
as_role($node, 'app', 'dba', "CREATE ROLE $_ LOGIN") for qw(app sender reader operator);
$node->safe_psql('app', 'ALTER SCHEMA public OWNER TO app');
is(psql_as('app', q{SELECT djactor.define_actor_type('app.type', 'no_such_function')}), '42501', 'app without grants: defines no type');
for my $role (qw(sender reader operator))
{
	is(psql_as($role, $_), '42501', "$role without grants: $_")
	  for q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('app.type', 'k')}, q{SELECT djactor.send('app.type', 'k')},
	  'SELECT max(id) FROM djactor.message', 'SELECT count(*) FROM djactor.actor_type';
}
my ($status, undef, $stderr) = $node->psql('app', $grants, extra_params => [ '-U', 'dba' ]);
is("$status $stderr", '0 ', 'the database\'s owner gives the rights');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION public.handle(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'fail' THEN
			RAISE 'no';
		END IF;
		RETURN ('{"handled": true}', '"the reply"')::djactor.result;
	END $$;
	SELECT djactor.define_actor_type('app.type', 'public.handle', max_attempts => 1, journal => '1 h')});
as_role($node, 'app', 'dba', q{
	SELECT djactor.send('app.type', 'first'); SELECT djactor.send('app.type', 'fails', '{"fail": 1}');
	SELECT djactor.send('app.type', 'fails again', '{"fail": 1}');
	SELECT djactor.send('app.type', 'waits', deliver_at => now() + interval '1 h')});
my %session = map { $_ => session($node, 'app', $_) } qw(sender reader operator dba);
ok($session{dba}->query(q{SELECT djactor.wait_idle('1 min')}) eq 't', 'there is something to see');
my ($dead, $other_dead) = split /\n/, $session{dba}->query('SELECT id FROM djactor.dead_letter ORDER BY id');
my $waits = $session{dba}->query('SELECT id FROM djactor.message');
$_->query("\\set VERBOSITY sqlstate\nSELECT 1") for values %session;

sub outcome
{
	my ($role, $statement) = @_;

	$session{$role}->start($statement);
	my $out = $session{$role}->finish;
	return $session{$role}->{err} =~ /ERROR:\s+(\w+)/ ? $1 : $out;
}

# What each set is for, and whether it is allowed; %d stands for ids.
my $send = q{INSERT INTO djactor.message (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at, trace_id, idempotency_key, wants_reply)
	VALUES ('app.type', 'k', '{}', '{}', 1, now(), now() + interval '1 h', gen_random_uuid(), NULL, true)};
my @may = (
	# statement, sender, reader, operator
	[ "$send RETURNING id > 0", 1, 0, 0 ],
	[ "COPY djactor.message (actor_type, actor_key) FROM STDIN;\napp.type\tcopied\n\\.\nSELECT 1", 1, 0, 0 ],
	[ q{SELECT djactor.send('app.type', 'k', '{}', 1, now(), now() + interval '1 h', 'key', '{}', true) > 0}, 1, 0, 0 ],
	[ q{CALL djactor.ask('app.type', 'k', '{}', '1 min')}, 1, 0, 0 ],
	[ q{SELECT djactor.wait_reply((SELECT message_id FROM djactor.reply LIMIT 1))}, 1, 1, 1 ],
	[ q{SELECT count(*) FROM djactor.wait_replies((SELECT array_agg(message_id) FROM djactor.reply))}, 1, 1, 1 ],
	[ 'SELECT count(*) > 0 FROM djactor.reply', 1, 1, 1 ],
	[ 'SELECT max(id) > 0 FROM djactor.message', 1, 1, 1 ],
	(map { [ "SELECT count(*) >= 0 FROM (SELECT * FROM djactor.$_) x", 0, 1, 1 ] }
		qw(actor_type actor message mailbox dead_letter timer watch idempotency journal)),
	[ "SELECT djactor.outcome($dead)", 0, 1, 1 ],
	[ 'SELECT count(*) > 0 FROM djactor.trace((SELECT trace_id FROM djactor.journal LIMIT 1))', 0, 1, 1 ],
	[ 'SELECT count(*) >= 0 FROM djactor.worker', 0, 0, 1 ],
	[ 'SELECT count(*) >= 0 FROM djactor.host', 0, 0, 1 ],
	[ 'SELECT count(*) > 0 FROM djactor.stat', 0, 0, 1 ],
	[ q{UPDATE djactor.actor SET state = '{"repaired": true}' WHERE actor_key = 'first' RETURNING state}, 0, 0, 1 ],
	[ 'UPDATE djactor.actor SET turns = 0', 0, 0, 0 ],
	[ 'UPDATE djactor.message SET attempts = 0', 0, 0, 0 ],
	[ 'DELETE FROM djactor.message', 0, 0, 0 ],
	[ q{INSERT INTO djactor.message (actor_type, actor_key, kind) VALUES ('app.type', 'k', 'timer')}, 0, 0, 0 ],
	[ "SELECT djactor.redrive($dead)", 0, 0, 1 ],
	[ "SELECT djactor.discard($other_dead)", 0, 0, 1 ],
	[ 'DELETE FROM djactor.dead_letter', 0, 0, 1 ],
	[ 'DELETE FROM djactor.journal', 0, 0, 1 ],
	[ 'DELETE FROM djactor.reply', 0, 0, 1 ],
	[ q{SELECT djactor.pause('app.type')}, 0, 0, 1 ],
	[ q{SELECT djactor.resume('app.type')}, 0, 0, 1 ],
	[ q{SELECT djactor.pause('app.type', 'first')}, 0, 0, 1 ],
	[ q{SELECT djactor.resume('app.type', 'first')}, 0, 0, 1 ],
	[ "SELECT djactor.cancel($waits)", 0, 0, 1 ],
	[ q{SELECT djactor.stop_actor('app.type', 'first')}, 0, 0, 1 ],
	[ q{SELECT djactor.erase('app.type', 'first')}, 0, 0, 1 ],
	[ q{SELECT djactor.define_actor_type('app.type', 'public.handle')}, 0, 0, 1 ],
	[ q{SELECT djactor.define_actor_type('x', 'public.handle', owner => 'postgres')}, 0, 0, 0 ],
	[ 'SELECT djactor.resume()', 0, 0, 0 ],
	[ 'TRUNCATE djactor.dead_letter', 0, 0, 0 ],
	[ q{SELECT djactor.drop_actor_type('app.type', true)}, 0, 0, 1 ]);
my @roles = qw(sender reader operator);

for my $case (@may)
{
	my ($statement, @allowed) = @$case;

	for my $i (0 .. 2)
	{
		my $is = outcome($roles[$i], $statement);
		(my $name = $statement) =~ s/\s+/ /g;

		$allowed[$i] ? unlike($is, qr/^[0-9A-Z]{5}$/, "$roles[$i]: allowed: $name") :
		  is($is, '42501', "$roles[$i]: refused: $name");
	}
}

# Strangers are shut out of the schema: the database's owner is not, and lets in whom he wants
$node->safe_psql('app', 'REVOKE USAGE ON SCHEMA djactor FROM PUBLIC');
is(outcome($_, q{SELECT djactor.send('app.type', 'k') > 0}), '42501', "$_: shut out") for 'sender', 'operator';
is(outcome('dba', q{SELECT count(*) >= 0 FROM djactor.message}), 't', 'dba: not shut out');
is(outcome('dba', q{GRANT USAGE ON SCHEMA djactor TO sender}), '', 'dba: lets the sender in');
unlike(outcome('sender', q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('dropped', 'k')}), qr/^42501$/, 'sender: is in again');
$_->quit for values %session;
$node->stop;
done_testing();
