# Section 2, Python: plain classes as actors. __init__ runs once, __dict__ is the state, what JSON
# would change fails the turn by the attribute's name, errors keep their traceback, and
# reload() brings a new version of a class. Only a superuser says which class.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'this server has no PL/Python' unless has_extension('plpython3u');

my $classes = PostgreSQL::Test::Utils::tempdir();
my $others = PostgreSQL::Test::Utils::tempdir();
my $node = new_server('python', 'djactor_python.path' => "$others, $classes");

# module($name, $text): a file of classes
sub module
{
	my ($name, $text) = @_;

	open my $file, '>', "$classes/$name.py" or die "$name: $!";
	print $file $text;
	close $file;
}

# define($name, $class, $options): a type with one attempt; define_error() is what the server says to it
sub define_sql
{
	my ($name, $class, $options) = @_;

	$options = ($options // '') =~ /max_attempts/ ? $options : 'max_attempts => 1' . ($options ? ", $options" : '');
	return qq{SELECT djactor.define_python_actor('$name', '$class', $options)};
}

sub define { return $node->safe_psql('app', define_sql(@_)) }

sub error_of
{
	my ($sql, @params) = @_;
	my ($status, $out, $err) = $node->psql('app', "\\set VERBOSITY verbose\n$sql", extra_params => \@params);

	return $status == 0 ? '' : $err;
}

# handle($type, $key, $payload): sends and waits until no message is left
sub handle
{
	my ($type, $key, $payload) = @_;
	my $id = $node->safe_psql('app', qq{SELECT djactor.send('$type', '$key', '$payload')});

	wait_drained($node, 'app');
	return $id;
}

sub state_of
{
	my ($type, $key) = @_;

	return $node->safe_psql('app', qq{SELECT state FROM djactor.actor WHERE actor_type = '$type' AND actor_key = '$key'});
}

# ask($type, $key, $payload): the reply
sub ask
{
	my ($type, $key, $payload) = @_;

	return $node->safe_psql('app', qq{CALL djactor.ask('$type', '$key', '$payload', '30 s')});
}

# dead($id, $column): what a dead letter says
sub dead
{
	my ($id, $column) = @_;

	return $node->safe_psql('app', "SELECT $column FROM djactor.dead_letter WHERE id = $id");
}

new_database($node, 'app', 'app');
$node->safe_psql('app', 'CREATE EXTENSION djactor_python CASCADE');

#
# The class of the design, as it stands
#
module('notifications', q{
class NotificationActor:
    def __init__(self, user_id: int):
        self.user_id = user_id
        self.messages = []
    def handle_message(self, message: dict):
        self.messages.append(message)
        return {"status": "ok", "count": len(self.messages)}
});
define('t.notification', 'notifications.NotificationActor');
handle('t.notification', '7', '{"text": "grün"}');
is(state_of('t.notification', '7'), '{"user_id": 7, "messages": [{"text": "grün"}]}', 'the first turn creates the object, its attributes are the state');
handle('t.notification', '7', '{"text": "two"}');
is(state_of('t.notification', '7'), '{"user_id": 7, "messages": [{"text": "grün"}, {"text": "two"}]}', 'the second turn finds the state');
handle('t.notification', '8', '{}');
is(state_of('t.notification', '8'), '{"user_id": 8, "messages": [{}]}', 'another key is another actor');
my $id = handle('t.notification', 'seven', '{}');
like(dead($id, 'error'), qr/^ValueError: the key 'seven' is not the int that NotificationActor.__init__ takes/, 'a key that is no int fails the message');
is(state_of('t.notification', 'seven'), '', 'and leaves no actor');
is(ask('t.notification', '7', '{}'), '{"count": 3, "status": "ok"}', 'the dict that handle_message returns is the reply');

#
# Creation and keys
#
module('keys', q{
from __future__ import annotations
import dataclasses, uuid
from uuid import UUID

class Plain:
    def __init__(self, key):
        self.key, self.kind, self.inits = key, type(key).__name__, getattr(self, "inits", 0) + 1
    def handle_message(self, message):
        self.turns = getattr(self, "turns", 0) + 1

class Number(Plain):
    def __init__(self, key: int):
        super().__init__(key)

class Id(Plain):
    def __init__(self, key: uuid.UUID):
        super().__init__(str(key))
        self.kind = type(key).__name__

class Id2(Plain):
    def __init__(self, key: UUID):
        super().__init__(str(key))
        self.kind = type(key).__name__

class NoInit:
    def handle_message(self, message):
        self.seen = message

@dataclasses.dataclass
class Data:
    key: str
    names: list[str] = dataclasses.field(default_factory=list)
    def handle_message(self, message):
        self.names.append(message["name"])
});
my $uuid = '0f9b2c9e-3d4b-4b7e-9a51-0d4f3a1c2b3d';
for my $case ([ 'Plain', '7', '"7"', 'str' ], [ 'Number', '7', '7', 'int' ], [ 'Id', $uuid, qq{"$uuid"}, 'UUID' ], [ 'Id2', $uuid, qq{"$uuid"}, 'UUID' ])
{
	my ($class, $key, $json, $kind) = @$case;

	define("t.$class", "keys.$class");
	handle("t.$class", $key, '{}') for 1 .. 3;
	is(state_of("t.$class", $key), qq({"key": $json, "kind": "$kind", "inits": 1, "turns": 3}), "$class: the key is a $kind, __init__ runs once, in three turns");
}
define('t.NoInit', 'keys.NoInit');
handle('t.NoInit', 'k', '[1]');
is(state_of('t.NoInit', 'k'), '{"seen": [1]}', 'a class without __init__ needs none');
define('t.Data', 'keys.Data');
handle('t.Data', 'k', qq({"name": "$_"})) for 'a', 'b';
is(state_of('t.Data', 'k'), '{"key": "k", "names": ["a", "b"]}', 'a dataclass will do');
define('t.initial', 'keys.Plain', q{initial_state => '{"inits": 10, "room": "x"}'});
handle('t.initial', 'k', '{}');
is(state_of('t.initial', 'k'), '{"key": "k", "kind": "str", "room": "x", "inits": 11, "turns": 1}', 'initial_state is set before __init__');
$node->safe_psql('app', q{UPDATE djactor.actor SET state = '[1]' WHERE actor_type = 't.initial'});
like(dead(handle('t.initial', 'k', '{}'), 'error'), qr/the state of a Python actor must be a JSON object, not \[1\]/, 'a state that is no object fails the turn');

#
# What JSON would change fails the turn, by name
#
module('bad', q{
import collections, datetime, decimal, enum, threading
class Bad:
    def __init__(self, key):
        self.good = [1, 2.5, "x", None, True, {"a": []}]
        self.seen = None
    def handle_message(self, message):
        self.seen = eval(message["value"], globals())
class Text(str): pass
});
define('t.bad', 'bad.Bad');
for my $case (
	[ q({1: 2}), 'seen', 'dict key 1 is an int' ],
	[ q({"a": [{None: 1}]}), q(seen['a'][0]), 'dict key None is a NoneType' ],
	[ q((1, 2)), 'seen', 'value is of type tuple' ],
	[ q([0, (1, 2)]), 'seen[1]', 'value is of type tuple' ],
	[ q(float('nan')), 'seen', 'nan is not a number that JSON knows' ],
	[ q(float('inf')), 'seen', 'inf is not a number that JSON knows' ],
	[ q(1e16), 'seen', 'float 1e+16 would come back as an int' ],
	[ q({1, 2}), 'seen', 'value is of type set' ],
	[ q(b'x'), 'seen', 'value is of type bytes' ],
	[ q(datetime.datetime.now()), 'seen', 'value is of type datetime.datetime' ],
	[ q(decimal.Decimal(1)), 'seen', 'value is of type decimal.Decimal' ],
	[ q(collections.defaultdict(int)), 'seen', 'value is of type collections.defaultdict' ],
	[ q(Text('x')), 'seen', 'value is of type bad.Text' ],
	[ q(threading.Lock()), 'seen', 'value is of type _thread.lock' ],
	[ q(chr(0)), 'seen', 'str contains a NUL character, which PostgreSQL cannot store' ],
	[ q(chr(0xd800)), 'seen', 'str contains half of a surrogate pair, which PostgreSQL cannot store' ])
{
	my ($value, $where, $why) = @$case;

	(my $payload = $value) =~ s/'/''/g;
	$payload =~ s/"/\\"/g;
	$id = handle('t.bad', 'k', qq({"value": "$payload"}));
	is(dead($id, q{sqlstate || ' ' || split_part(error, E'\n', 1)}),
		qq(22032 djactor_python.StateError: attribute "$where" of Bad: $why), "$value is refused");
}
is(state_of('t.bad', 'k'), '', 'none of these turns left anything');
like(dead($id, 'error'), qr/HINT:  State is kept as JSON/, 'the hint says what may be kept');
for my $value ('10**300', '2**63', '1e-7', '0.1', '9007199254740993', '-1.5e15')
{
	handle('t.bad', 'good', qq({"value": "$value"}));
	handle('t.bad', 'good2', qq({"value": "$value"}));
	is(state_of('t.bad', 'good'), state_of('t.bad', 'good2'), "$value is kept");
}

#
# Errors
#
module('failing', q{
import plpy, sys
from djactor_python import reject

class Failing:
    def __init__(self, key):
        self.n = 0
    def handle_message(self, message):
        self.n += 1
        return getattr(self, message["do"])()
    def raises(self):
        raise KeyError("gone")
    def chained(self):
        try:
            self.raises()
        except KeyError as error:
            raise RuntimeError("chained") from error
    def sql(self):
        plpy.execute("SELECT 1 / 0")
    def own(self):
        plpy.error("own words", detail="own detail", hint="own hint", sqlstate="P0007")
    def exits(self):
        sys.exit(3)
    def returns(self):
        return ["a", "list"]
    def unanswerable(self):
        return {"a": object()}
    def rejects(self):
        reject("not for me")
    def caught(self):
        try:
            plpy.execute("SELECT 1 / 0")
        except plpy.SPIError:
            pass
        return {"caught": True}
});
define('t.failing', 'failing.Failing');
for my $case (
	[ 'raises', '38000', qr/^KeyError: 'gone'\nDETAIL:  Traceback .*\n  File "\Q$classes\E\/failing\.py", line 10, in handle_message\n.*\n.*  File "\Q$classes\E\/failing\.py", line 12, in raises\n    raise KeyError\("gone"\)/s ],
	[ 'chained', '38000', qr/^RuntimeError: chained\n.*line 12, in raises.*direct cause.*line 17, in chained/s ],
	[ 'sql', '22012', qr/^spiexceptions\.DivisionByZero: division by zero\n.*line 19, in sql/s ],
	[ 'own', 'P0007', qr/^plpy\.Error: own words\nDETAIL:  own detail\nTraceback.*line 21, in own.*\nHINT:  own hint/s ],
	[ 'exits', '38000', qr/^SystemExit: 3\n.*line 23, in exits/s ],
	[ 'returns', '38000', qr/^TypeError: Failing\.handle_message must return a dict, which is the reply, or None; it returned a value of type list$/ ],
	[ 'unanswerable', '38000', qr/^TypeError: reply of Failing is not JSON: Object of type object is not JSON serializable$/ ])
{
	my ($do, $sqlstate, $error) = @$case;

	$id = handle('t.failing', 'k', qq({"do": "$do"}));
	is(dead($id, 'sqlstate'), $sqlstate, "$do: SQLSTATE");
	like(dead($id, 'error'), $error, "$do: the error, with the frames of the user's code");
	unlike(dead($id, 'error'), qr/djactor_python\.py/, "$do: and no others");
	like(dead($id, 'context'), qr/actor t\.failing "k", message $id/, "$do: the context names the message");
}
is(state_of('t.failing', 'k'), '', 'what a failed turn did to the object is forgotten');
handle('t.failing', 'k', '{"do": "caught"}');
is(state_of('t.failing', 'k'), '{"n": 1}', 'an error of SQL can be caught');
define('t.patient', 'failing.Failing', q{max_attempts => 3});
$id = handle('t.patient', 'k', '{"do": "rejects"}');
is(dead($id, q{concat_ws(' ', reason, sqlstate, error)}), 'rejected JA003 rejected: not for me', 'reject() rejects at once');

#
# A class that cannot be used, when it is defined and later
#
module('broken', "import no_such_module\nclass A:\n    pass\n");
module('strange', q{
class NoHandler: pass
class Slots:
    __slots__ = ("a",)
    def handle_message(self, message): pass
class Two:
    def __init__(self, key, other): pass
    def handle_message(self, message): pass
function = len
});
for my $case (
	[ 'nowhere.Class', '42883', q{ModuleNotFoundError: No module named 'nowhere'} ],
	[ 'notifications.Nobody', '42883', q{AttributeError: module 'notifications' has no attribute 'Nobody'} ],
	[ 'broken.A', '42883', q{ModuleNotFoundError: No module named 'no_such_module'} ],
	[ 'strange.NoHandler', '42883', q{AttributeError: class NoHandler has no method handle_message} ],
	[ 'strange.Slots', '42P13', q{TypeError: class Slots uses __slots__} ],
	[ 'strange.Two', '42P13', q{TypeError: Two.__init__ must take the actor's key and nothing else} ],
	[ 'strange.function', '42P13', q{TypeError: it is of type builtin_function_or_method, not a class} ],
	[ 'Class', '42P13', q{ValueError: "Class" is not of the form package.module.Class} ])
{
	my ($class, $sqlstate, $why) = @$case;

	like(error_of(define_sql('t.never', $class)), qr/ERROR:  $sqlstate: djactor: class \Q$class cannot be used: $why\E/, "$class cannot be defined");
}
like(error_of(define_sql('t.never', 'nowhere.Class')), qr/HINT:  Directories named by djactor_python.path: \Q$others, $classes\E\./, 'the hint says where was searched');
like(error_of(q{SELECT djactor.define_python_actor('t.never', NULL)}), qr/ERROR:  22004: djactor: class must not be null/, 'a class must be named');
like(error_of(define_sql('t.never', 'keys.Plain', q{retry_order => 'x'})), qr/ERROR:  22023: /, 'options are checked as by define_actor_type()');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.actor_type WHERE name = 't.never'}), 0, 'none of these left a type');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.python_actor WHERE name = 't.never'}), 0, 'or a class');

module('passing', "class A:\n    def handle_message(self, message):\n        self.n = 1\n");
define('t.passing', 'passing.A');
rename "$classes/passing.py", "$classes/passing.away" or die;
$id = handle('t.passing', 'k', '{}');
like(dead($id, 'error'), qr/^djactor: class passing\.A of actor type "t\.passing" cannot be used: ModuleNotFoundError: No module named 'passing'\nHINT:  Directories/,
	'a class that is gone fails the message');
rename "$classes/passing.away", "$classes/passing.py" or die;
$node->safe_psql('app', "SELECT djactor.redrive($id)");
wait_drained($node, 'app');
is(state_of('t.passing', 'k'), '{"n": 1}', 'and redrive() brings it back once the class is, without a fresh session');

#
# A new version
#
sub version { module('deployed', "class A:\n    def handle_message(self, message):\n        self.version = $_[0]\n") }

version(1);
define('t.deployed', 'deployed.A');
handle('t.deployed', 'k', '{}');
my ($worker) = worker_pids($node, 'app');
version(20);
handle('t.deployed', 'k', '{}');
is(state_of('t.deployed', 'k'), '{"version": 1}', 'a session keeps the class that it has loaded');
cmp_ok($node->safe_psql('app', 'SELECT djactor.reload()'), '>=', 1, 'reload() tells how many workers it has stopped');
ok(wait_until('a resident is there again', sub {
	grep { $_->[3] eq 't' && $_->[0] ne $worker } workers($node, 'app') }), 'a fresh worker is there though there is no mail');
handle('t.deployed', 'k', '{}');
is(state_of('t.deployed', 'k'), '{"version": 20}', 'with the new class');
version(300);
define('t.deployed', 'deployed.A');
handle('t.deployed', 'k', '{}');
is(state_of('t.deployed', 'k'), '{"version": 300}', 'defining again brings the new class, too');

#
# Rights
#
is(as_role($node, 'app', 'app', 'SELECT djactor.reload()'), 0, 'reload() leaves the workers of roles that one may not act for');
$node->safe_psql('app', 'CREATE ROLE stranger LOGIN');
like(error_of(define_sql('t.app', 'keys.Plain'), '-U', 'app'), qr/ERROR:  42501: permission denied for function define_python_actor/, 'the database\'s owner cannot say which class');
like(error_of(q{SET djactor_python.path = '/tmp'}, '-U', 'app'), qr/ERROR:  42501: permission denied to set parameter "djactor_python\.path"/, 'or where classes are searched');
like(error_of(q{SET djactor_python.other = 'x'}), qr/ERROR:  42602: invalid configuration parameter name/, 'there is no other setting of that prefix');
like(error_of(q{INSERT INTO djactor.python_actor VALUES ('t.app', 'keys.Plain', 'app')}, '-U', 'app'), qr/ERROR:  42501: /, 'or write the table');
like(error_of(q{SELECT djactor.define_actor_type('t.mine', 'djactor.handle_python')}, '-U', 'app'), qr/ERROR:  42501: /, 'or use the handler, at first');
define('t.app', 'keys.Plain', q{owner => 'app'});
handle('t.app', 'k', '{}');
is(state_of('t.app', 'k'), '{"key": "k", "kind": "str", "inits": 1, "turns": 1}', 'a type of an ordinary role works');
($worker) = map { $_->[0] } grep { $_->[2] eq 'app' } workers($node, 'app');
cmp_ok(as_role($node, 'app', 'app', 'SELECT djactor.reload()'), '>=', 1, 'that role may reload its own workers');
ok(wait_until('they are fresh', sub { grep { $_->[2] eq 'app' && $_->[0] ne $worker } workers($node, 'app') }), 'and they are');
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.app', 'djactor.handle_python', initial_state => '{"own": 1}', max_attempts => 1)});
handle('t.app', 'k2', '{}');
is(state_of('t.app', 'k2'), '{"key": "k2", "own": 1, "kind": "str", "inits": 1, "turns": 1}', 'it may change the options of its type');
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.mine', 'djactor.handle_python', max_attempts => 1)});
like(dead(handle('t.mine', 'k', '{}'), 'error'), qr/^djactor: actor type "t\.mine" has no Python class for its owner/, 'but a type that nobody gave a class has none');
$node->safe_psql('app', q{SELECT djactor.drop_actor_type('t.deployed', true)});
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.deployed', 'djactor.handle_python', max_attempts => 1)});
like(dead(handle('t.deployed', 'k', '{}'), 'error'), qr/^djactor: actor type "t\.deployed" has no Python class for its owner/, 'and a class given to one owner is not another\'s');
like(error_of(q{SELECT djactor.handle_python('{}', '{}')}), qr/ERROR:  55000: djactor: djactor\.handle_python\(\) is called outside a turn/, 'outside a turn the handler does nothing');

#
# What handlers may import
#
module('helpers', q{
import dataclasses, datetime, time, zoneinfo
from djactor_python import cancel_timer, current, progress, reply, send, set_timer, stop

class Asks:
    def __init__(self, key):
        self.outside = None
    def handle_message(self, message):
        if message.get("n"):
            send("t.asks", 8, {"n": message["n"] - 1, "tuple": (1,)}, priority=3)
        turn = current()
        self.turn = {name: str(value) for name, value in dataclasses.asdict(turn).items() if name not in ("sent_at", "trace_id")}
        self.recent = datetime.datetime.now(datetime.timezone.utc) - turn.sent_at < datetime.timedelta(hours=1)
        self.trace = str(turn.trace_id)

class Room:
    def __init__(self, key):
        self.fired = []
    def handle_message(self, message):
        turn = current()
        if turn.kind == "timer":
            self.fired.append([turn.meta["name"], message])
        else:
            return getattr(self, message["do"])()
    def early(self):
        reply({"early": True})
    def both(self):
        reply({"first": True})
        return {"second": True}
    def timers(self):
        set_timer("soon", datetime.timedelta(milliseconds=1), {"a": 1})
        set_timer("at", at=datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc))
        set_timer("late", 3600, every=60.5)
        set_timer("yearly", every="1 year", at=datetime.datetime(2104, 2, 29, tzinfo=datetime.timezone.utc))
        set_timer("daily", every=datetime.timedelta(days=1), time_zone=zoneinfo.ZoneInfo("Asia/Beirut"))
        set_timer("weekly", cron="0 8 * * mon", time_zone="Europe/Berlin", catch_up="skip")
        set_timer("never", 3600)
        return {"cancelled": [cancel_timer("never"), cancel_timer("never")]}
    def lasts(self):
        progress({"done": 1})
        progress({"done": [2, "ü"]})
        time.sleep(300)
    def close(self):
        stop()
        return {"closed": True}
    def naive(self):
        set_timer("x", at=datetime.datetime(2001, 1, 1))
});
define('t.asks', 'helpers.Asks');
$id = $node->safe_psql('app', q{SELECT djactor.send('t.asks', '7', '{"n": 1}', headers => '{"tenant": 1}')});
wait_drained($node, 'app');
is($node->safe_psql('app', q{
	SELECT state->'turn'->>'actor_type', state->'turn'->>'key', state->'turn'->>'turns', state->'turn'->>'kind', state->'turn'->>'headers',
		state->'turn'->>'priority', state->'turn'->>'sender_type', state->'turn'->>'sender_key', state->'turn'->>'cause_id', state->>'recent',
		state->>'trace' = (SELECT o.state->>'trace' FROM djactor.actor o WHERE o.actor_type = 't.asks' AND o.actor_key = '7')
	FROM djactor.actor WHERE actor_type = 't.asks' AND actor_key = '8'}),
	"t.asks|8|0|user|{'tenant': 1}|3|t.asks|7|$id|true|t", 'send() sends, current() tells about the turn');

define('t.room', 'helpers.Room');
is(ask('t.room', 'k', '{"do": "early"}'), '{"early": true}', 'reply() replies');
is(ask('t.room', 'k', '{"do": "both"}'), '{"first": true}', 'the first answer counts');
is(ask('t.room', 'k', '{"do": "timers"}'), '{"cancelled": [true, false]}', 'timers are set and cancelled');
$id = $node->safe_psql('app', q{SELECT djactor.send('t.room', 'lasts', '{"do": "lasts"}')});
ok(wait_until('progress', sub { $node->safe_psql('app', "SELECT djactor.progress_of($id) = '{\"done\": [2, \"ü\"]}'") eq 't' }), 'progress() is seen while the turn runs');
is($node->safe_psql('app', "SELECT djactor.cancel($id, running => true)"), 'running', 'a sleeping handler is broken off');
ok(wait_until('the turn ends', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.progress') eq '0' }), '... and what it has said is gone');
ok(wait_until('timers fire', sub { $node->safe_psql('app', q{
	SELECT jsonb_array_length(state->'fired') FROM djactor.actor WHERE actor_type = 't.room'}) eq '2' }), 'what is due fires');
is($node->safe_psql('app', q{
	SELECT string_agg(f::text, ' ' ORDER BY f::text) FROM djactor.actor, jsonb_array_elements(state->'fired') f WHERE actor_type = 't.room'}),
	'["at", {}] ["soon", {"a": 1}]', 'current() tells the name of the timer');
is($node->safe_psql('app', q{SELECT name, every, cron, time_zone, catch_up FROM djactor.timer WHERE actor_type = 't.room' ORDER BY 1}),
	"daily|1 day||Asia/Beirut|once\nlate|00:01:00.5|||once\nweekly||0 8 * * mon|Europe/Berlin|skip\nyearly|1 year|||once", 'others wait');
$id = $node->safe_psql('app', q{SELECT djactor.send('t.room', 'k', '{"do": "naive"}')});
ok(wait_until('it fails', sub { dead($id, 'id') }), 'while that timer waits, the next message is handled');
like(dead($id, 'error'), qr/^ValueError: a time must know its time zone/, 'times without a zone are refused');
is(ask('t.room', 'k', '{"do": "close"}'), '{"closed": true}', 'stop() stops');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.room'}), 0, 'and the actor is gone');

#
# In the caller's own session, and in a dump
#
is($node->safe_psql('app', q{
	BEGIN;
	SELECT djactor.send('t.notification', '9', '{}') > 0;
	SELECT djactor.drain();
	SELECT state FROM djactor.actor WHERE actor_type = 't.notification' AND actor_key = '9';
	ROLLBACK}), qq(t\n1\n{"user_id": 9, "messages": [{}]}), 'drain() runs classes, too');
is($node->safe_psql('app', q{SELECT extconfig::regclass[] FROM pg_extension WHERE extname = 'djactor_python'}), '{djactor.python_actor}', 'pg_dump carries the classes');
is($node->safe_psql('app', q{
	SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d
	WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'djactor_python') AND deptype = 'e'
		AND classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
		AND obj_description(objid, CASE classid WHEN 'pg_proc'::regclass THEN 'pg_proc' ELSE 'pg_class' END) IS NULL}), '', 'everything has a comment');
#
# Code that does not end by itself
#
module('endless', q{
import select, socket, threading, time
class Endless:
    def handle_message(self, message):
        getattr(self, message["do"])()
    def loop(self):
        while True:
            pass
    def sleep(self):
        time.sleep(1000)
    def receive(self):
        pair = socket.socketpair()
        pair[0].recv(1)
    def lock(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    def stubborn(self):
        for _ in range(2):
            try:
                time.sleep(1000)
            except Exception:
                pass
});
# the module is imported in that time, too
define('t.endless', 'endless.Endless', q{handler_timeout => '1 s'});
for my $do ('loop', 'sleep', 'receive', 'lock', 'stubborn')
{
	$id = handle('t.endless', 'k', qq({"do": "$do"}));
	like(dead($id, q{sqlstate || ' ' || error}), qr/^57014 canceling handler due to handler_timeout/, "$do: handler_timeout ends it");
}
# A function in PL/Python that has nothing to do with the module
$node->safe_psql('app', q{
	CREATE FUNCTION endless(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS $$
import json, time
if json.loads(message)['do'] == 'sleep':
    time.sleep(1000)
while True:
    pass
$$;
	SELECT djactor.define_actor_type('t.endless_function', 'endless', handler_timeout => '300 ms', max_attempts => 1, owner => 'app')});
for my $do ('loop', 'sleep')
{
	$id = handle('t.endless_function', 'k', qq({"do": "$do"}));
	like(dead($id, q{sqlstate || ' ' || error}), qr/^57014 canceling handler due to handler_timeout/, "$do in a function: handler_timeout ends it");
}
# the process that runs it, once one does
sub endless_worker
{
	return wait_until('it runs', sub { $node->safe_psql('app', q{SELECT pid FROM djactor.worker WHERE actor_type = 't.endless'}) });
}

define('t.endless', 'endless.Endless', q{handler_timeout => '0'});
for my $do ('loop', 'receive')
{
	$node->safe_psql('app', qq{SELECT djactor.send('t.endless', '$do', '{"do": "$do"}')});
	my $pid = endless_worker();
	ok($pid, "$do: runs");
	$node->safe_psql('app', q{SELECT djactor.pause('t.endless')});
	$node->safe_psql('app', qq{SELECT pg_terminate_backend($pid)});
	ok(wait_until('it is gone', sub { $node->safe_psql('app', qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid}) eq '0' }),
		"$do: pg_terminate_backend() ends it");
	$node->safe_psql('app', q{SELECT djactor.resume('t.endless')});
	ok(endless_worker(), "$do: runs again");
	$node->safe_psql('app', q{SELECT djactor.pause('t.endless')});
	$node->restart;
	ok(1, "$do: a shutdown ends it");
	is($node->safe_psql('app', q{SELECT attempts FROM djactor.message WHERE actor_type = 't.endless'}), 0, "$do: and its message is not charged");
	$node->safe_psql('app', q{SELECT djactor.drop_actor_type('t.endless', discard => true)});
	define('t.endless', 'endless.Endless', q{handler_timeout => '0'});
}

#
# A handler that is cut off leaves nothing behind for the interpreter: PL/Python compiles a function next, in the same process
#
my $compiler = new_server('compiler', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1);
new_database($compiler, 'app', 'app');
$compiler->safe_psql('app', q{
	CREATE EXTENSION plpython3u;
	CREATE FUNCTION python(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS 'return state';
	CREATE FUNCTION slow(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); RETURN state; END $$;
	CREATE FUNCTION slow_query(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS $$
plpy.execute("SELECT pg_sleep(100)")
$$;
	SELECT djactor.define_actor_type('t.' || name, name, handler_timeout => '300 ms', max_attempts => 1, owner => 'app') FROM unnest('{python,slow,slow_query}'::text[]) name;
	SELECT djactor.send('t.python', 'k')});
ok(wait_drained($compiler, 'app'), 'the interpreter runs');
my ($compiling) = worker_pids($compiler, 'app');
for my $slow ('slow', 'slow_query')
{
	$compiler->safe_psql('app', qq{SELECT djactor.send('t.$slow', 'k')});
	ok(wait_drained($compiler, 'app'), "$slow: handled");
	is($compiler->safe_psql('app', qq{SELECT sqlstate FROM djactor.dead_letter WHERE actor_type = 't.$slow'}), '57014', "$slow: handler_timeout ends it");
	$compiler->safe_psql('app', qq{
		CREATE FUNCTION after_$slow(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS 'return state';
		SELECT djactor.define_actor_type('t.after_$slow', 'after_$slow', owner => 'app');
		SELECT djactor.send('t.after_$slow', 'k')});
	ok(wait_drained($compiler, 'app'), '... and a new one in PL/Python runs');
	is(join(' ', worker_pids($compiler, 'app')), $compiling, '... in the same process');
}
$compiler->stop;

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');

$node->stop;
done_testing();
