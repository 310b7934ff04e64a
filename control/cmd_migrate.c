/*
 * godwit migrate: have a running VMM send its guest away, watch, and tell how it went.
 *
 * This process only steers: the guest and its memory are in the VMM behind the QMP socket, which
 * goes on whatever happens here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/command.h"
#include "control/ending_signals.h"
#include "control/options.h"
#include "control/qmp_client.h"
#include "control/rdma_options.h"
#include "control/report_json.h"
#include "control/report_text.h"
#include "migration/params.h"
#include "migration/policy.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/units.h"
#include "vmm/base/uri.h"

#define LOOK_MS      200  /* between two looks that are shown */
#define NO_LOOK_MS   1000 /* when nobody sees them: an event says that it is over */
#define LAST_LOOK_MS 20   /* once it is: what is known about it is completed */
#define QUIT_WAIT_S  10

struct migrate_options {
	uint64_t downtime_limit_ns;
	uint64_t bytes_per_s;
	uint64_t nr_channels;
	const char *codec;
	const char *tracker;
	const char *policy;
	const char *copy_disks;
	bool auto_converge;
	bool verify;
	bool json;
	bool keep_source;
	uint64_t timeout_ns;
	struct rdma_options rdma;
};

#define AT(member) offsetof(struct migrate_options, member)

static const struct option_spec specs[] = {
	{"downtime-limit", "TIME", "switch over when the rest fits into this; default 300ms",
	 OPTION_NS, AT(downtime_limit_ns), 0, 0},
	{"bandwidth", "RATE", "send no faster than this; default: as fast as it goes", OPTION_RATE,
	 AT(bytes_per_s), 0, 0},
	{"streams", "N", "connections to send pages over, default 1", OPTION_COUNT, AT(nr_channels),
	 1, MIGRATION_MAX_CHANNELS},
	{"codec", "NAME", "auto (default: what is faster, batch by batch), none, lz4",
	 OPTION_STRING, AT(codec), 0, 0},
	{"dirty", "TRACKER", "bitmap or clear-log; default: what 'run' was told", OPTION_STRING,
	 AT(tracker), 0, 0},
	{"policy", "NAME",
	 "when to switch over: patient (default: within the limit, and as soon\n"
	 "as another round would not shorten the pause much) or eager (as soon\n"
	 "as it is within the limit)",
	 OPTION_STRING, AT(policy), 0, 0},
	{"copy-disks", "WHICH",
	 "send the contents of these disks, too: all, or numbers such as\n"
	 "0,2; default: none, the destination opens the same images",
	 OPTION_STRING, AT(copy_disks), 0, 0},
	{"auto-converge", NULL,
	 "hold the guest's CPUs back, more and more, when it writes\n"
	 "faster than the link sends",
	 OPTION_FLAG, AT(auto_converge), 0, 0},
	{"verify", NULL,
	 "compare a digest of all memory, device state and disks before\n"
	 "the guest may run at the destination",
	 OPTION_FLAG, AT(verify), 0, 0},
	RDMA_OPTIONS(AT(rdma)),
	{"timeout", "TIME", "cancel when it takes longer than this", OPTION_NS, AT(timeout_ns), 0,
	 0},
	{"keep-source", NULL, "leave the emptied VMM running afterwards", OPTION_FLAG,
	 AT(keep_source), 0, 0},
	{"json", NULL, "print the report as JSON", OPTION_FLAG, AT(json), 0, 0},
};

static const char *const positional[] = {"QMP-SOCKET", "URI", NULL};

static const struct syntax syntax = {
	.command = "migrate",
	.synopsis = "QMP-SOCKET URI [OPTION]...",
	.about =
		"Move the guest of the VMM behind QMP-SOCKET (a path or unix:PATH) to the 'godwit\n"
		"receive' at URI (tcp:HOST:PORT, rdma:HOST:PORT or unix:PATH) while it runs.\n"
		"Until the destination has everything and has said so, any failure leaves the\n"
		"guest running where it is. Ctrl-C cancels.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
	.epilogue =
		"Exit status: 0 the guest runs at the destination, 1 an error, 2 wrong usage, 3\n"
		"failed and the guest is still at the source, 4 the same because it was\n"
		"cancelled, 5 unknown: look at the destination.\n"
		"\n"
		"Example:\n"
		"  godwit migrate /tmp/vm.qmp tcp:host-b:4444 --downtime-limit 30ms",
};

struct migrate {
	struct migrate_options o;
	const char *socket;
	const char *uri;
	uint64_t pin_bytes;
	bool fallback;
	struct qmp_client *client;
	int signals; /* signalfd */
	struct progress progress;
	struct migration_report report;
	json_t *report_json;
	uint64_t cancelled_at_ns; /* 0: not */
	uint64_t give_up_ns;      /* --timeout; UINT64_MAX: never */
	uint64_t looked_at_ns;
	bool over; /* so the VMM has said */
};

static int check(struct migrate *m, struct err *e)
{
	struct migration_params p;
	struct uri uri;
	int ret = uri_parse(m->uri, &uri, e);

	if (ret < 0)
		return ret;
	migration_params_init(&p);
	p.downtime_limit_ns = m->o.downtime_limit_ns;
	p.nr_channels = (uint32_t)m->o.nr_channels;
	snprintf(p.codec, sizeof(p.codec), "%s", m->o.codec);
	snprintf(p.policy, sizeof(p.policy), "%s", m->o.policy);
	snprintf(p.copy_disks, sizeof(p.copy_disks), "%s", m->o.copy_disks);
	if (m->o.tracker)
		snprintf(p.tracker, sizeof(p.tracker), "%s", m->o.tracker);
	if (rdma_options_parse(&m->o.rdma, &m->pin_bytes, &m->fallback, e) < 0)
		return -e->code;
	p.rdma_pin_bytes = m->pin_bytes;
	return migration_params_check(&p, e);
}

/* The VMM must not lose its steersman in the middle of a migration without having been told. */
static int catch_signals(struct migrate *m, struct err *e)
{
	m->signals = ending_signals_open(e);
	return m->signals < 0 ? m->signals : 0;
}

static json_t *capability(const char *name, bool state)
{
	return json_pack("{s:s,s:b}", "capability", name, "state", state);
}

static int configure(struct migrate *m, struct err *e)
{
	json_t *caps = json_pack("{s:[o,o,o,o,o]}", "capabilities", capability("events", true),
				 capability("auto-converge", m->o.auto_converge),
				 capability("multifd", m->o.nr_channels > 1),
				 capability("x-godwit-verify", m->o.verify),
				 capability("x-godwit-rdma-fallback", m->fallback));
	json_t *params = json_pack(
		"{s:I,s:I,s:I,s:I,s:s,s:s,s:s}", "max-bandwidth", (json_int_t)m->o.bytes_per_s,
		"x-godwit-downtime-limit-ns", (json_int_t)m->o.downtime_limit_ns,
		"multifd-channels", (json_int_t)m->o.nr_channels, "x-godwit-rdma-pin",
		(json_int_t)m->pin_bytes, "x-godwit-codec", m->o.codec, "x-godwit-policy",
		m->o.policy, "x-godwit-copy-disks", m->o.copy_disks);
	int ret;

	if (m->o.tracker)
		json_object_set_new(params, "x-godwit-tracker", json_string(m->o.tracker));
	ret = qmp_client_call(m->client, "migrate-set-capabilities", caps, NULL, e);
	if (ret < 0) {
		json_decref(params);
		return ret;
	}
	return qmp_client_call(m->client, "migrate-set-parameters", params, NULL, e);
}

static int start(struct migrate *m, struct err *e)
{
	return qmp_client_call(m->client, "migrate", json_pack("{s:s}", "uri", m->uri), NULL, e);
}

static void cancel(struct migrate *m, const char *why)
{
	struct err ignored = ERR_INIT;

	m->cancelled_at_ns = clock_now_ns();
	progress_clear(&m->progress);
	fprintf(stderr, "%s: cancelling, the guest stays at the source\n", why);
	qmp_client_call(m->client, "migrate_cancel", NULL, NULL, &ignored);
}

static void on_event(void *ctx, const json_t *event)
{
	static const char *const ends[] = {"completed", "failed", "cancelled"};
	const char *status =
		json_string_value(json_object_get(json_object_get(event, "data"), "status"));
	struct migrate *m = ctx;

	for (size_t i = 0; status && i < sizeof(ends) / sizeof(ends[0]); i++)
		m->over = m->over || !strcmp(status, ends[i]);
}

static int pause_ms(const struct migrate *m)
{
	uint64_t ms = m->over ? LAST_LOOK_MS : m->progress.enabled ? LOOK_MS : NO_LOOK_MS;
	uint64_t now_ns = clock_now_ns();
	uint64_t left_ms = now_ns < m->give_up_ns ? (m->give_up_ns - now_ns) / NS_PER_MS + 1 : ms;

	return (int)(ms < left_ms ? ms : left_ms);
}

/* Each look is a report in JSON, made by the VMM and read here: where processors are few, that time
 * is the migration's. */
static bool worth_a_look(const struct migrate *m)
{
	return m->over || m->progress.enabled ||
	       clock_now_ns() - m->looked_at_ns >= NO_LOOK_MS * NS_PER_MS;
}

/* Sleep until something happens at the VMM, a signal, or the next look. */
static int wait_a_moment(struct migrate *m, struct err *e)
{
	struct pollfd fds[2] = {{.fd = qmp_client_fd(m->client), .events = POLLIN},
				{.fd = m->signals, .events = POLLIN}};

	poll(fds, 2, pause_ms(m));
	if (fds[1].revents && ending_signals_take(m->signals)) {
		/* One Ctrl-C may arrive twice: from the terminal, and from a wrapper that passes
		 * signals on. */
		if (!m->cancelled_at_ns)
			cancel(m, "interrupted");
		else if (clock_now_ns() - m->cancelled_at_ns > NS_PER_S)
			return err_set(
				e, ERR_CANCELLED, EINTR,
				"interrupted twice: the VMM behind %s goes on by itself, see "
				"'godwit ctl %s query-migrate'",
				m->socket, m->socket);
	}
	return qmp_client_pump(m->client, e);
}

static int look(struct migrate *m, bool *ended, struct err *e)
{
	json_t *info = NULL;
	int ret = qmp_client_call(m->client, "query-migrate", NULL, &info, e);

	m->looked_at_ns = clock_now_ns();
	if (ret < 0)
		return ret;
	json_decref(m->report_json);
	m->report_json = json_incref(json_object_get(info, "x-godwit"));
	json_decref(info);
	report_from_json(m->report_json, &m->report);
	*ended = m->report.ended;
	return 0;
}

/* Until the migration has ended and everything about it is known. */
static int watch(struct migrate *m, struct err *e)
{
	bool ended = false;
	int ret = m->progress.enabled ? look(m, &ended, e) : 0;

	m->looked_at_ns = clock_now_ns();
	m->give_up_ns = m->o.timeout_ns ? m->looked_at_ns + m->o.timeout_ns : UINT64_MAX;
	while (!ret && !ended) {
		if (!m->cancelled_at_ns)
			progress_show(&m->progress, &m->report, false);
		ret = wait_a_moment(m, e);
		if (!ret && !m->cancelled_at_ns && clock_now_ns() > m->give_up_ns)
			cancel(m, "--timeout is over");
		if (!ret && worth_a_look(m))
			ret = look(m, &ended, e);
	}
	progress_clear(&m->progress);
	return ret;
}

/* The emptied VMM has nothing left to do. It closes the connection when it is gone. */
static void quit_source(struct migrate *m)
{
	uint64_t deadline = clock_now_ns() + QUIT_WAIT_S * NS_PER_S;
	struct err e = ERR_INIT;

	if (qmp_client_call(m->client, "quit", NULL, NULL, &e) < 0) {
		log_warning("the source VMM does not quit: %s", e.msg);
		return;
	}
	while (clock_now_ns() < deadline) {
		struct pollfd fd = {.fd = qmp_client_fd(m->client), .events = POLLIN};

		poll(&fd, 1, LOOK_MS);
		if (qmp_client_pump(m->client, &e) < 0)
			return;
	}
	log_warning("the source VMM has not ended within %d s", QUIT_WAIT_S);
}

static void print_report(const struct migrate *m)
{
	if (!m->o.json) {
		report_print(stdout, &m->report, false);
	} else {
		json_dumpf(m->report_json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	fflush(stdout);
}

static int conclude(struct migrate *m)
{
	switch (m->report.status) {
	case MIGRATION_COMPLETED:
		print_report(m);
		if (!m->o.keep_source)
			quit_source(m);
		return EXIT_OK;
	case MIGRATION_CANCELLED:
		if (m->o.json)
			print_report(m);
		log_error("cancelled: the guest is still at the source");
		return EXIT_CANCELLED;
	case MIGRATION_UNKNOWN:
		print_report(m);
		log_error("%s", m->report.error.msg);
		fprintf(stderr,
			"The source keeps it paused. Look at the destination. If the guest runs "
			"there:\n"
			"  godwit ctl %s quit\n"
			"Only if it does not, and never will:\n"
			"  godwit ctl %s cont x-godwit-force=true\n",
			m->socket, m->socket);
		return EXIT_UNKNOWN;
	default:
		if (m->o.json)
			print_report(m);
		log_error("%s", m->report.error.msg);
		return EXIT_MIGRATION_FAILED;
	}
}

/* The connection broke while the migration ran. How far it came since the last look, nobody knows.
 */
static int lost(const struct migrate *m, struct err *e)
{
	if (e->kind == ERR_PEER)
		err_set(e, ERR_PEER, ECONNRESET,
			"the source VMM behind %s ended during the migration: see whether the "
			"guest "
			"runs at the destination",
			m->socket);
	log_error("%s", e->msg);
	return EXIT_UNKNOWN;
}

static int migrate(struct migrate *m, struct err *e)
{
	if (catch_signals(m, e) < 0 || qmp_client_open(m->socket, &m->client, e) < 0)
		return command_fail(e);
	qmp_client_listen(m->client, on_event, m);
	if (configure(m, e) < 0 || start(m, e) < 0) {
		command_fail(e);
		return EXIT_MIGRATION_FAILED;
	}
	if (watch(m, e) < 0)
		return lost(m, e);
	return conclude(m);
}

int cmd_migrate(int argc, char **argv)
{
	struct migrate m = {
		.o = {.downtime_limit_ns = 300 * NS_PER_MS,
		      .nr_channels = 1,
		      .codec = "auto",
		      .policy = POLICY_DEFAULT,
		      .copy_disks = ""},
		.signals = -1,
	};
	struct positionals p;
	struct err e = ERR_INIT;
	int status = options_parse_or_exit(&syntax, argc, argv, &m.o, &p);

	if (status >= 0)
		return status;
	m.socket = p.at[0];
	m.uri = p.at[1];
	progress_init(&m.progress);
	if (check(&m, &e) < 0)
		return command_fail(&e);
	status = migrate(&m, &e);
	json_decref(m.report_json);
	qmp_client_close(m.client);
	if (m.signals >= 0)
		close(m.signals);
	return status;
}
