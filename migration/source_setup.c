/* The source's first steps: agree with the destination, describe the machine, open the channels. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "migration/image.h"
#include "migration/rdma/pin_limit.h"
#include "migration/source_internal.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/base/heap.h"
#include "vmm/base/log.h"
#include "vmm/block/disk.h"

static int send_hello(struct migration_source *s, struct err *e)
{
	char program[] = "godwit " GODWIT_VERSION;
	char host[65] = "";
	Godwit__Hello hello = GODWIT__HELLO__INIT;

	gethostname(host, sizeof(host) - 1);
	hello.has_version_min = hello.has_version_max = hello.has_page_bytes = 1;
	hello.version_min = STREAM_VERSION_MIN;
	hello.version_max = STREAM_VERSION_MAX;
	hello.page_bytes = PAGE_BYTES;
	hello.has_migration_id = 1;
	hello.migration_id = (ProtobufCBinaryData){.len = sizeof(s->id), .data = s->id};
	hello.program = program;
	hello.host = host;
	return record_send(&s->records, RECORD_HELLO, &hello.base, e);
}

/* Both ends pin the same regions, so the smaller budget is the budget of both. */
static int plan_rdma(struct migration_source *s, const Godwit__HelloAck *ack, struct err *e)
{
	struct pin_limit limit;
	bool shrunk = false;

	if (!ack->rdma || !ack->rdma->has_pin_bytes)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "the destination takes no RDMA: start it with 'godwit receive %s'",
			       s->uri.text);
	if (pin_limit_probe(&limit, e) < 0 ||
	    pin_limit_apply(&limit, s->params.rdma_pin_bytes, s->params.nr_channels, &s->pin_bytes,
			    &shrunk, e) < 0)
		return -e->code;
	if (shrunk)
		log_warning("RDMA: RLIMIT_MEMLOCK allows %llu KiB of the budget: raise it with "
			    "'ulimit -l' or LimitMEMLOCK= to pin more",
			    (unsigned long long)s->pin_bytes / 1024);
	if (ack->rdma->pin_bytes < s->pin_bytes)
		s->pin_bytes = ack->rdma->pin_bytes;
	if (s->pin_bytes < s->params.nr_channels * PIN_MIN_CHANNEL_BYTES)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "the destination pins only %llu KiB for RDMA: raise its --rdma-pin",
			       (unsigned long long)s->pin_bytes / 1024);
	return 0;
}

/* RDMA if the address asks for it; without, only if the user allows that. */
static int choose_transport(struct migration_source *s, const Godwit__HelloAck *ack, struct err *e)
{
	struct err cause;

	if (s->uri.scheme != URI_RDMA || plan_rdma(s, ack, e) == 0)
		return 0;
	s->pin_bytes = 0;
	if (!s->params.rdma_fallback) {
		cause = *e;
		return err_set(e, cause.kind, cause.code,
			       "%s; with --rdma-fallback tcp the guest would go over TCP",
			       cause.msg);
	}
	log_warning("%s: going over TCP: %s", s->uri.text, e->msg);
	err_clear(e);
	pthread_mutex_lock(&s->lock);
	s->report.nr_fallbacks = s->params.nr_channels;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int read_hello_ack(struct migration_source *s, const struct record *r, struct err *e)
{
	ProtobufCMessage *m = record_unpack(r, &godwit__hello_ack__descriptor, e);
	const Godwit__HelloAck *ack = (const Godwit__HelloAck *)m;
	int ret = 0;

	if (!m)
		return -e->code;
	if (!ack->has_version || ack->version < STREAM_VERSION_MIN ||
	    ack->version > STREAM_VERSION_MAX)
		ret = err_set(e, ERR_STREAM, EPROTO,
			      "the destination chose stream version %u; this side speaks %d to %d",
			      ack->version, STREAM_VERSION_MIN, STREAM_VERSION_MAX);
	else
		ret = choose_transport(s, ack, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return ret;
}

int source_negotiate(struct migration_source *s, struct err *e)
{
	struct record r = {.body = BUF_INIT};
	uint64_t sent_ns;
	int ret;

	if (getrandom(s->id, sizeof(s->id), 0) != (ssize_t)sizeof(s->id))
		return err_sys(e, "getrandom");
	if (link_connect(&s->uri, s->params.connect_timeout_ns, s->cancel, &s->control, e) < 0)
		return -e->code;
	link_set_stall_timeout(s->control, s->params.stall_timeout_ns);
	record_stream_init(&s->records, s->control, "destination");
	sent_ns = clock_now_ns();
	ret = send_hello(s, e);
	if (ret == 0)
		ret = record_expect(&s->records, RECORD_HELLO_ACK, &r, e);
	s->rtt_ns = clock_now_ns() - sent_ns;
	if (ret == 0)
		ret = read_hello_ack(s, &r, e);
	buf_fini(&r.body);
	return ret;
}

void source_undo_negotiate(struct migration_source *s)
{
	if (!s->control)
		return;
	link_forget_cancel(s->control);
	if (!s->committed && s->failure.kind == ERR_PEER && s->failure.code != ECONNABORTED)
		record_hear_last_words(&s->records, &s->failure);
	else if (!s->committed)
		record_send_abort(&s->records, &s->failure);
	link_free(s->control);
	s->control = NULL;
}

static uint32_t list_disks(struct migration_source *s, Godwit__Disk *wires, Godwit__Disk **list)
{
	struct disk_report *r = &s->report.disks;

	pthread_mutex_lock(&s->lock);
	r->nr = s->disks.nr;
	for (uint32_t i = 0; i < s->disks.nr; i++) {
		godwit__disk__init(&wires[i]);
		wires[i].has_size = wires[i].has_copy = 1;
		wires[i].size = disk_bytes(s->disks.at[i].disk);
		wires[i].copy = s->disks.at[i].copy;
		list[i] = &wires[i];
		r->nr_copied += s->disks.at[i].copy;
		r->bytes += s->disks.at[i].copy ? wires[i].size : 0;
	}
	pthread_mutex_unlock(&s->lock);
	return s->disks.nr;
}

static int send_description(struct migration_source *s, struct err *e)
{
	struct buf machine = BUF_INIT;
	Godwit__Describe d = GODWIT__DESCRIBE__INIT;
	Godwit__Image image;
	Godwit__Disk disks[DISK_SET_MAX];
	Godwit__Disk *disk_list[DISK_SET_MAX];
	int ret = vm_describe(s->vm, &machine, e);

	if (ret == 0) {
		d.n_disks = list_disks(s, disks, disk_list);
		d.disks = disk_list;
		d.has_machine = d.has_nr_channels = d.has_verify = d.has_ram_bytes = 1;
		d.machine = (ProtobufCBinaryData){.len = machine.len, .data = machine.data};
		d.nr_channels = s->params.nr_channels;
		d.verify = s->params.verify;
		d.ram_bytes = guest_mem_bytes(vm_mem(s->vm));
		d.codec = s->params.codec;
		d.tracker = s->params.tracker;
		if (vm_image(s->vm)) {
			image_describe(vm_image(s->vm), &image);
			d.image = &image;
		}
		ret = record_send(&s->records, RECORD_DESCRIBE, &d.base, e);
	}
	buf_fini(&machine);
	return ret;
}

/* Introduce a fresh connection as channel @index. */
static int join_channel(struct migration_source *s, struct link *link, uint32_t index, bool disks,
			struct err *e)
{
	struct record_stream records;
	struct record r = {.body = BUF_INIT};
	Godwit__Channel c = GODWIT__CHANNEL__INIT;
	int ret;

	c.has_migration_id = c.has_index = 1;
	c.has_rdma = c.rdma = s->pin_bytes != 0 && !disks;
	c.migration_id = (ProtobufCBinaryData){.len = sizeof(s->id), .data = s->id};
	c.index = index;
	c.has_disks = disks;
	c.disks = disks;
	record_stream_init(&records, link, "destination");
	ret = record_send(&records, RECORD_CHANNEL, &c.base, e);
	/* A destination that gives up says so on the control connection, and may never have seen
	 * this one. */
	if (ret == 0)
		ret = link_poll_beside(link_fd(link), POLLIN, s->control, s->cancel,
				       s->params.stall_timeout_ns, e);
	if (ret == 0)
		ret = record_expect(&records, RECORD_CHANNEL_ACK, &r, e);
	buf_fini(&r.body);
	return ret;
}

int source_connect_channel(struct migration_source *s, uint32_t index, bool disks,
			   struct link **out, struct err *e)
{
	struct link *link;
	int ret = link_connect(&s->uri, s->params.connect_timeout_ns, s->cancel, &link, e);

	if (ret < 0)
		return ret;
	link_set_stall_timeout(link, s->params.stall_timeout_ns);
	ret = join_channel(s, link, index, disks, e);
	if (ret < 0)
		link_free(link);
	else
		*out = link;
	return ret;
}

static int open_channel(struct migration_source *s, uint32_t index, struct err *e)
{
	struct sender_config config = {.index = index,
				       .nr_channels = s->params.nr_channels,
				       .mem = vm_mem(s->vm),
				       .tracker = s->tracker,
				       .abort = s->cancel,
				       .fault = s->fault};
	struct pagechan_source from = {.uri = &s->uri,
				       .params = &s->params,
				       .migration_id = s->id,
				       .index = index,
				       .mem = vm_mem(s->vm),
				       .limit = s->limit,
				       .cancel = s->cancel,
				       .fault = s->fault,
				       .pin_bytes = s->pin_bytes / s->params.nr_channels};
	struct pagechan *chan;
	struct sender *sender;
	struct link *link = NULL;

	if (source_connect_channel(s, index, false, &link, e) < 0)
		return -e->code;
	if (pagechan_open(&from, link, &chan, e) < 0 || sender_new(&config, chan, &sender, e) < 0)
		return -e->code;
	pthread_mutex_lock(&s->lock);
	s->senders[s->nr_senders++] = sender;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* Tell the destination what is coming; it answers when it has built the machine. */
static int describe(struct migration_source *s, struct err *e)
{
	struct record r = {.body = BUF_INIT};
	int ret = send_description(s, e);

	if (ret == 0)
		ret = record_expect(&s->records, RECORD_DESCRIBE_ACK, &r, e);
	buf_fini(&r.body);
	if (ret == 0 && vm_image(s->vm))
		ret = image_send(&s->records, vm_image(s->vm), s->limit, s->cancel, s->fault, e);
	return ret;
}

int source_describe(struct migration_source *s, struct err *e)
{
	int ret = source_look_at_disks(s, e);

	if (ret == 0)
		ret = describe(s, e);
	if (ret == 0)
		ret = dirty_new(s->params.tracker, s->vm, &s->tracker, e);
	for (uint32_t i = 0; ret == 0 && i < s->params.nr_channels; i++) {
		ret = fault_point(s->fault, "src.channel", e);
		if (ret == 0)
			ret = open_channel(s, i, e);
		if (ret < 0)
			err_prefix(e, "channel %u", i);
	}
	return ret == 0 ? source_open_disks(s, e) : ret;
}

void source_undo_describe(struct migration_source *s)
{
	struct sender *senders[MIGRATION_MAX_CHANNELS];
	uint32_t nr;

	pthread_mutex_lock(&s->lock);
	nr = s->nr_senders;
	memcpy(senders, s->senders, sizeof(senders));
	s->nr_senders = 0;
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < nr; i++)
		sender_free(senders[i]);
	source_close_disks(s);
	dirty_free(s->tracker);
	s->tracker = NULL;
}

int source_track(struct migration_source *s, struct err *e)
{
	struct blackout_view view;

	blackout_view(s->vm, &view);
	blackout_mark(&view, &s->began);
	heap_warm(); /* for the switch-over */
	s->tracking = true;
	return dirty_start(s->tracker, e);
}

void source_undo_track(struct migration_source *s)
{
	source_lift_throttle(s);
	if (s->tracking)
		dirty_stop(s->tracker);
	s->tracking = false;
}
