# Databases whose encoding is not UTF8. PL/Python takes the texts of queries and errors for UTF-8: elsewhere an error's text
# that is not ASCII got away through the interpreter, and the next turn in that session crashed the server.
#
# - Python actors are refused there, when they are defined, and when they came with a dump; SQL_ASCII has them,
#   since it keeps what it is given.
# - A handler in PL/Python of one's own may meet it: its session ends before anything else runs in it.
# - What an exception says comes through, whatever characters it is made of, with class, traceback and SQLSTATE.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $classes = PostgreSQL::Test::Utils::tempdir();
my $node = new_server('encodings', 'djactor_python.path' => $classes, fsync => 'off', 'djactor.poll_interval' => '1h');

open my $file, '>', "$classes/words.py" or die $!;
print $file q{
import plpy
from djactor_python import reject, reply, send

class Odd(Exception):
    detail, hint, sqlstate = ["a", "list"], 5, 404
    def __str__(self):
        return 5

class Text(Exception):
    detail, hint, sqlstate = "detail \ud800", "hint \0\u20ac", "P0007"

class Actor:
    def __init__(self, key):
        self.done = []
    def handle_message(self, message):
        answer = getattr(self, message["do"])(message)
        self.done.append(message["do"])
        return answer
    def rejects(self, message):
        reject("nicht f\u00fcr 5 \u20ac")
    def rejects_half(self, message):
        reject("half \ud800 and \0nothing")
    def raises(self, message):
        raise ValueError("5 \u20ac")
    def odd(self, message):
        raise Odd
    def text(self, message):
        raise Text("half \ud800")
    def sends_half(self, message):
        send("t.words", "other", {"a": "\ud800"})
    def replies_half(self, message):
        reply("\ud800")
    def plan(self, message):
        plpy.prepare("SELECT CAST($1 AS pg_catalog.int4)", ["text"]).execute(["\u00fc"])
    def foreign_error(self, message):
        plpy.execute("DO $x$ BEGIN RAISE EXCEPTION '%', chr(252); END $x$")
    def echo(self, message):
        return {"said": message["say"]}
};
close $file;

# database($name, $encoding): one with djactor_python
sub database
{
	my ($name, $encoding) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	$node->safe_psql($name, 'CREATE EXTENSION djactor_python CASCADE');
}

sub define_error
{
	my ($database) = @_;
	my ($status, $out, $err) = $node->psql($database,
		q{\set VERBOSITY verbose
		SELECT djactor.define_python_actor('t.words', 'words.Actor', max_attempts => 1)});

	return $err;
}

# handle($database, $payload, $key, $type): the dead letter that a message becomes, if it does
sub handle
{
	my ($database, $payload, $key, $type) = @_;

	$key //= "'k'";
	$type //= 't.words';
	my $id = $node->safe_psql($database, qq{SELECT djactor.send('$type', $key, $payload)});

	wait_drained($node, $database);
	return $node->safe_psql($database, qq{SET client_encoding = 'SQL_ASCII';
		SELECT concat_ws(' ', reason, sqlstate, error) FROM djactor.dead_letter WHERE id = $id});
}

my $crash = qr/terminated by signal|crash of another server process/;

#
# Encodings that are refused
#
for my $encoding ('LATIN1', 'EUC_JP')
{
	my $db = lc $encoding;

	database($db, $encoding);
	like(define_error($db), qr/ERROR:  0A000: djactor: Python actors cannot run in a database whose encoding is $encoding\n(.*\n)*HINT:  Use a database whose encoding is UTF8/,
		"$encoding: a Python actor cannot be defined");
	is($node->safe_psql($db, 'SELECT count(*) FROM djactor.actor_type'), 0, '... and is not');

	# as pg_restore does, of a dump of another database
	$node->safe_psql($db, q{
		SELECT djactor.define_actor_type('t.words', 'djactor.handle_python', max_attempts => 1);
		INSERT INTO djactor.python_actor VALUES ('t.words', 'words.Actor', current_user::regrole) ON CONFLICT DO NOTHING});
	for my $do ('rejects', 'raises', 'plan', 'echo')
	{
		like(handle($db, qq('{"do": "$do", "say": "x"}')), qr/^failed 0A000 djactor: Python actors cannot run in a database whose encoding is $encoding/,
			"$encoding: $do: one that came with a dump fails");
	}

	# PL/Python by itself
	$node->safe_psql($db, q{
		CREATE FUNCTION public.plan(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS $$
			if 'fail' in message:
				plpy.prepare("SELECT CAST($1 AS pg_catalog.int4)", ["text"]).execute(["\u00fc"])
			if 'raise' in message:
				raise ValueError("no \u20ac")
			return '{"done": true}'
		$$;
		CREATE FUNCTION public.caller(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT public.plan(state, message)';
		SELECT djactor.define_actor_type('t.plan', 'public.plan', max_attempts => 1);
		SELECT djactor.define_actor_type('t.caller', 'public.caller', max_attempts => 1)});
	for my $type ('t.plan', 't.caller')
	{
		for my $try (1, 2)
		{
			my $offset = -s $node->logfile;

			like(handle($db, q('{"fail": true}'), "'k'", $type), qr/^failed XX000 could not convert SPI error to Python exception\nHINT:  PL\/Python takes the text of an error for UTF-8/,
				"$encoding: $type: an error's text that PL/Python cannot take");
			handle($db, q('{}'), "'good$_'", $type) for 1 .. 3;
			like(handle($db, q('{"raise": true}'), "'k'", $type), qr/^failed 22P05 /, '... and one that the encoding lacks');
			is($node->safe_psql($db, qq{SELECT count(*) FROM djactor.actor WHERE actor_type = '$type' AND state = '{"done": true}'}), 3,
				'... the next turns find another session');
			is(log_count($node, $crash, $offset), 0, '... and nothing crashes');
		}
	}
}

#
# SQL_ASCII keeps UTF-8, and other bytes
#
database('sql_ascii', 'SQL_ASCII');
database('utf8', 'UTF8');
for my $db ('sql_ascii', 'utf8')
{
	is(define_error($db), '', "$db: a Python actor can be defined");
	for my $case (
		[ 'rejects', qr/^rejected JA003 rejected: nicht f\xc3\xbcr 5 \xe2\x82\xac$/ ],
		[ 'rejects_half', qr/^rejected JA003 rejected: half \\ud800 and nothing$/ ],
		[ 'raises', qr/^failed 38000 ValueError: 5 \xe2\x82\xac\nDETAIL:  Traceback.*in raises/s ],
		[ 'odd', qr/^failed 38000 words\.Odd: <exception str\(\) failed>\nDETAIL:  Traceback.*in odd/s ],
		[ 'text', qr/^failed P0007 words\.Text: half \\ud800\nDETAIL:  detail \\ud800\nTraceback.*in text.*\nHINT:  hint \xe2\x82\xac$/s ],
		[ 'sends_half', qr/^failed 38000 ValueError: payload is not JSON: str contains half of a surrogate pair.*in sends_half/s ],
		[ 'replies_half', qr/^failed 38000 ValueError: reply is not JSON: str contains half of a surrogate pair.*in replies_half/s ],
		[ 'plan', qr/^failed 22P02 spiexceptions\.InvalidTextRepresentation: .*"\xc3\xbc"\nDETAIL:  Traceback.*in plan/s ])
	{
		my ($do, $like) = @$case;

		like(handle($db, qq('{"do": "$do"}')), $like, "$db: $do");
	}
	is($node->safe_psql($db, qq{CALL djactor.ask('t.words', 'k', '{"do": "echo", "say": "5 \xe2\x82\xac"}', '30 s')}), qq({"said": "5 \xe2\x82\xac"}),
		"$db: a reply comes through");
}
my $offset = -s $node->logfile;
like(handle('sql_ascii', q('{"do": "echo"}'), q(E'm\xfcller')), qr/^failed 22021 .*invalid byte sequence for encoding "UTF8": 0xfc/, 'sql_ascii: a key that is not UTF-8 fails the message');
like(handle('sql_ascii', q(E'{"do": "echo", "say": "\xfc"}')), qr/^failed 22021 .*invalid byte sequence for encoding "UTF8": 0xfc/, '... and so does a payload');
for my $try (1, 2)
{
	like(handle('sql_ascii', q('{"do": "foreign_error"}')), qr/^failed XX000 could not convert SPI error to Python exception\nHINT:/, '... and a failed query whose error is not');
	like(handle('sql_ascii', q('{"do": "rejects"}')), qr/^rejected JA003/, '... the next turn finds another session');
}
is(log_count($node, $crash, $offset), 0, '... and nothing crashes');

$node->stop;
done_testing();
