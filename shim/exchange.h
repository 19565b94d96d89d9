/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLUICE_EXCHANGE_H
#define SLUICE_EXCHANGE_H

#include "buffer.h"

/* One absolute time on CLOCK_MONOTONIC, in milliseconds. */
typedef long long deadline_ms;

deadline_ms deadline_in(int ms);

/* Each call's time limits, docs/reference/cni.md "Time limits". */
struct time_limits {
	int connect_ms; /* keep trying while the socket is missing or refuses: an agent that restarts is back by then */
	int accept_ms;	/* from the start until the agent's first byte: beyond that nobody is there */
	int answer_ms;	/* from the first byte until the answer is complete */
};

/* Reads `fd` to its end. NULL, or what went wrong. */
const char *read_to_end(int fd, struct buffer *into, deadline_ms until);

/* What `exchange` answers, this very pointer, when nobody listens on the socket: nothing was asked of anybody then. */
extern const char agent_not_running[];

/*
 * Sends the request to the agent's socket and reads what it answers: "\n"* "<status> <length>\n" <length bytes>.
 * An empty line says "accepted, working on it". NULL and *status, *body (inside `answer`) and *body_length, or what went wrong.
 */
const char *exchange(const char *socket_path, const struct buffer *request, const struct time_limits *limits,
		     struct buffer *answer, int *status, const char **body, size_t *body_length);

/* Writes everything; false on error. */
bool write_all(int fd, const char *bytes, size_t count);

#endif
