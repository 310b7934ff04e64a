/*
 * godwit-held POINTS FD run KERNEL APPEND QMP
 * godwit-held POINTS FD receive URI QMP [DISK NET]
 *
 * The VMM of `godwit run` and `godwit receive` (control/session.h), which stops at the fault points
 * in POINTS (comma separated): its migration thread writes the point's name and a newline to FD and
 * goes on when it reads a byte from it, or its end. So a test can kill, stop or cancel a migration
 * in a step of its choice, without a clock.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "control/command.h"
#include "control/machine_options.h"
#include "control/session.h"

struct hold {
	const char *points;
	int out;
	int in;
};

static bool lists(const char *points, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = points; (at = strstr(at, name)); at += len)
		if ((at == points || at[-1] == ',') && (at[len] == ',' || !at[len]))
			return true;
	return false;
}

static void hold(void *ctx, const char *name)
{
	const struct hold *h = ctx;
	char line[64];
	char go;
	int len = snprintf(line, sizeof(line), "%s\n", name);

	if (lists(h->points, name) && write(h->out, line, (size_t)len) == len &&
	    read(h->in, &go, 1) < 0)
		perror("godwit-held: waiting to be let go");
}

static void on_listening(void *ctx, const char *address)
{
	(void)ctx;
	printf("waiting for a guest at %s\n", address);
	fflush(stdout);
}

static int serve(const struct session_config *config)
{
	struct session *session;
	struct err e = ERR_INIT;
	int status;

	if (session_new(config, &session, &e) < 0)
		return command_fail(&e);
	status = session_run(session);
	session_free(session);
	return status;
}

/* As `godwit receive --disk DISK --net NET` takes them. */
static int take_devices(const char *disk, const char *net, struct session_config *config,
			struct err *e)
{
	const struct machine_options o = {
		.serial = "null", .disks = {1, {disk}}, .nets = {1, {net}}};

	return machine_options_apply(&o, true, config, e);
}

int main(int argc, char **argv)
{
	bool run = argc == 7 && !strcmp(argv[3], "run");
	struct session_config config = {.observer = {.on_listening = on_listening}};
	struct err e = ERR_INIT;
	struct hold h;
	int status;

	signal(SIGPIPE, SIG_IGN);
	if (!run && ((argc != 6 && argc != 8) || strcmp(argv[3], "receive") != 0)) {
		fputs("usage: godwit-held POINTS FD run KERNEL APPEND QMP\n"
		      "       godwit-held POINTS FD receive URI QMP [DISK NET]\n",
		      stderr);
		return EXIT_USAGE;
	}
	h = (struct hold){.points = argv[1], .out = atoi(argv[2])};
	h.in = strchr(argv[2], ':') ? atoi(strchr(argv[2], ':') + 1) : h.out;
	if (argc == 8 && !run && take_devices(argv[6], argv[7], &config, &e) < 0)
		return command_fail(&e);
	if (fault_new(&config.fault, &e) < 0)
		return command_fail(&e);
	fault_observe(config.fault, hold, &h);
	config.vm.serial = "null";
	config.qmp = run ? argv[6] : argv[5];
	if (run) {
		config.vm.memory_bytes = 64 << 20;
		config.vm.nr_cpus = 1;
		config.vm.kernel = argv[4];
		config.vm.append = argv[5];
	} else {
		config.incoming = argv[4];
	}
	status = serve(&config);
	fault_free(config.fault);
	return status;
}
