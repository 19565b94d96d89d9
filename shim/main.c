/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CNI executable of Sluice: hands the CNI environment and stdin to the node agent and prints its answer.
 * The name it is called by is the plugin's name (sluice, cilium-cni, spiderpool, coordinator, ifacer).
 * The protocol is described in docs/reference/cni.md and in src/cni/wire.ts.
 */
#include "buffer.h"
#include "exchange.h"
#include "json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

#define DEFAULT_SOCKET	  "/run/sluice/cni.sock"
#define NEWEST_VERSION	  "1.1.0"
#define SUPPORTED_VERSIONS "\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""

/* The agent's own limit is the same; docs/reference/limits.md. */
#define REQUEST_MAX (4u << 20)
#define ANSWER_MAX  (4u << 20)

/* The specification's codes ("Error"). */
enum { CODE_IO = 5, CODE_TRY_AGAIN = 11, CODE_NOT_AVAILABLE = 50 };

/* Together under the 10 s in which a missing agent must be told, and under the 2 minutes a kubelet waits for a sandbox. */
static const struct time_limits limits = { .connect_ms = 3000, .accept_ms = 8000, .answer_ms = 90000 };
/* STATUS asks about now, so nothing is waited for. */
static const struct time_limits status_limits = { .connect_ms = 0, .accept_ms = 5000, .answer_ms = 10000 };

static const char *plugin_name(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;
	return slash ? slash + 1 : argv0 && *argv0 ? argv0 : "sluice";
}

static int print_error(int code, const char *message, const char *details, const struct buffer *config)
{
	char version[VERSION_TEXT_MAX];
	if (!json_cni_version(config, version))
		strcpy(version, NEWEST_VERSION);
	char head[64 + VERSION_TEXT_MAX];
	snprintf(head, sizeof(head), "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":", version, code);
	struct buffer out = buffer_new(65536);
	if (buffer_append_text(&out, head) && json_append_string(&out, message) &&
	    buffer_append_text(&out, ",\"details\":") && json_append_string(&out, details) && buffer_append_text(&out, "}\n"))
		write_all(STDOUT_FILENO, out.data, out.length);
	return 1;
}

/* "cniVersion: the value of cniVersion specified on input." */
static int print_versions(const struct buffer *config)
{
	char version[VERSION_TEXT_MAX];
	if (!json_cni_version(config, version))
		strcpy(version, NEWEST_VERSION);
	char text[256];
	int n = snprintf(text, sizeof(text), "{\"cniVersion\":\"%s\",\"supportedVersions\":[" SUPPORTED_VERSIONS "]}\n", version);
	return write_all(STDOUT_FILENO, text, (size_t)n) ? 0 : 1;
}

static bool build_request(struct buffer *request, const char *plugin, const struct buffer *config)
{
	bool ok = buffer_append_text(request, "SLUICE/1 ") && buffer_append_text(request, plugin) &&
		  buffer_append_text(request, "\n");
	for (char **entry = environ; ok && *entry; entry++) {
		if (strncmp(*entry, "CNI_", 4) == 0)
			ok = buffer_append(request, *entry, strlen(*entry) + 1);
	}
	return ok && buffer_append(request, "", 1) && buffer_append(request, config->data ? config->data : "", config->length);
}

/*
 * DEL without an agent succeeds, so that pods end on a node whose agent is away. Nothing stays for ever: the interfaces go
 * with the pod's namespace, its endpoint when the agent is back, its addresses by the controller's garbage collection.
 */
static int leave_to_collection(const char *plugin, const char *path)
{
	fprintf(stderr, "%s DEL: the agent is not running at %s; what the pod had is collected later\n", plugin, path);
	return 0;
}

static int call_agent(const char *plugin, const char *command, const struct buffer *config)
{
	bool status_command = strcmp(command, "STATUS") == 0;
	const char *path = getenv("SLUICE_CNI_SOCKET");
	if (!path || !*path)
		path = DEFAULT_SOCKET;

	struct buffer request = buffer_new(REQUEST_MAX + 65536), answer = buffer_new(ANSWER_MAX);
	if (!build_request(&request, plugin, config))
		return print_error(CODE_IO, "the CNI environment is too large", "CNI_ARGS or CNI_PATH is longer than 64 KiB", config);

	int status;
	const char *body;
	size_t body_length;
	const char *failure =
		exchange(path, &request, status_command ? &status_limits : &limits, &answer, &status, &body, &body_length);
	if (!failure)
		return write_all(STDOUT_FILENO, body, body_length) ? status : 1;
	if (failure == agent_not_running && strcmp(command, "DEL") == 0)
		return leave_to_collection(plugin, path);

	char message[256], details[512];
	snprintf(message, sizeof(message), "%s: %s", plugin, failure);
	snprintf(details, sizeof(details), "socket %s; check the sluice agent of this node (its pod, its log, /readyz)", path);
	return print_error(status_command ? CODE_NOT_AVAILABLE : CODE_TRY_AGAIN, message, details, config);
}

int main(int argc, char **argv)
{
	/* A reader of our stdout that has gone must show as an error of write(2), not as our death. */
	signal(SIGPIPE, SIG_IGN);
	const char *plugin = plugin_name(argc > 0 ? argv[0] : NULL);
	const char *command = getenv("CNI_COMMAND");
	if (!command || !*command) {
		fprintf(stderr, "%s: CNI plugin of Sluice; to be run by a container runtime with CNI_COMMAND set\n"
				"CNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n", plugin);
		return 0;
	}
	struct buffer config = buffer_new(REQUEST_MAX);
	const char *failure = read_to_end(STDIN_FILENO, &config, deadline_in(limits.accept_ms));
	if (failure)
		return print_error(CODE_IO, failure, "the container runtime must write the configuration and close stdin", &config);
	if (strcmp(command, "VERSION") == 0)
		return print_versions(&config);
	return call_agent(plugin, command, &config);
}
