#include "dirty-tracking/dirty.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "dirty-tracking/kinds.h"
#include "vmm/mem_slots.h"

static const struct {
	const struct dirty_ops *ops;
	int (*new)(struct vm *vm, struct dirty_tracker **out, struct err *e);
} kinds[] = {
	{&dirty_bitmap_ops, dirty_bitmap_new},
	{&dirty_clear_log_ops, dirty_clear_log_new},
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

const struct dirty_ops *dirty_kind(uint32_t i)
{
	return i < NR_KINDS ? kinds[i].ops : NULL;
}

int dirty_new(const char *name, struct vm *vm, struct dirty_tracker **out, struct err *e)
{
	for (uint32_t i = 0; i < NR_KINDS; i++)
		if (!strcmp(kinds[i].ops->name, name))
			return kinds[i].new(vm, out, e);
	return err_set(e, ERR_USAGE, EINVAL,
		       "there is no dirty tracker '%s'; choose bitmap or clear-log", name);
}

void dirty_free(struct dirty_tracker *t)
{
	if (t)
		t->ops->free(t);
}

int dirty_start(struct dirty_tracker *t, struct err *e)
{
	int ret = t->ops->start(t, e);

	/* Marks from before: the first round looks at all that memory holds by now. */
	if (ret == 0)
		guest_mem_drop_marks(vm_mem(t->vm));
	return ret;
}

void dirty_stop(struct dirty_tracker *t)
{
	t->ops->stop(t);
}

int dirty_collect(struct dirty_tracker *t, struct bitmap *set, struct err *e)
{
	if (t->ops->collect(t, set, e) < 0)
		return err_prefix(e, "dirty tracker %s", t->ops->name);
	guest_mem_take_marks(vm_mem(t->vm), set);
	return 0;
}

int dirty_claim(struct dirty_tracker *t, const struct bitmap *set, uint64_t first, uint64_t nr,
		struct err *e)
{
	if (!t->ops->claim)
		return 0;
	if (t->ops->claim(t, set, first, nr, e) < 0)
		return err_prefix(e, "dirty tracker %s", t->ops->name);
	return 0;
}

int dirty_read_kvm_log(struct vm *vm, struct bitmap *scratch, struct bitmap *set, struct err *e)
{
	const struct mem_slots *slots = vm_mem_slots(vm);

	for (uint32_t i = 0; i < mem_slots_nr(slots); i++) {
		const struct mem_slot *slot = mem_slots_at(slots, i);
		uint64_t first_word = slot->gpa / PAGE_BYTES / 64;
		uint64_t nr_words = (slot->bytes / PAGE_BYTES + 63) / 64;
		struct kvm_dirty_log log = {.slot = slot->index,
					    .dirty_bitmap = scratch->words + first_word};

		/* Slots begin at multiples of 64 pages, so KVM's words are ours. */
		if (ioctl(vm_fd(vm), KVM_GET_DIRTY_LOG, &log) < 0)
			return err_sys(e, "KVM_GET_DIRTY_LOG of slot %u", slot->index);
		for (uint64_t w = first_word; w < first_word + nr_words; w++)
			set->words[w] |= scratch->words[w];
	}
	return 0;
}
