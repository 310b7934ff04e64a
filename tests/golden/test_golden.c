/*
 * Every golden stream (tests/golden/README.md) must still be understood: each record, each page,
 * each device's state, and where this host has the CPU it came from the whole machine, which then
 * runs.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "migration/digest.h"
#include "migration/receiver.h"
#include "nested/caps.h"
#include "nested/wire.h"
#include "proto/state.pb-c.h"
#include "proto/stream.pb-c.h"
#include "tests/golden/golden.h"
#include "tests/rig/rig.h"
#include "tests/unit/vmm/tiny_guest.h"
#include "vmm/cpuid.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/serial_backend.h"
#include "vmm/kvm.h"

struct golden {
	char dir[4096];
	struct buf control;
	uint32_t nr_channels;
	struct buf channel[MIGRATION_MAX_CHANNELS];
};

/* ---- The files ---- */

static void golden_open(struct golden *g, const char *version, const char *name)
{
	char path[4200];

	memset(g, 0, sizeof(*g));
	snprintf(g->dir, sizeof(g->dir), "%s/%s/%s", GOLDEN_DIR, version, name);
	golden_path(path, sizeof(path), g->dir, 0);
	if (!golden_read(path, &g->control))
		fail_msg("%s is missing", path);
	do
		golden_path(path, sizeof(path), g->dir, (int)g->nr_channels + 1);
	while (golden_read(path, &g->channel[g->nr_channels]) && ++g->nr_channels);
	assert_true(g->nr_channels >= 1);
}

static void golden_close(struct golden *g)
{
	buf_fini(&g->control);
	for (uint32_t i = 0; i < g->nr_channels; i++)
		buf_fini(&g->channel[i]);
}

static int not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && entry->d_type == DT_DIR;
}

/* @look at each stream of each version. */
static void for_each_golden(void (*look)(struct golden *g))
{
	struct dirent **versions;
	int nr_versions = scandir(GOLDEN_DIR, &versions, not_hidden, alphasort);
	uint32_t nr_streams = 0;

	assert_true(nr_versions >= 1);
	for (int v = 0; v < nr_versions; v++) {
		struct dirent **names;
		char dir[4096];
		int nr;

		snprintf(dir, sizeof(dir), "%s/%s", GOLDEN_DIR, versions[v]->d_name);
		nr = scandir(dir, &names, not_hidden, alphasort);
		for (int i = 0; i < nr; i++, nr_streams++) {
			struct golden g;

			print_message("  %s/%s\n", versions[v]->d_name, names[i]->d_name);
			golden_open(&g, versions[v]->d_name, names[i]->d_name);
			look(&g);
			golden_close(&g);
			free(names[i]);
		}
		free(names);
		free(versions[v]);
	}
	free(versions);
	assert_true(nr_streams >= 1);
}

/* The body of the first record of @type on the control connection. */
static ProtobufCMessage *find(const struct golden *g, uint32_t type,
			      const ProtobufCMessageDescriptor *d)
{
	struct err e = ERR_INIT;
	struct record r;
	size_t len;
	size_t at = 0;

	for (uint32_t i = 0; (len = golden_record(&g->control, at, i, &r)); at += len, i++)
		if (r.type == type)
			return record_unpack(&r, d, &e);
	fail_msg("%s has no %s", g->dir, record_type_name(type));
	return NULL;
}

static void forget(const void *message)
{
	protobuf_c_message_free_unpacked((ProtobufCMessage *)(uintptr_t)message, NULL);
}

/* ---- Records ---- */

static const ProtobufCMessageDescriptor *body_of(uint32_t type)
{
	switch (type) {
	case RECORD_HELLO:
		return &godwit__hello__descriptor;
	case RECORD_DESCRIBE:
		return &godwit__describe__descriptor;
	case RECORD_ROUND:
		return &godwit__round__descriptor;
	case RECORD_STATE:
		return &godwit__machine_state__descriptor;
	case RECORD_DIGEST:
		return &godwit__digest__descriptor;
	case RECORD_COMMIT:
		return &godwit__commit__descriptor;
	default:
		return NULL; /* IMAGE: bytes */
	}
}

static void look_at_records(struct golden *g)
{
	struct record r;
	size_t at = 0;
	size_t len;

	for (uint32_t i = 0; (len = golden_record(&g->control, at, i, &r)); at += len, i++) {
		struct err e = ERR_INIT;
		ProtobufCMessage *m;

		if (!body_of(r.type)) {
			assert_int_equal(r.type, RECORD_IMAGE);
			continue;
		}
		m = record_unpack(&r, body_of(r.type), &e);
		if (!m)
			fail_msg("%s: %s", record_type_name(r.type), e.msg);
		assert_null(m->unknown_fields); /* what was written once is known for ever */
		forget(m);
	}
	assert_int_equal(at, g->control.len);
}

static void records_are_understood(void **state)
{
	(void)state;
	for_each_golden(look_at_records);
}

/* ---- Pages ---- */

static uint32_t last_round(const struct golden *g)
{
	struct record r;
	size_t at = 0;
	size_t len;
	uint32_t nr = 0;

	for (uint32_t i = 0; (len = golden_record(&g->control, at, i, &r)); at += len, i++)
		nr += r.type == RECORD_ROUND;
	return nr;
}

static struct receiver *receive_channel(const struct golden *g, uint32_t i,
					struct receiver_config *config, int *feed)
{
	const struct buf *stream = &g->channel[i];
	struct receiver *receiver;
	struct record hello;
	struct link *link;
	size_t at;
	int ends[2];

	at = golden_record(stream, 0, 0, &hello);
	assert_int_equal(hello.type, RECORD_CHANNEL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	must(link_from_fd(ends[0], NULL, &link, e));
	config->index = i;
	must(receiver_new(config, link, NULL, &receiver, e));
	assert_int_equal(write(ends[1], stream->data + at, stream->len - at), stream->len - at);
	*feed = ends[1];
	return receiver;
}

static void await_round(struct receiver *receiver, uint32_t round)
{
	uint64_t deadline = clock_now_ns() + 60 * NS_PER_S;

	while (receiver_round(receiver) != round) {
		struct err e = ERR_INIT;

		receiver_failure(receiver, &e);
		if (e.kind != ERR_NONE || clock_now_ns() > deadline)
			fail_msg("round %u does not end: %s", round, e.msg);
		usleep(200);
	}
}

/* All channels into one memory, which must then be the source's: DIGEST says. */
static void look_at_pages(struct golden *g)
{
	const void *describe = find(g, RECORD_DESCRIBE, &godwit__describe__descriptor);
	const void *digest = find(g, RECORD_DIGEST, &godwit__digest__descriptor);
	struct receiver_config config = {.nr_channels = g->nr_channels};
	struct receiver *receivers[MIGRATION_MAX_CHANNELS];
	int feeds[MIGRATION_MAX_CHANNELS];
	struct digest ours = {0};
	struct bitmap written;

	must(guest_mem_new(((const Godwit__Describe *)describe)->ram_bytes, &config.mem, e));
	must(bitmap_init(&written, guest_mem_nr_gfns(config.mem), e));
	must(cancel_new(&config.abort, e));
	config.written = &written;
	for (uint32_t i = 0; i < g->nr_channels; i++)
		receivers[i] = receive_channel(g, i, &config, &feeds[i]);
	for (uint32_t i = 0; i < g->nr_channels; i++)
		await_round(receivers[i], last_round(g));
	digest_ram(config.mem, &ours);
	assert_int_equal(ours.ram_low, ((const Godwit__Digest *)digest)->ram_low);
	assert_int_equal(ours.ram_high, ((const Godwit__Digest *)digest)->ram_high);
	for (uint32_t i = 0; i < g->nr_channels; i++) {
		receiver_free(receivers[i]);
		close(feeds[i]);
	}
	cancel_free(config.abort);
	bitmap_fini(&written);
	guest_mem_free(config.mem);
	forget(describe);
	forget(digest);
}

static void pages_arrive(void **state)
{
	(void)state;
	for_each_golden(look_at_pages);
}

/* ---- Devices ---- */

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	(void)ctx;
	(void)gsi;
	(void)level;
}

static void request(void *ctx, enum machine_request what, int code)
{
	(void)ctx;
	(void)what;
	(void)code;
}

static int new_uart(const struct machine *m, struct device **out, struct err *e)
{
	struct serial_backend *null;

	if (serial_backend_new("null", &null, e) < 0)
		return -e->code;
	return uart16550_new(m, null, out, e);
}

/* Those that need no KVM. */
static int (*const constructors[])(const struct machine *, struct device **, struct err *) = {
	new_uart, rtc_new, i8042_new, acpi_pm_new, guest_report_dev_new};

#define NR_DEVICES (sizeof(constructors) / sizeof(constructors[0]))

static bool load(struct device *d, const Godwit__MachineState *state)
{
	for (size_t i = 0; i < state->n_devices; i++) {
		const Godwit__DeviceState *s = state->devices[i];
		struct err e = ERR_INIT;

		if (strcmp(s->type, d->ops->type) != 0)
			continue;
		assert_true(s->version >= d->ops->oldest_loadable);
		if (d->ops->load(d, s->version, s->body.data, s->body.len, &e) < 0)
			fail_msg("%s: %s", s->type, e.msg);
		return true;
	}
	return false;
}

static void look_at_devices(struct golden *g)
{
	const void *state = find(g, RECORD_STATE, &godwit__machine_state__descriptor);
	struct machine m = {.set_irq = set_irq, .request = request};

	must(bus_new(&m.bus, e));
	must(guest_mem_new(16 << 20, &m.mem, e));
	for (size_t i = 0; i < NR_DEVICES; i++) {
		struct device *d;

		must(constructors[i](&m, &d, e));
		if (d->ops->quiesce)
			must(d->ops->quiesce(d, e));
		if (!load(d, state))
			fail_msg("%s has no state of %s", g->dir, d->ops->type);
		d->ops->free(d);
	}
	bus_free(m.bus);
	guest_mem_free(m.mem);
	forget(state);
}

static void devices_load(void **state)
{
	(void)state;
	for_each_golden(look_at_devices);
}

/* ---- The digest ---- */

/* What is compared comes out as it did at whoever wrote the stream, or its guests are refused. */
static void look_at_digest(struct golden *g)
{
	ProtobufCMessage *state = find(g, RECORD_STATE, &godwit__machine_state__descriptor);
	Godwit__Digest *sent = (void *)find(g, RECORD_DIGEST, &godwit__digest__descriptor);
	struct buf packed = BUF_INIT, canonical = BUF_INIT;
	XXH128_hash_t h;

	must(buf_reserve(&packed, protobuf_c_message_get_packed_size(state), e));
	packed.len = protobuf_c_message_pack(state, packed.data);
	must(vm_state_canonical(packed.data, packed.len, &canonical, e));
	h = XXH3_128bits(canonical.data, canonical.len);
	assert_true(h.low64 == sent->state_low && h.high64 == sent->state_high);
	buf_fini(&canonical);
	buf_fini(&packed);
	forget(state);
	forget(sent);
}

static void digests_come_out_as_sent(void **state)
{
	(void)state;
	for_each_golden(look_at_digest);
}

/* ---- The whole machine ---- */

struct replay {
	const struct golden *golden;
	struct uri uri;
	struct link *control;
	struct link *channels[MIGRATION_MAX_CHANNELS];
};

static void send_from(struct link *link, const struct buf *stream, size_t from, size_t to)
{
	must(link_send(link, stream->data + from, to - from, e));
}

/* Where the bytes of STATE begin: they must not overtake the pages. */
static size_t state_offset(const struct buf *control)
{
	struct record r;
	size_t at = 0;
	size_t len;

	for (uint32_t i = 0; (len = golden_record(control, at, i, &r)); at += len, i++)
		if (r.type == RECORD_STATE)
			return at;
	return at;
}

static struct link *connect_to(const struct uri *uri)
{
	struct link *link;

	must(link_connect(uri, 60 * NS_PER_S, NULL, &link, e));
	link_set_stall_timeout(link, 60 * NS_PER_S);
	return link;
}

static int play_channel(struct replay *p, uint32_t i, struct err *e)
{
	const struct buf *stream = &p->golden->channel[i];
	uint8_t answers[RECORD_HEADER_BYTES + 4096];
	size_t nr_answer_bytes = RECORD_HEADER_BYTES + /* CHANNEL_ACK */
				 last_round(p->golden) * sizeof(struct batch_back);

	p->channels[i] = connect_to(&p->uri);
	assert_true(nr_answer_bytes <= sizeof(answers));
	if (link_send(p->channels[i], stream->data, stream->len, e) < 0)
		return -e->code;
	return link_recv(p->channels[i], answers, nr_answer_bytes, e);
}

/* Has it a machine for the guest? */
static int await_machine(struct replay *p, struct err *e)
{
	struct record_stream records;
	struct record r = {.body = BUF_INIT};
	int ret;

	record_stream_init(&records, p->control, "destination");
	ret = record_expect(&records, RECORD_HELLO_ACK, &r, e);
	if (ret == 0)
		ret = record_expect(&records, RECORD_DESCRIBE_ACK, &r, e);
	buf_fini(&r.body);
	return ret;
}

/* The source's part, word for word. Whatever the destination dislikes, it says itself. */
static void play(struct replay *p)
{
	const struct buf *control = &p->golden->control;
	size_t state_at = state_offset(control);
	struct err e = ERR_INIT;
	int ret;

	p->control = connect_to(&p->uri);
	send_from(p->control, control, 0, state_at);
	ret = await_machine(p, &e);
	for (uint32_t i = 0; i < p->golden->nr_channels && ret == 0; i++)
		ret = play_channel(p, i, &e);
	if (ret == 0)
		send_from(p->control, control, state_at, control->len);
}

static void end_play(struct replay *p)
{
	link_free(p->control);
	for (uint32_t i = 0; i < p->golden->nr_channels; i++)
		link_free(p->channels[i]);
}

static int build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	return vm_new(config, tiny_on_event, ctx, vm, e);
}

/* Can a machine like that be made here, and is it the same? */
static int make_like(const ProtobufCBinaryData *machine, struct err *e)
{
	struct vm_config config;
	struct tiny here = {.vm = NULL};
	int ret = vm_config_unpack(machine->data, machine->len, &config, e);

	if (ret == 0)
		ret = vm_new(&config, tiny_on_event, &here, &here.vm, e);
	if (ret == 0)
		ret = vm_check_config(here.vm, machine->data, machine->len, e);
	tiny_free(&here);
	return ret;
}

/* Does this host have the CPU (and the KVM) of the one it was captured on? */
static bool is_at_home(const struct golden *g, const struct migration_report *report)
{
	const Godwit__Describe *describe =
		(const void *)find(g, RECORD_DESCRIBE, &godwit__describe__descriptor);
	struct err e = ERR_INIT;
	bool fits = make_like(&describe->machine, &e) == 0;

	forget(describe);
	if (!fits || strstr(report->error.msg, "MSR")) {
		print_message("    not this host's CPU: %s\n", fits ? report->error.msg : e.msg);
		return false;
	}
	return true;
}

/* @g to a destination of this host: how that ended, and the guest if it is here now. */
static void play_to_destination(struct golden *g, struct migration_report *report,
				struct tiny *arrived)
{
	struct migration_destination_config config = {
		.build = build, .build_ctx = arrived, .accept_timeout_ns = 60 * NS_PER_S};
	struct replay p = {.golden = g};
	struct migration_destination *d;
	struct link_listener *listener;

	must(uri_parse("tcp:127.0.0.1:0", &p.uri, e));
	must(link_listen(&p.uri, &listener, e));
	must(uri_parse(link_listener_address(listener), &p.uri, e));
	must(migration_destination_start(listener, &config, &d, e));
	play(&p);
	migration_destination_wait(d, report, &arrived->vm);
	end_play(&p);
	migration_destination_free(d);
	link_listener_free(listener);
}

static void look_at_the_whole(struct golden *g)
{
	struct tiny arrived = {.vm = NULL};
	struct migration_report report;

	play_to_destination(g, &report, &arrived);
	if (report.status == MIGRATION_COMPLETED)
		tiny_wait_moving(&arrived);
	else if (is_at_home(g, &report))
		fail_msg("%s", report.error.msg);
	tiny_free(&arrived);
}

static void whole_machines_run(void **state)
{
	(void)state;
	rig_need_kvm();
	for_each_golden(look_at_the_whole);
}

/* ---- Hypervisors ---- */

static enum nested_vendor vendor_of(struct golden *g)
{
	const Godwit__Describe *describe =
		(const void *)find(g, RECORD_DESCRIBE, &godwit__describe__descriptor);
	Godwit__MachineConfig *machine =
		godwit__machine_config__unpack(NULL, describe->machine.len, describe->machine.data);
	struct nested_caps caps = {.vendor = NESTED_NONE};

	if (machine->nested)
		must(nested_caps_wire_parse(machine->nested, &caps, e));
	godwit__machine_config__free_unpacked(machine, NULL);
	forget(describe);
	return caps.vendor;
}

static enum nested_vendor vendor_here(void)
{
	struct nested_caps caps;
	char why[200];
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	must(nested_caps_probe(fd, &caps, why, sizeof(why), e));
	close(fd);
	return caps.vendor;
}

/* A hypervisor from a host of another vendor, or from one with nesting to one without: refused
 * before there is any memory, and it says why. */
static void look_at_foreign_hypervisor(struct golden *g)
{
	enum nested_vendor theirs = vendor_of(g);
	enum nested_vendor here = vendor_here();
	struct tiny arrived = {.vm = NULL};
	struct migration_report report;
	char why[80];

	if (theirs == NESTED_NONE || theirs == here)
		return;
	snprintf(why, sizeof(why), "the guest's hypervisor uses %s and this host offers %s",
		 nested_vendor_name(theirs), nested_vendor_name(here));
	play_to_destination(g, &report, &arrived);
	assert_int_equal(report.status, MIGRATION_FAILED);
	assert_int_equal(report.phase, PHASE_DESCRIBE);
	print_message("    %s\n", report.error.msg);
	if (!strstr(report.error.msg,
		    here == NESTED_NONE ? "a guest on this host cannot be a hypervisor" : why))
		fail_msg("that does not say: %s", why);
	tiny_free(&arrived);
}

static void foreign_hypervisors_are_refused(void **state)
{
	(void)state;
	rig_need_kvm();
	for_each_golden(look_at_foreign_hypervisor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_understood),
		cmocka_unit_test(pages_arrive),
		cmocka_unit_test(devices_load),
		cmocka_unit_test(digests_come_out_as_sent),
		cmocka_unit_test(whole_machines_run),
		cmocka_unit_test(foreign_hypervisors_are_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
