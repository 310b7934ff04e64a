#include "vmm/virtio/kinds.h"

#include <errno.h>
#include <string.h>

#include "vmm/net/virtio_net.h"
#include "vmm/virtio/blk.h"

static const struct {
	const char *type;
	virtio_kind_new_fn new;
	bool back_end_travels;
} kinds[] = {
	{"virtio-rng", virtio_rng_new, false},
	{"virtio-console", virtio_console_new, false},
	{"virtio-balloon", virtio_balloon_new, false},
	{"virtio-net", virtio_net_new, true},
	/* The peer must not choose which file here is written. */
	{VIRTIO_BLK_TYPE, virtio_blk_new, false},
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

bool virtio_kind_back_end_travels(const char *type)
{
	for (size_t i = 0; i < NR_KINDS; i++)
		if (!strcmp(kinds[i].type, type))
			return kinds[i].back_end_travels;
	return false;
}

int virtio_kind_new(const struct virtio_spec *spec, uint32_t instance, struct virtio_kind **out,
		    struct err *e)
{
	for (size_t i = 0; i < NR_KINDS; i++)
		if (!strcmp(kinds[i].type, spec->type))
			return kinds[i].new(spec->spec, instance,
					    spec->has_face ? &spec->face : NULL, out, e);
	return err_set(e, ERR_UNSUPPORTED, ENODEV, "this godwit has no device %.16s", spec->type);
}
