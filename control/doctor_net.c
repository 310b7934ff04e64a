/* doctor's look at what a guest's network card can be plugged into. Interfaces are read from
 * /sys/class/net, which changes nothing and needs no rights. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "control/doctor.h"

#define INTERFACES "/sys/class/net"

static void probe_tun(const struct host *host, struct finding *f)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	unsigned features = 0;

	(void)host;
	if (fd < 0) {
		finding_set(f, VERDICT_ABSENT, "/dev/net/tun: %s; guests have no network",
			    strerrordesc_np(errno));
		finding_remedy(f, errno == EACCES ? "as root: chmod 0666 /dev/net/tun"
						  : "as root: modprobe tun");
		return;
	}
	if (ioctl(fd, TUNGETFEATURES, &features) < 0)
		features = 0;
	close(fd);
	if ((features & IFF_VNET_HDR) && (features & IFF_MULTI_QUEUE))
		finding_set(f, VERDICT_OK, "taps work, with offloads and several queues");
	else
		finding_set(f, VERDICT_NOTE, "taps work%s%s",
			    features & IFF_VNET_HDR ? "" : ", without the headers godwit needs",
			    features & IFF_MULTI_QUEUE ? "" : ", with one queue only");
}

/* What /sys says about an interface; false if it has no such attribute. */
static bool read_attribute(const char *interface, const char *attribute, char *out, size_t cap)
{
	char path[128];
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), INTERFACES "/%.40s/%s", interface, attribute);
	file = fopen(path, "re");
	ok = file && fgets(out, (int)cap, file);
	if (file)
		fclose(file);
	return ok;
}

/* A tap's flags are those of TUNSETIFF; a tun (layer 3) has them too. */
static bool is_my_tap(const char *interface)
{
	char text[32];

	if (!read_attribute(interface, "tun_flags", text, sizeof(text)) ||
	    !(strtoul(text, NULL, 0) & IFF_TAP))
		return false;
	if (!geteuid() || !read_attribute(interface, "owner", text, sizeof(text)))
		return true;
	return strtol(text, NULL, 10) < 0 || (uid_t)strtol(text, NULL, 10) == geteuid();
}

static bool is_bridge(const char *interface)
{
	char text[32];

	return read_attribute(interface, "bridge/bridge_id", text, sizeof(text));
}

/* The names of the interfaces that are @what, each after a space. */
static void list_interfaces(bool (*what)(const char *interface), char *out, size_t cap)
{
	DIR *dir = opendir(INTERFACES);
	const struct dirent *entry;
	size_t used = 0;

	out[0] = '\0';
	while (dir && (entry = readdir(dir)) && used < cap)
		if (entry->d_name[0] != '.' && what(entry->d_name))
			used += (size_t)snprintf(out + used, cap - used, " %s", entry->d_name);
	if (dir)
		closedir(dir);
}

static void probe_taps(const struct host *host, struct finding *f)
{
	char names[120];

	(void)host;
	list_interfaces(is_my_tap, names, sizeof(names));
	if (names[0]) {
		finding_set(f, VERDICT_OK, "this user's:%s", names);
		return;
	}
	finding_set(f, VERDICT_ABSENT, "no tap interface that this user may attach a guest to");
	finding_remedy(f, "as root: ip tuntap add dev tap0 mode tap user %u && ip link set tap0 up",
		       (unsigned)geteuid());
}

static void probe_bridges(const struct host *host, struct finding *f)
{
	char names[120];

	(void)host;
	list_interfaces(is_bridge, names, sizeof(names));
	if (names[0]) {
		finding_set(f, VERDICT_OK, "bridges:%s", names);
		return;
	}
	finding_set(f, VERDICT_ABSENT, "no bridge: a guest on a tap reaches only this host");
	finding_remedy(f, "as root: ip link add br0 type bridge; ip link set br0 up; ip link set "
			  "tap0 master br0 (docs/guide.md, Network)");
}

const struct check doctor_net_checks[] = {
	{"tun device", probe_tun, false},
	{"taps", probe_taps, false},
	{"bridges", probe_bridges, false},
	{NULL, NULL, false},
};
