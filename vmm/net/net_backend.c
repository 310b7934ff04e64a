#include "vmm/net/net_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct net_backend_ops *const kinds[] = {&net_tap_ops, &net_fd_ops};

static const struct net_backend_ops *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i]->kind, name))
			return kinds[i];
	return NULL;
}

static int configure(struct net_backend *b, const struct net_config *config, struct err *e)
{
	int ret = b->ops->open(b, config, e);

	if (!ret)
		ret = net_backend_set_offloads(b, 0, e);
	if (!ret)
		ret = net_backend_set_queues(b, 1, e);
	return ret;
}

int net_backend_new(const struct net_config *config, struct net_backend **out, struct err *e)
{
	const struct net_backend_ops *ops = find_kind(config->kind);
	struct net_backend *b;
	int ret;

	if (!ops)
		return err_set(e, ERR_USAGE, EINVAL,
			       "network '%s:%s' is of no known kind; use tap:INTERFACE or "
			       "fd:NUMBER",
			       config->kind, config->name);
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for network %s", config->name);
	b->ops = ops;
	b->nr_queues = config->nr_queues ? config->nr_queues : 1;
	b->nr_attached = b->nr_queues; /* a queue is attached by being opened */
	memcpy(b->name, config->name, sizeof(b->name));
	memset(b->fds, -1, sizeof(b->fds));
	ret = configure(b, config, e);
	if (ret < 0) {
		net_backend_free(b);
		return ret;
	}
	*out = b;
	return 0;
}

void net_backend_free(struct net_backend *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < NET_MAX_QUEUES; i++)
		if (b->fds[i] >= 0)
			close(b->fds[i]);
	free(b);
}

int net_backend_set_offloads(struct net_backend *b, uint32_t offloads, struct err *e)
{
	return b->ops->set_offloads(b, offloads & b->offloads, e);
}

int net_backend_set_queues(struct net_backend *b, uint32_t nr, struct err *e)
{
	int ret = nr == b->nr_attached ? 0 : b->ops->set_queues(b, nr, e);

	if (!ret)
		b->nr_attached = nr;
	return ret;
}
