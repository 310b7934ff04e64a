#include "vmm/vm_private.h"

#include <errno.h>
#include <string.h>

#include "vmm/virtio/balloon.h"
#include "vmm/virtio/mmio.h"

/* NULL: it has none. */
static struct virtio_kind *find(const struct vm *vm, struct err *e)
{
	for (uint32_t i = 0; i < vm->nr_virtio; i++)
		if (!strcmp(vm->virtio[i]->ops->type, "virtio-balloon"))
			return virtio_mmio_kind(vm->virtio[i]);
	err_set(e, ERR_STATE, ENODEV,
		"the guest has no balloon: start it with --balloon to have one");
	return NULL;
}

/* The wish is device state: not between its being captured and its being elsewhere. */
static int check_may_wish(const struct vm *vm, struct err *e)
{
	enum vm_status status = vm_status(vm);

	if (status == VM_INMIGRATE || status == VM_FINISH_MIGRATE || status == VM_POSTMIGRATE)
		return err_set(e, ERR_STATE, EBUSY, "the guest is changing hosts (%s)",
			       vm_status_name(status));
	return 0;
}

static int set_target(struct vm *vm, uint64_t bytes, struct err *e)
{
	struct virtio_kind *balloon = find(vm, e);

	if (!balloon || check_may_wish(vm, e) < 0)
		return -e->code;
	/* In pages of 4 KiB, of which MEM_MAX_BYTES has far fewer than 2^32. */
	virtio_balloon_set_target(balloon,
				  (uint32_t)((vm->config.memory_bytes - bytes) >> PAGE_SHIFT));
	return 0;
}

int vm_balloon_set(struct vm *vm, uint64_t bytes, struct err *e)
{
	int ret;

	if (bytes == 0 || bytes > vm->config.memory_bytes)
		return err_set(e, ERR_USAGE, EINVAL,
			       "the guest has %llu MiB of memory and cannot be left %llu bytes",
			       (unsigned long long)(vm->config.memory_bytes >> 20),
			       (unsigned long long)bytes);
	pthread_mutex_lock(&vm->verbs);
	ret = set_target(vm, bytes, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret;
}

int vm_balloon_query(struct vm *vm, uint64_t *bytes, struct balloon_stats *stats, struct err *e)
{
	struct virtio_kind *balloon = find(vm, e);
	uint64_t given_up;

	if (!balloon)
		return -e->code;
	/* The guest says how much, and may say anything. */
	given_up = (uint64_t)virtio_balloon_actual(balloon) << PAGE_SHIFT;
	*bytes = given_up < vm->config.memory_bytes ? vm->config.memory_bytes - given_up : 0;
	virtio_balloon_stats(balloon, stats);
	return 0;
}
