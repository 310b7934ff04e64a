#include "vmm/virtio/blk_face.h"

#include <errno.h>
#include <string.h>

/* The header and the status take a descriptor each. */
#define SEG_MAX (VIRTQ_MAX_SIZE - 2)

static uint8_t log2_of(uint32_t n)
{
	uint8_t log2 = 0;

	for (; n > 1; n /= 2)
		log2++;
	return log2;
}

static uint64_t features_of(const struct disk *d, uint32_t nr_queues)
{
	uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);

	if (nr_queues > 1)
		features |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	if (disk_is_readonly(d))
		return features | VIRTIO_BIT(VIRTIO_BLK_F_RO);
	return features | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

void blk_face_make(const struct disk *d, uint32_t nr_queues, struct virtio_kind *kind,
		   struct virtio_blk_config *config)
{
	uint32_t physical = disk_physical_block_bytes(d);

	kind->features = features_of(d, nr_queues);
	kind->nr_queues = nr_queues;
	*config = (struct virtio_blk_config){
		.capacity = disk_bytes(d) / DISK_SECTOR_BYTES,
		.seg_max = SEG_MAX,
		.blk_size = DISK_SECTOR_BYTES,
		.physical_block_exp = log2_of(physical / DISK_SECTOR_BYTES),
		.min_io_size = (uint16_t)(physical / DISK_SECTOR_BYTES),
		.num_queues = (uint16_t)nr_queues,
		.max_discard_sectors = BLK_MAX_DISCARD_SECTORS,
		.max_discard_seg = 1,
		.discard_sector_alignment = physical / DISK_SECTOR_BYTES,
		.max_write_zeroes_sectors = BLK_MAX_ZERO_SECTORS,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};
}

static struct virtio_blk_config config_of(const struct virtio_face *face)
{
	struct virtio_blk_config config = {.capacity = 0};

	memcpy(&config, face->config, BLK_CONFIG_BYTES);
	return config;
}

uint64_t blk_face_bytes(const struct virtio_face *face)
{
	return config_of(face).capacity * DISK_SECTOR_BYTES;
}

int blk_face_disk(const struct virtio_face *face, const struct disk_spec *spec,
		  struct disk_config *out, struct err *e)
{
	uint64_t sectors = config_of(face).capacity;

	if (face->config_bytes != BLK_CONFIG_BYTES || !face->nr_queues ||
	    face->nr_queues > DISK_MAX_QUEUES || !sectors ||
	    sectors > DISK_MAX_BYTES / DISK_SECTOR_BYTES)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "virtio-blk: a disk of %llu sectors with %u queues",
			       (unsigned long long)sectors, face->nr_queues);
	out->readonly = face->features & VIRTIO_BIT(VIRTIO_BLK_F_RO);
	if (spec->readonly && !out->readonly)
		return err_set(e, ERR_USAGE, EINVAL,
			       "the guest writes this disk: readonly=on cannot be given for %s",
			       spec->path);
	if (spec->nr_queues && spec->nr_queues != face->nr_queues)
		return err_set(e, ERR_USAGE, EINVAL,
			       "the guest's disk has %u queues, and goes on having them: leave out "
			       "queues=%u",
			       face->nr_queues, spec->nr_queues);
	out->bytes = sectors * DISK_SECTOR_BYTES;
	out->role = spec->copy ? DISK_COPY : DISK_INCOMING;
	return 0;
}

void blk_face_adopt(const struct virtio_face *face, struct virtio_kind *kind,
		    struct virtio_blk_config *config)
{
	kind->nr_queues = face->nr_queues;
	if (face->nr_queues > 1)
		kind->features |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	memcpy(config, face->config, BLK_CONFIG_BYTES);
}
