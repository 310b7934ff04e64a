/*
 * KVM's dirty log, read and cleared in one ioctl (KVM API document, 4.8, KVM_GET_DIRTY_LOG): the
 * whole slot is write-protected again at every collect.
 */
#include <errno.h>
#include <stdlib.h>

#include "dirty-tracking/kinds.h"
#include "vmm/base/log.h"

struct bitmap_tracker {
	struct dirty_tracker base; /* first */
	struct bitmap scratch;
};

static struct bitmap_tracker *self(struct dirty_tracker *t)
{
	return (struct bitmap_tracker *)t;
}

static int start(struct dirty_tracker *t, struct err *e)
{
	return vm_set_dirty_logging(t->vm, true, e);
}

static int collect(struct dirty_tracker *t, struct bitmap *set, struct err *e)
{
	return dirty_read_kvm_log(t->vm, &self(t)->scratch, set, e);
}

static void stop(struct dirty_tracker *t)
{
	struct err e = ERR_INIT;

	if (vm_set_dirty_logging(t->vm, false, &e) < 0)
		log_warning("dirty logging stays on and slows the guest down: %s", e.msg);
}

static void release(struct dirty_tracker *t)
{
	bitmap_fini(&self(t)->scratch);
	free(self(t));
}

const struct dirty_ops dirty_bitmap_ops = {
	.name = "bitmap",
	.summary = "KVM_GET_DIRTY_LOG: read and re-protect everything at each round",
	.start = start,
	.collect = collect,
	.stop = stop,
	.free = release,
};

int dirty_bitmap_new(struct vm *vm, struct dirty_tracker **out, struct err *e)
{
	struct bitmap_tracker *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a dirty tracker");
	t->base = (struct dirty_tracker){.ops = &dirty_bitmap_ops, .vm = vm};
	if (bitmap_init(&t->scratch, guest_mem_nr_gfns(vm_mem(vm)), e) < 0) {
		free(t);
		return -e->code;
	}
	*out = &t->base;
	return 0;
}
