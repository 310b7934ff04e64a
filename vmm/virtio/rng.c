/* Entropy (virtio 1.2, 5.4): one queue of buffers that are filled from the host's getrandom(2). */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "vmm/virtio/kinds.h"

/* A guest that asks for gigabytes is not to keep this thread for seconds: it gets this much of a
 * buffer, and the used length says so (5.4.6.2). */
#define RNG_MAX_BYTES 65536

struct rng {
	struct virtio_kind kind; /* first */
};

static uint32_t fill(const struct virtq_chain *c)
{
	const struct iovec *in = c->iov + c->nr_out;
	uint32_t done = 0;

	for (uint32_t i = 0; i < c->nr_in && done < RNG_MAX_BYTES; i++) {
		size_t room = RNG_MAX_BYTES - done;
		ssize_t got =
			getrandom(in[i].iov_base, in[i].iov_len < room ? in[i].iov_len : room, 0);

		if (got < 0)
			break;
		done += (uint32_t)got;
		if ((size_t)got < in[i].iov_len)
			break;
	}
	return done;
}

static void rng_handle_queue(struct virtio_kind *k, uint32_t index)
{
	struct virtq *q = virtio_queue(k->transport, index);
	struct virtq_chain chain;

	do {
		virtq_kicks_off(q);
		while (virtq_pop(q, &chain) > 0)
			virtq_push(q, &chain, fill(&chain));
	} while (virtq_kicks_on(q));
	virtq_flush(q);
}

static void rng_free(struct virtio_kind *k)
{
	free(k);
}

static const struct virtio_ops rng_ops = {
	.type = "virtio-rng",
	.device_id = VIRTIO_ID_RNG,
	.queue_size = 64,
	.state_version = 1,
	.oldest_loadable = 1,
	.handle_queue = rng_handle_queue,
	.free = rng_free,
};

int virtio_rng_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e)
{
	struct rng *r;

	(void)instance;
	(void)face; /* one like any other */
	if (spec[0])
		return err_set(e, ERR_USAGE, EINVAL, "virtio-rng takes no argument: '%.40s'", spec);
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for virtio-rng");
	r->kind = (struct virtio_kind){.ops = &rng_ops, .nr_queues = 1};
	*out = &r->kind;
	return 0;
}
