#include "vmm/net/net_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/units.h"

static int bad_spec(const char *text, const char *why, struct err *e)
{
	return err_set(e, ERR_USAGE, EINVAL,
		       "network '%.100s': %s; write tap:INTERFACE[,mac=M][,queues=N]", text, why);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Two digits, then @end. */
static bool parse_octet(const char *text, char end, uint8_t *octet)
{
	int high = hex_digit(text[0]);
	int low = high < 0 ? -1 : hex_digit(text[1]);

	if (low < 0 || text[2] != end)
		return false;
	*octet = (uint8_t)(high << 4 | low);
	return true;
}

int net_mac_parse(const char *text, uint8_t mac[NET_MAC_BYTES], struct err *e)
{
	uint8_t octets[NET_MAC_BYTES];
	uint8_t any = 0;

	for (size_t i = 0; i < NET_MAC_BYTES; i++) {
		char end = i == NET_MAC_BYTES - 1 ? '\0' : ':';

		if (!parse_octet(text + 3 * i, end, &octets[i]))
			return err_set(e, ERR_USAGE, EINVAL,
				       "'%.40s' is no MAC address such as 52:54:00:12:34:56", text);
		any |= octets[i];
	}
	if (octets[0] & 1 || !any)
		return err_set(e, ERR_USAGE, EINVAL,
			       "MAC address %s: a card cannot have a group address or all zeroes",
			       text);
	memcpy(mac, octets, sizeof(octets));
	return 0;
}

static int parse_queues(const char *text, uint32_t *nr, struct err *e)
{
	uint64_t value;

	if (units_parse_u64(text, 1, NET_MAX_QUEUES, &value, e) < 0)
		return err_prefix(e, "network queues");
	*nr = (uint32_t)value;
	return 0;
}

static int parse_option(const char *text, char *option, struct net_config *c, struct err *e)
{
	if (!strncmp(option, "mac=", 4)) {
		c->has_mac = true;
		return net_mac_parse(option + 4, c->mac, e);
	}
	if (!strncmp(option, "queues=", 7))
		return parse_queues(option + 7, &c->nr_queues, e);
	return bad_spec(text, "an option that does not exist", e);
}

static int parse_where(const char *text, const char *where, struct net_config *c, struct err *e)
{
	size_t kind_bytes = strcspn(where, ":");
	const char *name = where + kind_bytes + (where[kind_bytes] == ':');

	if (!*name)
		return bad_spec(text, "it names no interface", e);
	if (kind_bytes >= sizeof(c->kind) || strlen(name) >= sizeof(c->name))
		return bad_spec(text, "too long a name", e);
	memcpy(c->kind, where, kind_bytes);
	strcpy(c->name, name);
	return 0;
}

int net_config_parse(const char *text, struct net_config *out, struct err *e)
{
	struct net_config c = {.has_mac = false};
	char copy[160];
	char *rest = copy;
	int ret;

	if (strlen(text) >= sizeof(copy))
		return bad_spec(text, "too long", e);
	strcpy(copy, text);
	ret = parse_where(text, strsep(&rest, ","), &c, e);
	while (!ret && rest)
		ret = parse_option(text, strsep(&rest, ","), &c, e);
	if (!ret)
		*out = c;
	return ret;
}

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3ull;
	return h;
}

static void identify_host(char *out, size_t cap)
{
	FILE *file = fopen("/etc/machine-id", "re");
	size_t len = file ? fread(out, 1, cap - 1, file) : 0;

	if (file)
		fclose(file);
	out[len] = '\0';
	if (!len && gethostname(out, cap - 1))
		out[0] = '\0';
}

void net_mac_generate(const char *name, uint8_t mac[NET_MAC_BYTES])
{
	char host[80] = "";
	uint64_t h;

	identify_host(host, sizeof(host));
	host[sizeof(host) - 1] = '\0';
	h = hash(hash(hash(0xcbf29ce484222325ull, host), "/"), name);
	/* The low bits alone mix badly for names that differ in their last character. */
	h ^= h >> 32;
	mac[0] = 0x52;
	mac[1] = 0x54;
	mac[2] = 0x00;
	for (size_t i = 0; i < 3; i++)
		mac[3 + i] = (uint8_t)(h >> 8 * i);
}
