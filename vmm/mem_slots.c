#include "vmm/mem_slots.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

struct mem_slots {
	/* immutable after new */
	int vm_fd;
	const struct guest_mem *mem;
	uint32_t nr;
	struct mem_slot slots[MEM_MAX_SLOTS * MEM_MAX_ADDRESS_SPACES];

	pthread_mutex_t lock; /* guards the rest */
	bool joined;
	pthread_t thread;
	struct err failure; /* the thread's until it is joined */
};

static void lay_out(struct mem_slots *s, uint32_t nr_spaces)
{
	for (uint32_t space = 0; space < nr_spaces; space++)
		for (uint32_t i = 0; i < guest_mem_nr_slots(s->mem); i++) {
			s->slots[s->nr] = *guest_mem_slot(s->mem, i);
			s->slots[s->nr++].index |= space << 16;
		}
}

static int refused(const struct mem_slot *slot, struct err *e)
{
	char space[40] = "";

	if (slot->index >> 16)
		snprintf(space, sizeof(space), " of address space %u", slot->index >> 16);
	return err_sys(e, "KVM does not take guest memory slot %u%s (%llu MiB)",
		       slot->index & 0xffff, space, (unsigned long long)(slot->bytes >> 20));
}

static int set_slots(const struct mem_slots *s, uint32_t flags, struct err *e)
{
	for (uint32_t i = 0; i < s->nr; i++) {
		const struct mem_slot *slot = &s->slots[i];
		struct kvm_userspace_memory_region r = {
			.slot = slot->index,
			.flags = flags,
			.guest_phys_addr = slot->gpa,
			.memory_size = slot->bytes,
			.userspace_addr =
				(uint64_t)(uintptr_t)guest_mem_at(s->mem, slot->gpa, slot->bytes),
		};

		if (ioctl(s->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
			return refused(slot, e);
	}
	return 0;
}

static void *register_all(void *arg)
{
	struct mem_slots *s = arg;

	set_slots(s, 0, &s->failure);
	return NULL;
}

int mem_slots_new(int vm_fd, const struct guest_mem *mem, uint32_t nr_spaces,
		  struct mem_slots **out, struct err *e)
{
	struct mem_slots *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory");
	s->vm_fd = vm_fd;
	s->mem = mem;
	lay_out(s, nr_spaces);
	pthread_mutex_init(&s->lock, NULL);
	ret = pthread_create(&s->thread, NULL, register_all, s);
	if (ret) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return err_set(e, ERR_SYS, ret, "cannot create a thread for guest memory");
	}
	*out = s;
	return 0;
}

void mem_slots_free(struct mem_slots *s)
{
	struct err ignored = ERR_INIT;

	if (!s)
		return;
	(void)mem_slots_await(s, &ignored);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int mem_slots_await(struct mem_slots *s, struct err *e)
{
	pthread_mutex_lock(&s->lock);
	if (!s->joined)
		pthread_join(s->thread, NULL);
	s->joined = true;
	pthread_mutex_unlock(&s->lock);
	if (s->failure.kind == ERR_NONE)
		return 0;
	*e = s->failure;
	return -e->code;
}

uint32_t mem_slots_nr(const struct mem_slots *s)
{
	return s->nr;
}

const struct mem_slot *mem_slots_at(const struct mem_slots *s, uint32_t i)
{
	return i < s->nr ? &s->slots[i] : NULL;
}

int mem_slots_set_logging(struct mem_slots *s, bool on, struct err *e)
{
	if (mem_slots_await(s, e) < 0)
		return -e->code;
	return set_slots(s, on ? KVM_MEM_LOG_DIRTY_PAGES : 0, e);
}
