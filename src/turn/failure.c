/*
 * failure.c
 *
 * The policy of contract points 12 and 13, without any doing: batch.c acts on
 * it.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "turn/failure.h"

#define DJA_CONFLICT_MS 20
#define DJA_TROUBLE_MS 250

/* ERRCODE_TO_CATEGORY leaves the class, as in errcodes.h */
#define DJA_CLASS(a, b) MAKE_SQLSTATE((a), (b), '0', '0', '0')

/*
 * Has PL/Python failed to make an exception of a query's error?  Its text is not
 * UTF-8 then, and the error has left the interpreter without a word: what runs
 * in it next may crash.
 */
static bool
dja_error_lost_python(ErrorData *edata)
{
	return edata->sqlerrcode == ERRCODE_INTERNAL_ERROR && edata->filename != NULL &&
		strcmp(edata->filename, "plpy_spi.c") == 0 &&
		edata->funcname != NULL && strcmp(edata->funcname, "PLy_spi_exception_set") == 0;
}

/*
 * Copies what matters of an error into the current memory context.
 */
DjaError *
dja_error_copy(ErrorData *edata, DjaTurnTimeoutHit limit)
{
	DjaError   *error = palloc0(sizeof(DjaError));
	StringInfoData text;

	initStringInfo(&text);
	/* whatever a turn makes of its being broken off is not its own doing */
	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		limit == DJA_TURN_TIMEOUT_LONG || limit == DJA_TURN_TIMEOUT_BLOCKED)
		error->limit = limit;
	if (error->limit == DJA_TURN_TIMEOUT_EXCEEDED)
		appendStringInfoString(&text, "canceling handler due to handler_timeout");
	else
		appendStringInfoString(&text, edata->message ? edata->message : "unknown error");
	if (edata->detail)
		appendStringInfo(&text, "\nDETAIL:  %s", edata->detail);
	if (edata->hint)
		appendStringInfo(&text, "\nHINT:  %s", edata->hint);
	error->python_lost = dja_error_lost_python(edata);
	if (error->python_lost)
		appendStringInfoString(&text, "\nHINT:  PL/Python takes the text of an error for UTF-8, which that of a query's error was not.");
	error->rejected = edata->sqlerrcode == DJA_ERRCODE_REJECTED;
	error->sqlerrcode = edata->sqlerrcode;
	/* its SQLSTATE is also that of limits that a handler exceeds */
	error->notify_full = edata->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
		edata->filename != NULL && strcmp(edata->filename, "async.c") == 0;
	error->message = text.data;

	error->context = edata->context ? pstrdup(edata->context) : NULL;
	return error;
}

/*
 * Whose fault is it?
 */
DjaBlame
dja_error_blame(DjaError *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	switch (error->limit)
	{
		case DJA_TURN_TIMEOUT_EXCEEDED:
			return DJA_BLAME_MESSAGE;
		case DJA_TURN_TIMEOUT_LONG:
			return DJA_BLAME_LONG;
		case DJA_TURN_TIMEOUT_BLOCKED:
			return DJA_BLAME_CONFLICT;
		case DJA_TURN_TIMEOUT_NONE:
			break;
	}
	if (error->notify_full)
		return DJA_BLAME_SERVER;
	switch (error->sqlerrcode)
	{
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return DJA_BLAME_CONFLICT;
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return DJA_BLAME_SERVER;
		case ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION:
			return DJA_BLAME_MATES; /* see dja_row_trouble */
		default:
			break;
	}
	if (class == DJA_CLASS('5', '3') || class == DJA_CLASS('5', '7') || class == DJA_CLASS('5', '8'))
		return DJA_BLAME_SERVER;
	if (class == DJA_CLASS('4', '2') || class == DJA_CLASS('2', '5') || class == DJA_CLASS('0', 'A') ||
		class == DJA_CLASS('5', '5') || class == DJA_CLASS('X', 'X'))
		return DJA_BLAME_MATES;
	return DJA_BLAME_MESSAGE;
}

/*
 * Is this how a function fails that was compiled before a column or a type has
 * changed?  Its variables have the old types, which values do not fit in.
 */
bool
dja_error_of_session(DjaError *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return error->limit == DJA_TURN_TIMEOUT_NONE && !error->rejected &&
		(error->sqlerrcode == ERRCODE_DATATYPE_MISMATCH || error->sqlerrcode == ERRCODE_INTERNAL_ERROR ||
		 (class == DJA_CLASS('2', '2') && error->sqlerrcode != ERRCODE_NULL_VALUE_NOT_ALLOWED) ||
		 class == DJA_CLASS('0', 'A'));
}

/*
 * When the next attempt is due after so many failed ones: exponential, with up
 * to a quarter of jitter on top so that what failed together does not come
 * back together, and capped.
 */
TimestampTz
dja_retry_time(DjaType *type, int attempts, TimestampTz now)
{
	double		wait = (double) type->backoff;

	for (int i = 1; i < attempts && wait < type->backoff_max; i++)
		wait *= 2;
	wait *= 1 + 0.25 * pg_prng_double(&pg_global_prng_state);
	return now + (int64) Min(wait, (double) type->backoff_max);
}

/*
 * When to try again what is nobody's fault and was put off so many times, this
 * one included: soon after a conflict, later when the server is in trouble, and
 * as after a failure when that did not do.
 */
TimestampTz
dja_put_off_time(DjaType *type, DjaBlame blame, int put_offs, TimestampTz now)
{
	double		ms = blame == DJA_BLAME_CONFLICT ? DJA_CONFLICT_MS : DJA_TROUBLE_MS;

	if (put_offs > DJA_QUICK_TRIES)
		return dja_retry_time(type, put_offs - DJA_QUICK_TRIES, now);
	return now + (int64) (ms * 1000 * (1 + pg_prng_double(&pg_global_prng_state)));
}
