/*
 * What isolationtester asks in transaction mode; loaded before libpq (LD_PRELOAD).
 *
 * After each step it asks the server whether the session that runs it waits for another one of the
 * test, and names the sessions by the processes that it was told at their logins. In transaction
 * mode these are numbers of pgsteer's: the server knows none of them, and the answer would be that
 * nobody ever waits. But each session says its name (application_name), and a backend carries the
 * name of the session that it serves. So the same question is asked about the processes that serve
 * these sessions at the moment. Nothing else is changed: not the steps, nor what is printed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef unsigned int Oid;

extern int PQbackendPID(const PGconn *conn);
extern int PQntuples(const PGresult *res);
extern char *PQgetvalue(const PGresult *res, int row, int column);

/* Its own question has this name, and this is how it names its sessions. */
#define QUESTION "isolationtester_waiting"
#define NAMING "SELECT set_config('application_name',"

/* $1 is the session's name, "isolation/TEST/SESSION"; all of one test begin alike. */
static const char question[] =
	"SELECT coalesce(bool_or(pg_catalog.pg_isolation_test_session_is_blocked(its.pid, ARRAY("
	"  SELECT one.pid FROM pg_catalog.pg_stat_get_activity(NULL) AS one"
	"  WHERE starts_with(one.application_name, regexp_replace($1::text, '[^/]*$', ''))))), false)"
	" FROM pg_catalog.pg_stat_get_activity(NULL) AS its"
	" WHERE its.application_name = $1::text AND its.state = 'active'"
	" AND its.backend_type = 'client backend'";

/* The sessions by the processes that they were told; a test has less than ten. */
static struct
{
	char		pid[16];
	char		name[256];
}			sessions[64];
static int	known;

static void *
libpqs(const char *name)
{
	void	   *found = dlsym(RTLD_NEXT, name);

	if (!found)
	{
		fprintf(stderr, "isolation.c: libpq has no %s\n", name);
		exit(1);
	}
	return found;
}

PGresult *
PQexecParams(PGconn *conn, const char *command, int count, const Oid *types,
			 const char *const *values, const int *lengths, const int *formats, int format)
{
	PGresult   *(*real) (PGconn *, const char *, int, const Oid *, const char *const *,
						 const int *, const int *, int) = libpqs("PQexecParams");
	PGresult   *result = real(conn, command, count, types, values, lengths, formats, format);

	if (strncmp(command, NAMING, strlen(NAMING)) == 0 && PQntuples(result) == 1 && known < 64)
	{
		snprintf(sessions[known].pid, sizeof sessions[known].pid, "%d", PQbackendPID(conn));
		snprintf(sessions[known].name, sizeof sessions[known].name, "%s", PQgetvalue(result, 0, 0));
		known++;
	}
	return result;
}

PGresult *
PQprepare(PGconn *conn, const char *name, const char *query, int count, const Oid *types)
{
	PGresult   *(*real) (PGconn *, const char *, const char *, int, const Oid *)
		= libpqs("PQprepare");

	return real(conn, name, strcmp(name, QUESTION) == 0 ? question : query, count, types);
}

PGresult *
PQexecPrepared(PGconn *conn, const char *name, int count, const char *const *values,
			   const int *lengths, const int *formats, int format)
{
	PGresult   *(*real) (PGconn *, const char *, int, const char *const *, const int *,
						 const int *, int) = libpqs("PQexecPrepared");
	const char *session = NULL;
	int			i;

	if (strcmp(name, QUESTION) != 0)
		return real(conn, name, count, values, lengths, formats, format);
	for (i = 0; i < known; i++)
		if (strcmp(sessions[i].pid, values[0]) == 0)
			session = sessions[i].name;
	if (!session)
	{
		fprintf(stderr, "isolation.c: no session was told process %s\n", values[0]);
		exit(1);
	}
	return real(conn, name, count, &session, lengths, formats, format);
}
