/* The machine's disks, as a migration sees them. */
#include "vmm/vm_private.h"

#include <string.h>

#include "vmm/block/disk.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/mmio.h"

static struct disk *disk_of(const struct device *d)
{
	if (strcmp(d->ops->type, VIRTIO_BLK_TYPE) != 0)
		return NULL;
	return virtio_blk_disk(virtio_mmio_kind(d));
}

uint32_t vm_nr_disks(const struct vm *vm)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < vm->nr_devices; i++)
		nr += disk_of(vm->devices[i]) != NULL;
	return nr;
}

struct disk *vm_disk(const struct vm *vm, uint32_t index)
{
	for (uint32_t i = 0; i < vm->nr_devices; i++)
		if (disk_of(vm->devices[i]) && index-- == 0)
			return disk_of(vm->devices[i]);
	return NULL;
}

int vm_seize_disks(struct vm *vm, struct err *e)
{
	for (uint32_t i = 0; i < vm_nr_disks(vm); i++)
		if (disk_seize(vm_disk(vm, i), e) < 0)
			return err_prefix(e, "disk %u: the guest seems to run elsewhere", i);
	return 0;
}
