/* doctor's look at RDMA: the devices that libibverbs has, their ports and addresses, what they
 * allow. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "control/doctor.h"
#include "vmm/base/units.h"

#define MAX_GIDS 64
#define TEXT     160

struct text {
	char chars[TEXT];
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One more item of a list; what does not fit is left out. */
static void add(struct text *t, const char *fmt, ...)
{
	size_t used = strlen(t->chars);
	va_list ap;

	if (used)
		used += (size_t)snprintf(t->chars + used, TEXT - used, "%s",
					 used + 2 < TEXT ? ", " : "");
	va_start(ap, fmt);
	vsnprintf(t->chars + used, TEXT - used, fmt, ap);
	va_end(ap);
}

/* Call @look with every device, opened; how many there are. */
static int each_device(void (*look)(struct ibv_context *ctx, struct text *out), struct text *out)
{
	int nr = 0;
	struct ibv_device **list = ibv_get_device_list(&nr);

	for (int i = 0; list && i < nr; i++) {
		struct ibv_context *ctx = ibv_open_device(list[i]);

		if (ctx)
			look(ctx, out);
		else
			add(out, "%s (cannot be opened: %s)", list[i]->name,
			    strerrordesc_np(errno));
		if (ctx)
			ibv_close_device(ctx);
	}
	if (list)
		ibv_free_device_list(list);
	return nr;
}

/* ---- devices and ports ---- */

static const char *kind_of_network(const struct ibv_context *ctx, const struct ibv_port_attr *port)
{
	if (ctx->device->transport_type == IBV_TRANSPORT_IWARP)
		return "iWARP";
	return port->link_layer == IBV_LINK_LAYER_ETHERNET ? "RoCE" : "InfiniBand";
}

static void look_at_ports(struct ibv_context *ctx, struct text *out)
{
	struct ibv_port_attr port;

	for (uint8_t nr = 1; ibv_query_port(ctx, nr, &port) == 0; nr++)
		add(out, "%s/%u %s %s, packets of %u bytes", ctx->device->name, nr,
		    kind_of_network(ctx, &port), port.state == IBV_PORT_ACTIVE ? "active" : "down",
		    128u << port.active_mtu);
}

static bool kernel_has_devices(void)
{
	DIR *dir = opendir("/sys/class/infiniband");
	const struct dirent *entry;
	bool any = false;

	while (dir && (entry = readdir(dir)))
		any = any || entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return any;
}

static bool has_connection_manager(void)
{
	struct rdma_event_channel *channel = rdma_create_event_channel();

	if (channel)
		rdma_destroy_event_channel(channel);
	return channel != NULL;
}

static void no_device(struct finding *f)
{
	if (kernel_has_devices()) {
		finding_set(f, VERDICT_ABSENT,
			    "the kernel has RDMA devices, the library none of them");
		finding_remedy(f, "install their providers: apt-get install ibverbs-providers; and "
				  "as root: modprobe ib_uverbs");
		return;
	}
	finding_set(f, VERDICT_ABSENT, "none; migrations go over TCP");
	finding_remedy(f,
		       "soft-RoCE makes one of any network card (to try things, not faster). As "
		       "root: modprobe -a rdma_rxe rdma_ucm && rdma link add rxe0 type rxe netdev "
		       "eth0");
}

static void probe_devices(const struct host *host, struct finding *f)
{
	struct text ports = {""};

	(void)host;
	if (!each_device(look_at_ports, &ports)) {
		no_device(f);
	} else if (!has_connection_manager()) {
		finding_set(f, VERDICT_NOTE, "%s; no connections", ports.chars);
		finding_remedy(f, "as root: modprobe rdma_ucm");
	} else if (!strstr(ports.chars, " active")) {
		finding_set(f, VERDICT_NOTE, "%s", ports.chars);
		finding_remedy(f,
			       "bring its network up: ip link set dev NAME up; cable and switch, "
			       "else");
	} else {
		finding_set(f, VERDICT_OK, "%s", ports.chars);
	}
}

/* ---- addresses ---- */

/* A RoCE v2 address is an IPv6 address, or an IPv4 address mapped into one. */
static void add_gid(struct text *out, const struct ibv_context *ctx,
		    const struct ibv_gid_entry *gid)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (gid->gid_type == IBV_GID_TYPE_ROCE_V1)
		return;
	if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)gid->gid.raw))
		inet_ntop(AF_INET, gid->gid.raw + 12, text, sizeof(text));
	else
		inet_ntop(AF_INET6, gid->gid.raw, text, sizeof(text));
	add(out, "%s GID %u %s", ctx->device->name, gid->gid_index, text);
}

static void look_at_gids(struct ibv_context *ctx, struct text *out)
{
	struct ibv_gid_entry gids[MAX_GIDS];
	ssize_t nr = ibv_query_gid_table(ctx, gids, MAX_GIDS, 0);

	for (ssize_t i = 0; i < nr; i++)
		add_gid(out, ctx, &gids[i]);
}

static void probe_addresses(const struct host *host, struct finding *f)
{
	struct text gids = {""};

	(void)host;
	if (!each_device(look_at_gids, &gids))
		return;
	if (gids.chars[0]) {
		finding_set(f, VERDICT_OK, "%s", gids.chars);
		return;
	}
	finding_set(f, VERDICT_NOTE, "none: rdma:HOST:PORT cannot name these devices");
	finding_remedy(f, "give their network an address: ip addr add ADDRESS/24 dev NAME");
}

/* ---- limits ---- */

static void look_at_limits(struct ibv_context *ctx, struct text *out)
{
	struct ibv_device_attr attr;

	if (ibv_query_device(ctx, &attr))
		return;
	add(out, "%s %d regions, %d queue pairs, %d work requests each", ctx->device->name,
	    attr.max_mr, attr.max_qp, attr.max_qp_wr);
}

static void probe_limits(const struct host *host, struct finding *f)
{
	struct text limits = {""};

	(void)host;
	if (each_device(look_at_limits, &limits))
		finding_set(f, VERDICT_OK, "%s", limits.chars);
}

static void look_at_paging(struct ibv_context *ctx, struct text *out)
{
	struct ibv_device_attr_ex attr;

	if (ibv_query_device_ex(ctx, NULL, &attr) == 0 &&
	    attr.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	    attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE)
		add(out, "%s", ctx->device->name);
}

static void probe_paging(const struct host *host, struct finding *f)
{
	struct text devices = {""};

	(void)host;
	if (!each_device(look_at_paging, &devices))
		return;
	if (devices.chars[0])
		finding_set(f, VERDICT_OK, "%s: on demand, nothing is pinned", devices.chars);
	else
		finding_set(f, VERDICT_ABSENT,
			    "not on demand: memory is pinned, --rdma-pin at a "
			    "time");
}

const struct check doctor_rdma_checks[] = {
	{"RDMA devices", probe_devices, false},
	{"RDMA addresses", probe_addresses, false},
	{"RDMA limits", probe_limits, false},
	{"RDMA paging", probe_paging, false},
	{NULL, NULL, false},
};
