/* SPDX-License-Identifier: Apache-2.0 */
#include "exchange.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define READ_STEP 65536
#define RETRY_MS  50

static long long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

deadline_ms deadline_in(int ms)
{
	return now_ms() + ms;
}

/* True when `fd` has one of `events` (or an error, which the next call reports); false at the deadline. */
static bool wait_for(int fd, short events, deadline_ms until)
{
	for (;;) {
		long long left = until - now_ms();
		struct pollfd p = { .fd = fd, .events = events };
		int n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return true;
		if (n == 0 && left <= 0)
			return false;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return true;
	}
}

const char *read_to_end(int fd, struct buffer *into, deadline_ms until)
{
	for (;;) {
		if (!wait_for(fd, POLLIN, until))
			return "timed out while reading the network configuration from stdin";
		if (!buffer_reserve(into, READ_STEP))
			return "the network configuration on stdin is too large";
		ssize_t n = read(fd, into->data + into->length, READ_STEP);
		if (n == 0)
			return NULL;
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return "failed to read the network configuration from stdin";
		into->length += (size_t)n;
		into->data[into->length] = '\0';
	}
}

/* Connects, trying again while an agent that restarts is away. -1 and errno. */
static int connect_until(const char *path, deadline_ms until)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	for (;;) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0)
			return -1;
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		int error = errno;
		close(fd);
		/* EAGAIN: the listener's backlog is full (unix(7)); a unix socket never connects in the background. */
		bool passing = error == EAGAIN || error == EINTR || error == ECONNREFUSED || error == ENOENT;
		if (!passing || now_ms() >= until) {
			errno = error;
			return -1;
		}
		struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
		nanosleep(&pause, NULL);
	}
}

/* A peer that refuses the request early answers and closes: then the rest need not be sent and the answer is read. */
static const char *send_request(int fd, const struct buffer *request, deadline_ms until)
{
	size_t sent = 0;
	while (sent < request->length) {
		if (!wait_for(fd, POLLOUT, until))
			return "the agent does not read the request";
		ssize_t n = send(fd, request->data + sent, request->length - sent, MSG_NOSIGNAL);
		if (n >= 0)
			sent += (size_t)n;
		else if (errno == EPIPE || errno == ECONNRESET)
			return NULL;
		else if (errno != EINTR && errno != EAGAIN)
			return "sending the request to the agent failed";
	}
	shutdown(fd, SHUT_WR);
	return NULL;
}

static const char *receive_answer(int fd, struct buffer *answer, deadline_ms accept_until, int answer_ms)
{
	deadline_ms until = accept_until;
	for (;;) {
		if (!wait_for(fd, POLLIN, until))
			return answer->length ? "the agent took the request but did not finish it in time" :
						"the agent does not answer";
		if (!buffer_reserve(answer, READ_STEP))
			return "the agent's answer is too large";
		ssize_t n = recv(fd, answer->data + answer->length, READ_STEP, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return "the connection to the agent broke";
		if (n == 0)
			return NULL;
		if (answer->length == 0)
			until = deadline_in(answer_ms);
		answer->length += (size_t)n;
		answer->data[answer->length] = '\0';
	}
}

/* Decimal digits at *at, moved behind them; -1 if there are none or too many. */
static long parse_number(const char **at)
{
	long value = 0;
	const char *start = *at;
	while (**at >= '0' && **at <= '9' && *at - start < 9)
		value = value * 10 + *(*at)++ - '0';
	return *at == start ? -1 : value;
}

static const char *parse_answer(const struct buffer *answer, int *status, const char **body, size_t *body_length)
{
	const char *at = answer->data;
	if (answer->length == 0)
		return "the agent closed the connection without an answer";
	while (*at == '\n')
		at++;
	if (!*at)
		return "the agent stopped while it was working on the request";
	long code = parse_number(&at);
	long length = *at == ' ' ? (at++, parse_number(&at)) : -1;
	if (code < 0 || code > 255 || length < 0 || *at++ != '\n')
		return "the agent's answer is malformed";
	if (answer->data + answer->length - at != length)
		return "the agent's answer is cut short";
	*status = (int)code;
	*body = at;
	*body_length = (size_t)length;
	return NULL;
}

const char agent_not_running[] = "the agent is not running";

const char *exchange(const char *socket_path, const struct buffer *request, const struct time_limits *limits,
		     struct buffer *answer, int *status, const char **body, size_t *body_length)
{
	deadline_ms accept_until = deadline_in(limits->accept_ms);
	int fd = connect_until(socket_path, deadline_in(limits->connect_ms));
	if (fd < 0)
		return errno == ENAMETOOLONG ? "the agent's socket path is too long" :
		       errno == EACCES	     ? "the agent's socket may not be opened by this user" :
					       agent_not_running;
	const char *failure = send_request(fd, request, accept_until);
	if (!failure)
		failure = receive_answer(fd, answer, accept_until, limits->answer_ms);
	close(fd);
	return failure ? failure : parse_answer(answer, status, body, body_length);
}

bool write_all(int fd, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t n = write(fd, bytes, count);
		if (n < 0 && errno == EAGAIN) {
			wait_for(fd, POLLOUT, deadline_in(1000));
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		count -= (size_t)n;
	}
	return true;
}
