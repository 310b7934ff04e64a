/* godwit run: boot a guest, or wait for one, and serve it until it ends. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/command.h"
#include "control/machine_options.h"
#include "control/options.h"
#include "control/session.h"

struct run_options {
	struct machine_options machine;
	const char *incoming;
	bool paused;
};

#define AT(member) offsetof(struct run_options, member)
#define MACHINE(m) MACHINE_OFFSET(struct run_options, m)

static const struct option_spec specs[] = {
	{"kernel", "FILE", "image to boot: PVH ELF, Linux bzImage or Multiboot 1", OPTION_STRING,
	 MACHINE(kernel), 0, 0},
	{"initrd", "FILE", "initial RAM disk (Multiboot: a module)", OPTION_STRING, MACHINE(initrd),
	 0, 0},
	{"append", "TEXT", "the kernel's command line", OPTION_STRING, MACHINE(append), 0, 0},
	{"memory", "SIZE", "guest memory, default 512M", OPTION_BYTES, MACHINE(memory_bytes), 0, 0},
	{"prealloc", NULL,
	 "allocate all of it at once, before the guest starts or is waited\n"
	 "for, and not as it is touched",
	 OPTION_FLAG, MACHINE(prealloc), 0, 0},
	{"cpus", "N", "virtual CPUs, default 1", OPTION_COUNT, MACHINE(nr_cpus), 1, VM_MAX_CPUS},
	{"cpu", "MODEL",
	 "what the guest sees of the CPU: host (default), or what it shares\n"
	 "with others: x86-64-v1 to -v4, EPYC, Haswell, ...; features more\n"
	 "or less follow, as in x86-64-v2,+avx,-aes; also vendor=NAME and\n"
	 "phys-bits=N",
	 OPTION_STRING, MACHINE(cpu), 0, 0},
	{"serial", "WHERE", "the serial port: stdio (default), null, pty, file:PATH,\nunix:PATH",
	 OPTION_STRING, MACHINE(serial), 0, 0},
	{"console", "WHERE", "a virtio console (hvc0) too; as --serial", OPTION_STRING,
	 MACHINE(console), 0, 0},
	{"balloon", NULL,
	 "a memory balloon: the guest gives back memory it does not\n"
	 "use, which no migration sends; QMP's balloon asks for more",
	 OPTION_FLAG, MACHINE(balloon), 0, 0},
	{"rng", NULL, "entropy from this host", OPTION_FLAG, MACHINE(rng), 0, 0},
	{"disk", "PATH",
	 "a disk: a raw image, file or block device; repeated for more.\n"
	 "PATH[,readonly=on][,queues=N][,serial=S][,lock=off]",
	 OPTION_LIST, MACHINE(disks), 0, 0},
	{"net", "tap:IF",
	 "a network card on the tap interface IF; may be repeated.\n"
	 "More: ,mac=M (default: made from IF and this host), ,queues=N",
	 OPTION_LIST, MACHINE(nets), 0, 0},
	{"qmp", "unix:PATH", "control socket; with ,server=off connect out to it", OPTION_STRING,
	 MACHINE(qmp), 0, 0},
	{"incoming", "URI",
	 "do not boot: wait for a migration to tcp:HOST:PORT,\n"
	 "rdma:HOST:PORT or unix:PATH, or for QMP's migrate-incoming with 'defer'",
	 OPTION_STRING, AT(incoming), 0, 0},
	{"dirty", "TRACKER",
	 "dirty page tracker of migrations from here: bitmap\n"
	 "(default) or clear-log",
	 OPTION_STRING, MACHINE(tracker), 0, 0},
	RDMA_OPTIONS(MACHINE(rdma)),
	{"debug-exit", NULL,
	 "let the guest end this program with its exit status\n"
	 "(isa-debug-exit at port 0xf4)",
	 OPTION_FLAG, MACHINE(debug_exit), 0, 0},
	{"nested", "MODE",
	 "may the guest be a hypervisor? off (default); on: if this\n"
	 "host can; require: or fail",
	 OPTION_STRING, MACHINE(nested), 0, 0},
	{"test-devices", NULL,
	 "devices that kvm-unit-tests need: fw_cfg, pc-testdev,\n"
	 "the Shutdown port, HPET; implies --debug-exit, and --nested on\n"
	 "unless that says otherwise",
	 OPTION_FLAG, MACHINE(test_devices), 0, 0},
	{"paused", NULL, "do not start the guest; 'cont' does", OPTION_FLAG, AT(paused), 0, 0},
};

static const char *const no_positional[] = {NULL};

static const struct syntax syntax = {
	.command = "run",
	.synopsis = "--kernel FILE [OPTION]...",
	.about = "Boot a guest and run it until it powers off, a QMP client says quit, or SIGINT "
		 "or\n"
		 "SIGTERM arrives. With --serial stdio on a terminal, keys go to the guest.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = no_positional,
	.epilogue = "Exit status: 0 the guest powered off or was told to end, 1 an error, 2 wrong\n"
		    "usage, 3 an incoming migration failed, 4 it was cancelled; with --debug-exit\n"
		    "also the status the guest chose.\n"
		    "\n"
		    "Example:\n"
		    "  godwit run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 \\\n"
		    "      --memory 2G --cpus 2 --qmp unix:/tmp/vm.qmp",
};

static int check(const struct run_options *o, struct err *e)
{
	if (o->incoming && o->paused)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--paused does not go with --incoming: an arriving guest runs if it "
			       "ran where it came from");
	if (o->incoming && (o->machine.kernel || o->machine.initrd || o->machine.append))
		return err_set(
			e, ERR_USAGE, EINVAL,
			"--kernel, --initrd and --append do not go with --incoming: what the "
			"guest boots when it resets comes with it");
	if (o->incoming && o->machine.nested)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--nested does not go with --incoming: whether the guest may be a "
			       "hypervisor comes with it");
	if (o->incoming && o->machine.prealloc && !o->machine.memory_bytes)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--prealloc with --incoming needs --memory: how much the guest has "
			       "is not known before it comes");
	if (o->paused && !o->machine.qmp)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--paused needs --qmp: nobody could start the guest");
	if (o->incoming && !strcmp(o->incoming, "defer") && !o->machine.qmp)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--incoming defer needs --qmp: nobody could send migrate-incoming");
	return 0;
}

static void set_defaults(struct run_options *o)
{
	if (o->incoming)
		return; /* the stream says; what was given here is checked against it */
	if (!o->machine.memory_bytes)
		o->machine.memory_bytes = 512ull << 20;
	if (!o->machine.nr_cpus)
		o->machine.nr_cpus = 1;
}

/* Standard output may be the guest's serial port. */
static void on_listening(void *ctx, const char *address)
{
	(void)ctx;
	fprintf(stderr, "waiting for a guest at %s\n", address);
}

int cmd_run(int argc, char **argv)
{
	struct run_options o = {.machine = {.serial = "stdio"}};
	struct session_config config = {.observer = {.on_listening = on_listening}};
	struct positionals positionals;
	struct session *session;
	struct err e = ERR_INIT;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &positionals);

	if (status >= 0)
		return status;
	set_defaults(&o);
	if (check(&o, &e) < 0)
		return command_fail(&e);
	config.incoming = o.incoming;
	config.paused = o.paused;
	if (machine_options_apply(&o.machine, o.incoming, &config, &e) < 0 ||
	    session_new(&config, &session, &e) < 0)
		return command_fail(&e);
	status = session_run(session);
	session_free(session);
	return status;
}
