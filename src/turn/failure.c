/*
 * failure.c
 *
 * The policy of contract points 12 and 13.  turn_outcome.c and process/remedy.c
 * carry it out.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "turn/failure.h"

#define DJA_CONFLICT_MS 20
#define DJA_TROUBLE_MS 250

/* the class of an SQLSTATE, as ERRCODE_TO_CATEGORY returns it */
#define DJA_CLASS(a, b) MAKE_SQLSTATE((a), (b), '0', '0', '0')

/*
 * Has PL/Python failed to make an exception of a query's error?  That is so if the
 * error's text is not UTF-8.  The error has then left the interpreter without its
 * notice, and the code that it runs next may crash.
 */
static bool
dja_error_lost_python(ErrorData *edata)
{
	return edata->sqlerrcode == ERRCODE_INTERNAL_ERROR && edata->filename != NULL &&
		strcmp(edata->filename, "plpy_spi.c") == 0 &&
		edata->funcname != NULL && strcmp(edata->funcname, "PLy_spi_exception_set") == 0;
}

/*
 * Returns what matters of an error, copied into the current memory context.  limit
 * says why the turn was cancelled, if it was.
 */
DjaError *
dja_error_copy(ErrorData *edata, DjaTurnTimeoutHit limit)
{
	DjaError   *error = palloc0(sizeof(DjaError));
	StringInfoData text;

	initStringInfo(&text);
	/* any error of a turn that was cancelled for others counts as the cancel */
	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		limit == DJA_TURN_TIMEOUT_LONG || limit == DJA_TURN_TIMEOUT_BLOCKED ||
		limit == DJA_TURN_TIMEOUT_CANCELLED)
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
	/* a handler that exceeds a limit may raise the same SQLSTATE */
	error->notify_full = edata->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
		edata->filename != NULL && strcmp(edata->filename, "async.c") == 0;
	error->message = text.data;

	error->context = edata->context ? pstrdup(edata->context) : NULL;
	return error;
}

/*
 * Is an error never its message's own?  So it is if the server cannot queue a NOTIFY,
 * and if another server cannot be reached (class 08).  That one may be down for long
 * while this one serves others, and the messages that need it are not to blame.
 */
bool
dja_error_of_surroundings(DjaError *error)
{
	return error->notify_full || (error->limit == DJA_TURN_TIMEOUT_NONE && !error->rejected &&
								  ERRCODE_TO_CATEGORY(error->sqlerrcode) == DJA_CLASS('0', '8'));
}

/*
 * Has somebody cancelled what the worker does, as by pg_cancel_backend()?  That is no
 * trouble of the server.
 */
bool
dja_error_is_cancel(DjaError *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->limit == DJA_TURN_TIMEOUT_NONE;
}

/*
 * Returns whose fault an error is.
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
		case DJA_TURN_TIMEOUT_CANCELLED:
			return DJA_BLAME_CONFLICT;
		case DJA_TURN_TIMEOUT_NONE:
			break;
	}
	if (dja_error_of_surroundings(error))
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
 * May a function that was compiled before a column or a type changed fail with this
 * error?  Its variables have the old types, and values do not fit in.
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
 * Returns when the next attempt is due, after so many failed ones.  The delay grows
 * exponentially, to backoff_max at most.  It has up to a quarter of jitter, so that
 * messages that failed together do not come back together.
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
 * Returns when to try a message again whose error is nobody's fault.  put_offs is
 * how often that has happened to it, this time included.  The delay is short after a
 * conflict, and longer if the server is in trouble.  After DJA_QUICK_TRIES it grows
 * as after failures.
 */
TimestampTz
dja_put_off_time(DjaType *type, DjaBlame blame, int put_offs, TimestampTz now)
{
	double		ms = blame == DJA_BLAME_CONFLICT ? DJA_CONFLICT_MS : DJA_TROUBLE_MS;

	if (put_offs > DJA_QUICK_TRIES)
		return dja_retry_time(type, put_offs - DJA_QUICK_TRIES, now);
	return now + (int64) (ms * 1000 * (1 + pg_prng_double(&pg_global_prng_state)));
}
