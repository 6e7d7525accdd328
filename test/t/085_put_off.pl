# What is nobody's fault is put off, seen, and in the end charged (contract 12).
#
# - Each such attempt is counted in djactor.message and djactor.mailbox, with its error; the log says it once.
# - As long as the server serves nobody, nobody is charged, and all goes on when the trouble is over.
# - What repeats alone while others are served uses up its attempts and becomes a dead letter, or suspends its actor;
#   under retry_order => 'skip' the others go ahead meanwhile.  What does not repeat uses up none.
# - drain(on_error => 'retry') does the same.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my @states = qw(58P01 53000 57014 25006 40001 40P01);
my $node = new_server('putoff', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE trouble (in_it boolean);
	CREATE SEQUENCE calls;
	-- code: always raised; times: only so often; trouble: raised while the server is in it
	CREATE FUNCTION unlucky(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'trouble' AND EXISTS (SELECT FROM trouble) THEN
			RAISE EXCEPTION 'no luck' USING ERRCODE = '53100';
		ELSIF message ? 'times' AND nextval('calls') > (message->>'times')::int THEN
			NULL;
		ELSIF message ? 'code' THEN
			RAISE EXCEPTION 'no luck' USING ERRCODE = message->>'code';
		ELSIF message ? 'more' THEN
			PERFORM djactor.send((djactor.self()).actor_type, (djactor.self()).actor_key) FROM generate_series(1, (message->>'more')::int);
		END IF;
		RETURN state || jsonb_build_array(message);
	END $$});

sub app { return as_role($node, 'app', 'app', join("\n", @_)) }
sub type
{
	my ($name, $options) = @_;

	app(qq{SELECT djactor.define_actor_type('$name', 'public.unlucky', initial_state => '[]', breaker_failures => NULL, $options)});
}
sub bad { my ($type, $where) = @_; return app(qq{SELECT djactor.send('$type', code, jsonb_build_object('code', code)) FROM unnest('{@{[ join ',', @states ]}}'::text[]) code}) }

# lines of the log about a message
sub lines_about { my ($id, $what) = @_; return log_count($node, qr/LOG:.*message $id $what/) }

#
# The server is in trouble, for everybody
#
type('t.all', q{max_attempts => 1, backoff => '10 ms', backoff_max => '100 ms'});
app(q{INSERT INTO trouble VALUES (true)});
my @ids = split /\n/, app(q{SELECT djactor.send('t.all', 'k' || g, '{"trouble": true}') FROM generate_series(1, 40) g});
ok(wait_until('tries', sub { app(q{SELECT min(put_offs) >= 5 FROM djactor.message HAVING count(*) = 40}) eq 't' }),
	'the server is in trouble: all messages have been put off again and again');
is(app(q{SELECT DISTINCT attempts, last_error FROM djactor.message}), '0|no luck', '... none was charged, and each shows why');
is(app(q{SELECT count(*) FROM djactor.mailbox WHERE put_offs >= 5 AND last_error = 'no luck'}), 40, '... as its mailbox does');
is(join(' ', grep { lines_about($_, 'is put off: no luck') != 1 } @ids), '', '... the log says it once of each');
app('DELETE FROM trouble');
ok(wait_drained($node, 'app'), 'the trouble is over: all is handled');
is(app(q{SELECT count(*), sum(turns), sum(failures) FROM djactor.actor WHERE actor_type = 't.all'}), '40|40|0', '... once, and no attempt was used up');
is(app(q{SELECT count(*) FROM djactor.dead_letter}), 0, '... nothing was given up');

#
# It is this message: others are served
#
start_ticking($node, 'app', 'app', '20 ms');
ok(wait_until('ticks', sub { (app(q{SELECT state->>'ticks' FROM djactor.actor WHERE actor_type = 't.ticks'}) || 0) > 10 }), 'others are served');
type('t.shown', q{max_attempts => 2, backoff => '1 h', backoff_max => '1 h'});
bad('t.shown');
ok(wait_until('tries', sub { app(q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.shown' AND attempts + put_offs = 4}) eq @states }),
	'what repeats alone is tried again three times, and then as seldom as what has failed');
is(app(q{SELECT string_agg(actor_key, ' ' ORDER BY id) FROM djactor.message WHERE actor_type = 't.shown' AND attempts = 1}), '58P01 53000 57014 25006',
	'... an error of the server that others do not meet counts as a failed attempt');
is(app(q{SELECT DISTINCT put_offs + attempts, last_error FROM djactor.message WHERE actor_type = 't.shown'}), '4|no luck', '... the message shows it');
is(app(q{SELECT count(*) FROM djactor.mailbox JOIN djactor.message USING (actor_type, actor_key, put_offs, last_error) WHERE actor_type = 't.shown'}), scalar @states, '... its mailbox, too');
@ids = split /\n/, app(q{SELECT id FROM djactor.message WHERE actor_type = 't.shown'});
is(join(' ', grep { lines_about($_, 'is put off: no luck') != 1 } @ids), '', '... the log says it once of each');
@ids = split /\n/, app(q{SELECT id FROM djactor.message WHERE actor_type = 't.shown' AND attempts = 1});
is(join(' ', grep { lines_about($_, qr/failed \(attempt 1 of 2\): no luck/) != 1 } @ids), '', '... and that it has failed then');

type('t.dead', q{max_attempts => 2, backoff => '10 ms', backoff_max => '20 ms'});
bad('t.dead');
app(qq{SELECT djactor.send('t.dead', '$states[0]', '"after"')});
ok(wait_until('dead letters', sub { app(q{SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 't.dead'}) eq @states }),
	'in the end it is a dead letter');
is(app(q{SELECT string_agg(sqlstate, ' ' ORDER BY id), min(attempts), max(attempts), min(reason) FROM djactor.dead_letter WHERE actor_type = 't.dead'}),
	"@states|2|2|failed", '... with its SQLSTATE, after its attempts');
ok(wait_until('after', sub { app(qq{SELECT state FROM djactor.actor WHERE actor_type = 't.dead' AND actor_key = '$states[0]'}) eq '["after"]' }), '... the actor goes on');

# many of them do not look like the server's trouble either
type('t.many', q{max_attempts => 2, backoff => '1 h'});
app(q{SELECT djactor.send('t.many', 'k' || g, '{"code": "58P01"}') FROM generate_series(1, 20) g});
ok(wait_until('tries', sub { app(q{SELECT min(attempts + put_offs) = 4 FROM djactor.message WHERE actor_type = 't.many'}) eq 't' }), 'twenty at a time');
is(app(q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.many' AND attempts = 1}), 20, '... count as failed as well, while others are served');
app(q{SELECT djactor.drop_actor_type('t.many', discard => true)});

# another server is down, for longer than any number of tries
type('t.node', q{max_attempts => 1, backoff => '10 ms', backoff_max => '20 ms'});
app(q{SELECT djactor.send('t.node', code, jsonb_build_object('code', code)) FROM unnest('{08001,08006}'::text[]) code; SELECT djactor.send('t.node', '08001', '"after"')});
app(q{SELECT setval('calls', 1, false); SELECT djactor.send('t.node', 'back', '{"code": "08000", "times": 20}')});
ok(wait_until('tries', sub { app(q{SELECT min(put_offs) >= 20 FROM djactor.message WHERE actor_type = 't.node' AND payload <> '"after"' HAVING count(*) = 2}) eq 't' }),
	'what cannot reach another server is tried again and again');
is(app(q{SELECT DISTINCT attempts FROM djactor.message WHERE actor_type = 't.node'}), '0', '... and never charged, while others are served');
ok(wait_until('back', sub { app(q{SELECT turns, failures FROM djactor.actor WHERE actor_type = 't.node' AND actor_key = 'back'}) eq '1|0' }), '... handled once the other server is back');
is(app(q{SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 't.node'}), 0, '... not given up');
app(q{SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = 't.node' AND payload <> '"after"'});
ok(wait_until('after', sub { app(q{SELECT state FROM djactor.actor WHERE actor_type = 't.node' AND actor_key = '08001'}) eq '["after"]' }), '... and when it is cancelled, the actor goes on');
app(q{SELECT djactor.drop_actor_type('t.node', discard => true); SELECT setval('calls', 1, false)});

# it goes by
type('t.passes', q{max_attempts => 1, backoff => '10 ms', backoff_max => '20 ms'});
app(q{SELECT djactor.send('t.passes', 'k', '{"code": "40001", "times": 3}')});
ok(wait_until('handled', sub { app(q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.passes'}) eq '1' }), 'what passes after three times is handled');
is(app(q{SELECT turns, failures FROM djactor.actor WHERE actor_type = 't.passes'}), '1|0', '... and has used up no attempt');

# the others go ahead, or the actor is suspended
type('t.skip', q{max_attempts => 1, backoff => '10 ms', backoff_max => '20 ms', retry_order => 'skip'});
app(q{BEGIN; SELECT djactor.send('t.skip', 'k', '{"code": "58P01"}'); SELECT djactor.send('t.skip', 'k', '"after"'); COMMIT});
ok(wait_until('after', sub { app(q{SELECT state FROM djactor.actor WHERE actor_type = 't.skip'}) eq '["after"]' }), q{retry_order => 'skip': the next message is handled});
ok(wait_until('a dead letter', sub { app(q{SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 't.skip'}) eq '1' }), '... and this one given up in the end');
type('t.suspend', q{max_attempts => 1, backoff => '10 ms', backoff_max => '20 ms', on_exhausted => 'suspend'});
app(q{SELECT djactor.send('t.suspend', 'k', '{"code": "53000"}'), djactor.send('t.suspend', 'k', '"after"')});
ok(wait_until('suspended', sub { app(q{SELECT status, last_error FROM djactor.actor WHERE actor_type = 't.suspend'}) eq 'suspended|no luck' }), q{on_exhausted => 'suspend': the actor is});
is(app(q{SELECT attempts, put_offs, last_error FROM djactor.message WHERE actor_type = 't.suspend' ORDER BY id LIMIT 1}), '1|3|no luck', '... its message waits');

# what an actor sends to itself, beyond its own limit
type('t.self', q{max_attempts => 1, backoff => '10 ms', backoff_max => '20 ms', mailbox_limit => 3});
app(q{SELECT djactor.pause('t.self'); SELECT djactor.send('t.self', 'k', '{"more": 3}'), djactor.send('t.self', 'k', '"after"'); SELECT djactor.resume('t.self')});
ok(wait_until('a dead letter', sub { app(q{SELECT sqlstate FROM djactor.dead_letter WHERE actor_type = 't.self'}) eq '53400' }), 'who sends itself more than its mailbox holds is given up');
ok(wait_until('after', sub { app(q{SELECT state FROM djactor.actor WHERE actor_type = 't.self'}) eq '["after"]' }), '... the actor goes on');

# in the caller's transaction
type('t.drained', q{max_attempts => 2, backoff => '1 s'});
is(app(q{
	BEGIN;
	SELECT djactor.pause('t.ticks'), djactor.send('t.drained', 'k', '{"code": "58P01"}'), djactor.send('t.drained', 'k', '"after"');
	SELECT 'now', djactor.drain(on_error => 'retry');
	SELECT 'seen', put_offs, attempts, last_error FROM djactor.message WHERE actor_type = 't.drained' ORDER BY id LIMIT 1;
	SELECT 'later', djactor.drain(until => djactor.now() + interval '10 min', on_error => 'retry');
	SELECT 'dead', sqlstate, attempts FROM djactor.dead_letter WHERE actor_type = 't.drained';
	SELECT 'state', state FROM djactor.actor WHERE actor_type = 't.drained';
	COMMIT}) =~ s/^\|.*\n//r, qq{now|0\nseen|1|0|no luck\nlater|1\ndead|58P01|2\nstate|["after"]}, 'drain() puts off and gives up likewise');
$node->stop;
done_testing();
