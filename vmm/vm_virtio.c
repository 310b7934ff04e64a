/* The machine's virtio devices: made from its config, listed for its guest, described for a peer.
 */
#include "vmm/vm_private.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/acpi/acpi.h"
#include "vmm/block/disk_spec.h"
#include "vmm/net/virtio_net.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/kinds.h"
#include "vmm/virtio/mmio.h"

/* ---- Making them ---- */

/* How many of the first @nr are of type @type: the next one's instance. */
static uint32_t count_type(const struct vm_config *c, uint32_t nr, const char *type)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < nr; i++)
		n += strcmp(c->virtio[i].type, type) == 0;
	return n;
}

static bool is_copied(const struct vm *vm, const struct virtio_spec *spec, uint32_t instance)
{
	return strcmp(spec->type, VIRTIO_BLK_TYPE) == 0 && instance < 32 &&
	       vm->config.copied_disks >> instance & 1;
}

static int make(struct vm *vm, uint32_t slot, struct device **out, struct err *e)
{
	struct virtio_spec spec = vm->config.virtio[slot];
	uint32_t instance = count_type(&vm->config, slot, spec.type);
	struct virtio_kind *kind = NULL;
	int ret = is_copied(vm, &spec, instance)
			  ? disk_spec_add_copy(spec.spec, sizeof(spec.spec), e)
			  : 0;

	if (ret == 0)
		ret = virtio_kind_new(&spec, instance, &kind, e);
	if (!kind)
		return ret;
	return virtio_mmio_new(&vm->machine, kind, slot, instance,
			       spec.has_face ? &spec.face : NULL, out, e);
}

int vm_add_virtio(struct vm *vm, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < vm->config.nr_virtio && ret == 0; i++) {
		struct device *d = NULL;

		ret = vm_add_device(vm, make(vm, i, &d, e), &d, e);
		if (ret == 0)
			vm->virtio[vm->nr_virtio++] = d;
	}
	return ret;
}

int vm_add_ioeventfd(void *ctx, uint64_t gpa, uint32_t value, int fd, struct err *e)
{
	struct vm *vm = ctx;
	struct kvm_ioeventfd io = {.datamatch = value,
				   .addr = gpa,
				   .len = sizeof(value),
				   .fd = fd,
				   .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};

	if (ioctl(vm->fd, KVM_IOEVENTFD, &io) < 0)
		return err_sys(e, "KVM_IOEVENTFD at 0x%llx", (unsigned long long)gpa);
	return 0;
}

/* ---- For the guest ---- */

uint32_t vm_list_virtio(const struct vm *vm, struct acpi_mmio_device *out)
{
	for (uint32_t i = 0; i < vm->nr_virtio; i++)
		out[i] = (struct acpi_mmio_device){.hid = "LNRO0005",
						   .uid = i,
						   .base = virtio_mmio_base(i),
						   .bytes = VIRTIO_MMIO_BYTES,
						   .gsi = virtio_mmio_gsi(i)};
	return vm->nr_virtio;
}

static bool is_net(const struct device *d)
{
	return !strcmp(d->ops->type, "virtio-net");
}

void vm_announce(struct vm *vm, const struct announce_params *p)
{
	for (uint32_t i = 0; i < vm->nr_virtio; i++)
		if (is_net(vm->virtio[i]))
			virtio_net_announce(virtio_mmio_kind(vm->virtio[i]), p);
}

void vm_attract(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_virtio; i++)
		if (is_net(vm->virtio[i]))
			virtio_net_attract(virtio_mmio_kind(vm->virtio[i]));
}

/* ---- For the peer ---- */

static uint32_t slot_of(const struct vm *vm, const struct device *d)
{
	uint32_t slot = 0;

	while (slot < vm->nr_virtio && vm->virtio[slot] != d)
		slot++;
	return slot;
}

bool vm_describe_virtio(const struct vm *vm, const struct device *d, struct vm_virtio_wire *w)
{
	uint32_t slot = slot_of(vm, d);

	if (slot == vm->nr_virtio)
		return false;
	virtio_mmio_face(d, &w->face);
	godwit__virtio_config__init(&w->msg);
	w->msg.has_features = w->msg.has_nr_queues = w->msg.has_config = 1;
	w->msg.features = w->face.features;
	w->msg.nr_queues = w->face.nr_queues;
	w->msg.config = (ProtobufCBinaryData){.len = w->face.config_bytes, .data = w->face.config};
	if (virtio_kind_back_end_travels(d->ops->type))
		w->msg.back_end = (char *)(uintptr_t)vm->config.virtio[slot].spec;
	return true;
}

static int copy_text(const char *from, char *to, size_t cap, struct err *e)
{
	if (snprintf(to, cap, "%s", from) >= (int)cap)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "machine description: '%.32s...' is too long", from);
	return 0;
}

int vm_config_add_virtio(struct vm_config *config, const Godwit__DeviceConfig *m, struct err *e)
{
	const Godwit__VirtioConfig *v = m->virtio;
	struct virtio_spec *spec;

	if (!v)
		return 0;
	if (config->nr_virtio == VIRTIO_MAX_DEVICES || !m->type || !v->has_features ||
	    !v->has_nr_queues || !v->has_config || v->config.len > VIRTIO_MAX_CONFIG_BYTES ||
	    v->nr_queues > VIRTIO_MAX_QUEUES)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "machine description: too many virtio devices, or one with fields "
			       "missing or out of bounds");
	spec = &config->virtio[config->nr_virtio++];
	*spec = (struct virtio_spec){.has_face = true,
				     .face = {.features = v->features,
					      .nr_queues = v->nr_queues,
					      .config_bytes = (uint32_t)v->config.len}};
	if (v->config.len)
		memcpy(spec->face.config, v->config.data, v->config.len);
	if (copy_text(m->type, spec->type, sizeof(spec->type), e) < 0)
		return -e->code;
	return copy_text(v->back_end ? v->back_end : "", spec->spec, sizeof(spec->spec), e);
}

/* ---- Between the two ---- */

static struct virtio_spec *nth(struct vm_config *c, const char *type, uint32_t n)
{
	for (uint32_t i = 0; i < c->nr_virtio; i++)
		if (strcmp(c->virtio[i].type, type) == 0 && n-- == 0)
			return &c->virtio[i];
	return NULL;
}

int vm_config_take_back_ends(struct vm_config *there, const struct vm_config *here, struct err *e)
{
	for (uint32_t i = 0; i < here->nr_virtio; i++) {
		const struct virtio_spec *ours = &here->virtio[i];
		uint32_t n = count_type(here, i, ours->type);
		struct virtio_spec *theirs = nth(there, ours->type, n);

		if (!theirs)
			return err_set(e, ERR_USAGE, EINVAL,
				       "the arriving guest has %u devices %s, and the command line "
				       "here names more",
				       n, ours->type);
		memcpy(theirs->spec, ours->spec, sizeof(theirs->spec));
	}
	return 0;
}
