/* What the destination does, in the order of proto/STREAM.md, section 2. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/destination_internal.h"
#include "migration/digest.h"
#include "migration/image.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/base/heap.h"
#include "vmm/base/host_memory.h"

#define HANDSHAKE_NS (10 * NS_PER_S)

int destination_accept(struct migration_destination *d, struct err *e)
{
	if (destination_await_source(d, e) < 0 ||
	    link_accept(d->listener, NULL, d->config.accept_timeout_ns, d->cancel, &d->control, e) <
		    0)
		return -e->code;
	pthread_mutex_lock(&d->lock);
	d->report.started_ns = clock_now_ns();
	pthread_mutex_unlock(&d->lock);
	link_set_stall_timeout(d->control, HANDSHAKE_NS);
	record_stream_init(&d->records, d->control, "source");
	return 0;
}

static int check_hello(struct migration_destination *d, const Godwit__Hello *h, uint32_t *version,
		       struct err *e)
{
	if (!h->has_version_min || !h->has_version_max || !h->has_page_bytes ||
	    !h->has_migration_id || h->migration_id.len != sizeof(d->id))
		return err_set(e, ERR_STREAM, EPROTO, "HELLO lacks a field");
	if (h->version_max < STREAM_VERSION_MIN || h->version_min > STREAM_VERSION_MAX)
		return err_set(e, ERR_UNSUPPORTED, EPROTONOSUPPORT,
			       "the source speaks stream versions %u to %u, this side %d to %d; "
			       "update the older godwit",
			       h->version_min, h->version_max, STREAM_VERSION_MIN,
			       STREAM_VERSION_MAX);
	if (h->page_bytes != PAGE_BYTES)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP, "pages of %u bytes", h->page_bytes);
	*version = h->version_max < STREAM_VERSION_MAX ? h->version_max : STREAM_VERSION_MAX;
	memcpy(d->id, h->migration_id.data, sizeof(d->id));
	return 0;
}

int destination_negotiate(struct migration_destination *d, struct err *e)
{
	char program[] = "godwit " GODWIT_VERSION;
	char host[65] = "";
	Godwit__HelloAck ack = GODWIT__HELLO_ACK__INIT;
	Godwit__Rdma rdma = GODWIT__RDMA__INIT;
	ProtobufCMessage *m;
	int ret;

	if (record_expect(&d->records, RECORD_HELLO, &d->record, e) < 0)
		return -e->code;
	m = record_unpack(&d->record, &godwit__hello__descriptor, e);
	if (!m)
		return -e->code;
	ret = check_hello(d, (const Godwit__Hello *)m, &ack.version, e);
	protobuf_c_message_free_unpacked(m, NULL);
	if (ret < 0)
		return ret;
	gethostname(host, sizeof(host) - 1);
	ack.has_version = 1;
	ack.program = program;
	ack.host = host;
	if (d->rdma) {
		rdma.has_pin_bytes = 1;
		rdma.pin_bytes = d->pin_bytes;
		ack.rdma = &rdma;
	}
	return record_send(&d->records, RECORD_HELLO_ACK, &ack.base, e);
}

static void copy_name(char *to, size_t cap, const char *from)
{
	if (from)
		strncpy(to, from, cap - 1);
}

static int take_description(struct migration_destination *d, const Godwit__Describe *m,
			    struct err *e)
{
	struct vm_config config = {0};

	if (!m->has_machine || !m->has_nr_channels || m->nr_channels < 1 ||
	    m->nr_channels > MIGRATION_MAX_CHANNELS)
		return err_set(e, ERR_STREAM, EPROTO, "DESCRIBE lacks a field or has %u channels",
			       m->nr_channels);
	d->nr_channels = m->nr_channels;
	d->verify = m->has_verify && m->verify;
	pthread_mutex_lock(&d->lock);
	d->report.nr_channels = m->nr_channels;
	d->report.ram_bytes = m->ram_bytes;
	copy_name(d->report.codec, sizeof(d->report.codec), m->codec);
	copy_name(d->report.tracker, sizeof(d->report.tracker), m->tracker);
	pthread_mutex_unlock(&d->lock);
	/* What cannot be taken is refused before there is a machine, let alone bytes of it. */
	if (m->image && image_expect(m->image, &d->image, e) < 0)
		return err_prefix(e, "DESCRIBE");
	if (vm_config_unpack(m->machine.data, m->machine.len, &config, e) < 0 ||
	    destination_expect_disks(m, &config, e) < 0 ||
	    d->config.build(d->config.build_ctx, &config, &d->vm, e) < 0 ||
	    vm_check_config(d->vm, m->machine.data, m->machine.len, e) < 0 ||
	    destination_check_disks(d, m, e) < 0)
		return err_prefix(e, "building the machine");
	vm_set_status(d->vm, VM_INMIGRATE);
	return bitmap_init(&d->written, guest_mem_nr_gfns(vm_mem(d->vm)), e);
}

int destination_describe(struct migration_destination *d, struct err *e)
{
	char notes[512];
	Godwit__DescribeAck ack = GODWIT__DESCRIBE_ACK__INIT;
	ProtobufCMessage *m;
	int ret;

	if (record_expect(&d->records, RECORD_DESCRIBE, &d->record, e) < 0)
		return -e->code;
	m = record_unpack(&d->record, &godwit__describe__descriptor, e);
	if (!m)
		return -e->code;
	ret = take_description(d, (const Godwit__Describe *)m, e);
	protobuf_c_message_free_unpacked(m, NULL);
	if (ret < 0)
		return ret;
	notes[0] = '\0';
	copy_name(notes, sizeof(notes), vm_host_notes(d->vm));
	notes[sizeof(notes) - 1] = '\0';
	ack.notes = notes;
	return record_send(&d->records, RECORD_DESCRIBE_ACK, &ack.base, e);
}

int destination_image(struct migration_destination *d, struct err *e)
{
	if (!d->image)
		return 0;
	if (image_receive(&d->records, &d->record, d->image, d->cancel, d->config.fault, e) < 0)
		return err_prefix(e, "receiving the boot image");
	vm_set_image(d->vm, d->image);
	d->image = NULL;
	return 0;
}

/* The disks' channel comes behind the others. */
static bool is_wanted(const struct migration_destination *d, const Godwit__Channel *c)
{
	if (c->has_disks && c->disks)
		return c->index == d->nr_channels && destination_wants_disks(d);
	return c->index < d->nr_channels && !d->receivers[c->index];
}

/* Does this connection introduce itself as a channel of this migration that we lack? */
static int check_channel(struct migration_destination *d, const struct record *r, uint32_t *index,
			 bool *rdma, struct err *e)
{
	ProtobufCMessage *m = record_unpack(r, &godwit__channel__descriptor, e);
	const Godwit__Channel *c = (const Godwit__Channel *)m;
	int ret = 0;

	if (!m)
		return -e->code;
	*index = c->index;
	*rdma = c->has_rdma && c->rdma;
	if (!c->has_migration_id || c->migration_id.len != sizeof(d->id) ||
	    memcmp(c->migration_id.data, d->id, sizeof(d->id)) != 0 || !c->has_index ||
	    !is_wanted(d, c) || (*rdma && (!d->rdma || c->disks)))
		ret = err_set(e, ERR_STREAM, EPROTO, "a connection that is no channel of ours");
	protobuf_c_message_free_unpacked(m, NULL);
	return ret;
}

static int start_receiver(struct migration_destination *d, struct link *link, uint32_t index,
			  bool rdma, struct err *e)
{
	struct receiver_config config = {.index = index,
					 .nr_channels = d->nr_channels,
					 .mem = vm_mem(d->vm),
					 .written = &d->written,
					 .abort = d->cancel,
					 .fault = d->config.fault};
	struct placement *placement = NULL;
	struct receiver *receiver;

	if (rdma && destination_accept_rdma(d, link, index, &placement, e) < 0) {
		link_free(link);
		return -e->code;
	}
	if (receiver_new(&config, link, placement, &receiver, e) < 0)
		return -e->code;
	pthread_mutex_lock(&d->lock);
	d->receivers[index] = receiver;
	d->nr_receivers++;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

/* A stranger's connection is closed and forgotten; only our own trouble is an error. */
static int admit(struct migration_destination *d, struct link *link, struct err *e)
{
	struct record_stream records;
	struct record r = {.body = BUF_INIT};
	struct err stranger = ERR_INIT;
	uint32_t index = 0;
	bool rdma = false;
	bool ours;

	link_set_stall_timeout(link, HANDSHAKE_NS / 2);
	record_stream_init(&records, link, "source");
	ours = record_expect(&records, RECORD_CHANNEL, &r, &stranger) == 0 &&
	       check_channel(d, &r, &index, &rdma, &stranger) == 0;
	buf_fini(&r.body);
	if (!ours) {
		link_free(link);
		return cancel_check(d->cancel, e);
	}
	/* From here on a quiet channel is no offence: rounds may be far apart. */
	link_set_stall_timeout(link, 0);
	if (record_send(&records, RECORD_CHANNEL_ACK, NULL, e) < 0) {
		link_free(link);
		return -e->code;
	}
	return index == d->nr_channels ? destination_start_disks(d, link, e)
				       : start_receiver(d, link, index, rdma, e);
}

int destination_channels(struct migration_destination *d, struct err *e)
{
	while (d->nr_receivers < d->nr_channels || destination_wants_disks(d)) {
		struct link *link;

		if (fault_point(d->config.fault, "dst.channel", e) < 0 ||
		    link_accept(d->listener, d->control, HANDSHAKE_NS, d->cancel, &link, e) < 0 ||
		    admit(d, link, e) < 0)
			return -e->code;
	}
	/* Nobody else is to come, and a device that is removed would wait for the listener. */
	rdma_listener_free(d->rdma);
	d->rdma = NULL;
	link_set_stall_timeout(d->control, 0);
	heap_warm(); /* for the switch-over */
	return 0;
}

/* The first round names all the memory the guest has touched. Better to say no now than to be
 * killed half way, when nobody can say why. */
static int check_memory(uint64_t pages, struct err *e)
{
	struct host_memory m;

	host_memory_read("", &m);
	if (pages <= m.available_bytes / PAGE_BYTES)
		return 0;
	return err_set(
		e, ERR_SYS, ENOMEM,
		"the guest has %llu MiB in use and this host has %llu MiB left: free memory%s",
		(unsigned long long)(pages * PAGE_BYTES >> 20),
		(unsigned long long)(m.available_bytes >> 20),
		m.limited ? " or raise its control group's limit" : "");
}

static int begin_round(struct migration_destination *d, struct err *e)
{
	ProtobufCMessage *m = record_unpack(&d->record, &godwit__round__descriptor, e);
	const Godwit__Round *round = (const Godwit__Round *)m;
	struct round_report *r;

	if (!m)
		return -e->code;
	if (round->number == 1 && !d->config.has_memory && check_memory(round->pages, e) < 0) {
		protobuf_c_message_free_unpacked(m, NULL);
		return -e->code;
	}
	d->last_round = round->number;
	d->last_round_seen = round->has_last && round->last;
	d->last_disk_pass = round->disk_pass;
	for (uint32_t i = 0; i < d->nr_channels && d->last_round_seen; i++)
		receiver_expect_last(d->receivers[i], d->last_round);
	pthread_mutex_lock(&d->lock);
	if (d->report.nr_rounds < REPORT_MAX_ROUNDS)
		d->report.nr_rounds++;
	r = &d->report.rounds[d->report.nr_rounds - 1];
	r->number = round->number;
	r->dirty_pages = round->pages;
	pthread_mutex_unlock(&d->lock);
	/* The guest has been paused: who asks it something now may be answered by it here. */
	if (d->last_round_seen && d->config.announce.rounds)
		vm_attract(d->vm);
	if (d->config.events.on_round)
		d->config.events.on_round(d->config.events.ctx, round->number, d->last_round_seen);
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

int destination_receive(struct migration_destination *d, struct err *e)
{
	for (;;) {
		if (record_recv(&d->records, &d->record, e) < 0)
			return -e->code;
		if (d->record.type == RECORD_STATE)
			return 0;
		if (d->record.type != RECORD_ROUND)
			return err_set(e, ERR_STREAM, EPROTO,
				       "the source sent %s where ROUND or STATE was due",
				       record_type_name(d->record.type));
		if (begin_round(d, e) < 0)
			return -e->code;
	}
}

/* Every page of every round is in memory: each channel has answered the last round's barrier. */
static int check_complete(struct migration_destination *d, struct err *e)
{
	if (!d->last_round_seen)
		return err_set(e, ERR_STREAM, EPROTO, "STATE came before the last round");
	for (uint32_t i = 0; i < d->nr_channels; i++)
		if (receiver_round(d->receivers[i]) != d->last_round)
			return err_set(e, ERR_STREAM, EPROTO,
				       "STATE came before the end of round %u on channel %u",
				       d->last_round, i);
	return 0;
}

/* What is loaded, verified and run from here on is what is there now. */
static void seal_memory(struct migration_destination *d)
{
	for (uint32_t i = 0; i < d->nr_channels; i++)
		receiver_seal(d->receivers[i]);
}

int destination_load(struct migration_destination *d, struct err *e)
{
	if (check_complete(d, e) < 0)
		return -e->code;
	seal_memory(d);
	if (destination_accept_disks(d, e) < 0)
		return -e->code;
	if (vm_load_state(d->vm, d->record.body.data, d->record.body.len, e) < 0)
		return err_prefix(e, "loading the machine's state");
	return 0;
}

static int own_digest(struct migration_destination *d, struct digest *out, struct err *e)
{
	struct buf state = BUF_INIT;
	int ret = vm_save_state(d->vm, &state, e);

	if (ret == 0)
		ret = digest_make(d->vm, state.data, state.len, out, e);
	buf_fini(&state);
	return ret;
}

int destination_verify(struct migration_destination *d, struct err *e)
{
	struct digest theirs;
	struct digest ours;
	ProtobufCMessage *m;
	const Godwit__Digest *g;

	if (!d->verify)
		return 0;
	if (own_digest(d, &ours, e) < 0 ||
	    record_expect(&d->records, RECORD_DIGEST, &d->record, e) < 0)
		return -e->code;
	m = record_unpack(&d->record, &godwit__digest__descriptor, e);
	if (!m)
		return -e->code;
	g = (const Godwit__Digest *)m;
	theirs = (struct digest){.ram_low = g->ram_low,
				 .ram_high = g->ram_high,
				 .state_low = g->state_low,
				 .state_high = g->state_high,
				 .disk_low = g->disk_low,
				 .disk_high = g->disk_high};
	protobuf_c_message_free_unpacked(m, NULL);
	return digest_compare(&theirs, &ours, e);
}

/*
 * Cancelled, hung up, or COMMIT, whichever is first; but a COMMIT that has come counts, whatever
 * came with it: the source that sent it may be gone by now, and then nobody else has the guest.
 */
static int await_commit(struct migration_destination *d, struct err *e)
{
	if (link_await_input(d->control, e) < 0)
		return -e->code;
	link_forget_cancel(d->control);
	link_set_stall_timeout(d->control, HANDSHAKE_NS);
	return record_expect(&d->records, RECORD_COMMIT, &d->record, e);
}

int destination_ready(struct migration_destination *d, struct err *e)
{
	Godwit__Ready ready = GODWIT__READY__INIT;
	Godwit__Commit *commit;
	struct blackout_view view;

	blackout_view(d->vm, &view);
	blackout_mark(&view, &d->mark);
	if (record_send(&d->records, RECORD_READY, &ready.base, e) < 0 || await_commit(d, e) < 0)
		return -e->code;
	commit = (Godwit__Commit *)record_unpack(&d->record, &godwit__commit__descriptor, e);
	if (!commit)
		return -e->code;
	d->run = commit->has_run && commit->run;
	protobuf_c_message_free_unpacked(&commit->base, NULL);
	return 0;
}

int destination_run(struct migration_destination *d, struct err *e)
{
	Godwit__Running running = GODWIT__RUNNING__INIT;
	struct err ignored = ERR_INIT;

	d->committed = true;
	link_forget_cancel(d->control);
	destination_settle_disks(d, 0);
	vm_set_status(d->vm, VM_PAUSED);
	/* First of all: until switches have learnt it, the guest's frames go to the source. Before
	 * the vCPUs run, lest it wait behind one of them for a processor. */
	vm_announce(d->vm, &d->config.announce);
	if (d->run && vm_resume(d->vm, e) < 0)
		return err_prefix(e, "the guest is here but cannot be resumed");
	/* The guest lives here now; a source that cannot be told is the source's problem. */
	(void)record_send(&d->records, RECORD_RUNNING, &running.base, &ignored);
	return 0;
}

/* Samples are microseconds apart, but a vCPU may have to wait for a processor, about a second at
 * most. By looks, not by the clock: a host that stood still has not let the guest run meanwhile. */
#define BLACKOUT_LOOK_NS (5 * NS_PER_MS)
#define BLACKOUT_LOOKS   200

static enum blackout_answer await_blackout(struct migration_destination *d, uint64_t *gap_ns)
{
	enum blackout_answer answer = BLACKOUT_PENDING;
	struct blackout_view view;

	if (!d->run || !d->mark.nr_cpus)
		return BLACKOUT_UNTOLD;
	for (int i = 0; i < BLACKOUT_LOOKS && answer == BLACKOUT_PENDING; i++) {
		clock_sleep_until_ns(clock_now_ns() + BLACKOUT_LOOK_NS);
		blackout_view(d->vm, &view);
		answer = blackout_spanning_ns(&view, &d->mark, gap_ns);
	}
	return answer;
}

void destination_report_blackout(struct migration_destination *d)
{
	Godwit__Blackout blackout = GODWIT__BLACKOUT__INIT;
	struct err ignored = ERR_INIT;
	uint64_t gap_ns = 0;
	enum blackout_answer answer = await_blackout(d, &gap_ns);

	blackout.has_gap_ns = answer == BLACKOUT_FELT;
	blackout.has_below_ns = answer == BLACKOUT_BELOW;
	blackout.gap_ns = blackout.below_ns = gap_ns;
	pthread_mutex_lock(&d->lock);
	blackout_take(&blackout, &d->report.blackout);
	pthread_mutex_unlock(&d->lock);
	(void)record_send(&d->records, RECORD_BLACKOUT, &blackout.base, &ignored);
}
