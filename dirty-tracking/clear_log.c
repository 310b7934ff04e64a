/*
 * KVM's dirty log with manual protection (KVM API document, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 and
 * 4.117, KVM_CLEAR_DIRTY_LOG): reading the log leaves it as it is, and a page is write-protected
 * again only when its chunk is claimed, just before it is sent. The guest takes its write faults
 * spread over the round instead of all at once, and a page written twice before it is sent is sent
 * once. KVM_DIRTY_LOG_INITIALLY_SET makes starting free: nothing is write-protected at first.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "dirty-tracking/kinds.h"
#include "vmm/base/log.h"
#include "vmm/mem_slots.h"

struct clear_log_tracker {
	struct dirty_tracker base; /* first */
	struct bitmap scratch;
};

static struct clear_log_tracker *self(struct dirty_tracker *t)
{
	return (struct clear_log_tracker *)t;
}

static int set_manual_protect(struct vm *vm, uint64_t flags, struct err *e)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = {flags}};

	return ioctl(vm_fd(vm), KVM_ENABLE_CAP, &cap) < 0
		       ? err_sys(e, "KVM_ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2, %llu)",
				 (unsigned long long)flags)
		       : 0;
}

static int start(struct dirty_tracker *t, struct err *e)
{
	int caps = ioctl(vm_fd(t->vm), KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);

	if (caps <= 0)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "this KVM has no manual dirty-log protection; use --dirty bitmap");
	if (set_manual_protect(t->vm, (uint64_t)caps, e) < 0)
		return -e->code;
	return vm_set_dirty_logging(t->vm, true, e);
}

static int collect(struct dirty_tracker *t, struct bitmap *set, struct err *e)
{
	return dirty_read_kvm_log(t->vm, &self(t)->scratch, set, e);
}

/* Clear the part of [first, end) that lies in @slot. */
static int claim_in_slot(struct dirty_tracker *t, const struct mem_slot *slot,
			 const struct bitmap *set, uint64_t first, uint64_t end, struct err *e)
{
	uint64_t slot_first = slot->gpa / PAGE_BYTES;
	uint64_t slot_end = slot_first + slot->bytes / PAGE_BYTES;
	struct kvm_clear_dirty_log clear = {.slot = slot->index};

	if (first < slot_first)
		first = slot_first;
	if (end > slot_end)
		end = slot_end;
	if (first >= end)
		return 0;
	clear.first_page = first - slot_first;
	clear.num_pages = (uint32_t)(end - first);
	clear.dirty_bitmap = set->words + first / 64;
	if (ioctl(vm_fd(t->vm), KVM_CLEAR_DIRTY_LOG, &clear) < 0)
		return err_sys(e, "KVM_CLEAR_DIRTY_LOG of %llu pages at gfn 0x%llx",
			       (unsigned long long)(end - first), (unsigned long long)first);
	return 0;
}

static int claim(struct dirty_tracker *t, const struct bitmap *set, uint64_t first, uint64_t nr,
		 struct err *e)
{
	const struct mem_slots *slots = vm_mem_slots(t->vm);

	for (uint32_t i = 0; i < mem_slots_nr(slots); i++)
		if (claim_in_slot(t, mem_slots_at(slots, i), set, first, first + nr, e) < 0)
			return -e->code;
	return 0;
}

static void stop(struct dirty_tracker *t)
{
	struct err e = ERR_INIT;

	if (vm_set_dirty_logging(t->vm, false, &e) < 0 || set_manual_protect(t->vm, 0, &e) < 0)
		log_warning("dirty logging stays on and slows the guest down: %s", e.msg);
}

static void release(struct dirty_tracker *t)
{
	bitmap_fini(&self(t)->scratch);
	free(self(t));
}

const struct dirty_ops dirty_clear_log_ops = {
	.name = "clear-log",
	.summary = "KVM_CLEAR_DIRTY_LOG: re-protect chunk by chunk, just before sending",
	.start = start,
	.collect = collect,
	.claim = claim,
	.stop = stop,
	.free = release,
};

int dirty_clear_log_new(struct vm *vm, struct dirty_tracker **out, struct err *e)
{
	struct clear_log_tracker *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a dirty tracker");
	t->base = (struct dirty_tracker){.ops = &dirty_clear_log_ops, .vm = vm};
	if (bitmap_init(&t->scratch, guest_mem_nr_gfns(vm_mem(vm)), e) < 0) {
		free(t);
		return -e->code;
	}
	*out = &t->base;
	return 0;
}
