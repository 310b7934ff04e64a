/*
 * GUEST_REPORT_PORT: the guest writes the page number of its report (vmm/guest_report.h). The VMM
 * learns where to look; what is there is judged by whoever reads it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/base/log.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/state_message.h"
#include "vmm/guest_report.h"

struct guest_report_dev {
	struct device dev;

	/* immutable after new */
	const struct machine *m;

	pthread_mutex_t lock; /* orders writers; readers of gpa use one atomic load */
	uint64_t gpa;         /* 0: none announced */
	bool refusal_logged;
};

static struct guest_report_dev *to_report(struct device *d)
{
	return (struct guest_report_dev *)d;
}

static void set_gpa(struct guest_report_dev *r, uint64_t gpa)
{
	__atomic_store_n(&r->gpa, gpa, __ATOMIC_RELEASE);
}

static bool acceptable(const struct guest_report_dev *r, uint64_t gpa)
{
	return !gpa || (!(gpa % PAGE_BYTES) && guest_mem_contains(r->m->mem, gpa, PAGE_BYTES));
}

static void report_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct guest_report_dev *r = ctx;
	uint32_t gfn = (uint32_t)(guest_report_dev_gpa(&r->dev) >> PAGE_SHIFT);

	memset(data, 0xff, len);
	if (!offset && len == sizeof(gfn))
		memcpy(data, &gfn, sizeof(gfn));
}

static void report_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct guest_report_dev *r = ctx;
	uint32_t gfn;
	uint64_t gpa;

	if (offset || len != sizeof(gfn))
		return;
	memcpy(&gfn, data, sizeof(gfn));
	gpa = (uint64_t)gfn << PAGE_SHIFT;
	pthread_mutex_lock(&r->lock);
	if (acceptable(r, gpa)) {
		set_gpa(r, gpa);
	} else if (!r->refusal_logged) { /* once: a guest must not be able to fill the log */
		log_warning("guest report at 0x%llx is not RAM; ignored", (unsigned long long)gpa);
		r->refusal_logged = true;
	}
	pthread_mutex_unlock(&r->lock);
}

static void report_reset(struct device *d)
{
	struct guest_report_dev *r = to_report(d);

	pthread_mutex_lock(&r->lock);
	set_gpa(r, 0);
	pthread_mutex_unlock(&r->lock);
}

static int report_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__GuestReportState s = GODWIT__GUEST_REPORT_STATE__INIT;

	s.has_gpa = true;
	s.gpa = guest_report_dev_gpa(d);
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit report_limits[] = {{"gpa", MEM_MAX_BYTES * 2}, {NULL, 0}};

static int report_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		       struct err *e)
{
	struct guest_report_dev *r = to_report(d);
	ProtobufCMessage *msg;
	uint64_t gpa;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__guest_report_state__descriptor,
				   report_limits, data, len, &msg, e);
	if (ret)
		return ret;
	gpa = ((const Godwit__GuestReportState *)msg)->gpa;
	protobuf_c_message_free_unpacked(msg, NULL);
	if (!acceptable(r, gpa))
		return err_set(e, ERR_STREAM, EINVAL,
			       "guest-report state: 0x%llx is not a page of RAM",
			       (unsigned long long)gpa);
	pthread_mutex_lock(&r->lock);
	set_gpa(r, gpa);
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static void report_free(struct device *d)
{
	struct guest_report_dev *r = to_report(d);

	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct dev_ops report_ops = {
	.type = "guest-report",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = report_reset,
	.save = report_save,
	.load = report_load,
	.free = report_free,
};

static const struct bus_ops report_bus_ops = {.read = report_read, .write = report_write};

int guest_report_dev_new(const struct machine *m, struct device **out, struct err *e)
{
	struct guest_report_dev *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for guest-report");
	r->dev.ops = &report_ops;
	r->m = m;
	pthread_mutex_init(&r->lock, NULL);
	ret = bus_add(m->bus, BUS_PIO, GUEST_REPORT_PORT, 4, "guest-report", &report_bus_ops, r, e);
	if (ret) {
		report_free(&r->dev);
		return ret;
	}
	*out = &r->dev;
	return 0;
}

uint64_t guest_report_dev_gpa(const struct device *d)
{
	return __atomic_load_n(&((const struct guest_report_dev *)d)->gpa, __ATOMIC_ACQUIRE);
}
