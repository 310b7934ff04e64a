#include "vmm/block/disk_spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/units.h"

static int bad(const char *text, const char *why, struct err *e)
{
	return err_set(e, ERR_USAGE, EINVAL,
		       "disk '%.100s': %s; write "
		       "PATH[,readonly=on][,queues=N][,serial=S][,lock=off]",
		       text, why);
}

/* Up to the first single comma; *@at is left behind it. */
static int parse_path(const char *text, const char **at, struct disk_spec *s, struct err *e)
{
	const char *from = text;
	size_t len = 0;

	for (; *from && (*from != ',' || from[1] == ','); from++) {
		if (len + 1 == sizeof(s->path))
			return bad(text, "too long a path", e);
		from += *from == ',';
		s->path[len++] = *from;
	}
	s->path[len] = '\0';
	*at = from;
	return len ? 0 : bad(text, "it names no image", e);
}

static int parse_switch(const char *text, const char *value, bool *out, struct err *e)
{
	if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
		return bad(text, "readonly and lock are on or off", e);
	*out = value[1] == 'n';
	return 0;
}

static int parse_queues(const char *value, uint32_t *out, struct err *e)
{
	uint64_t nr = 0;

	if (units_parse_u64(value, 1, DISK_MAX_QUEUES, &nr, e) < 0)
		return err_prefix(e, "disk queues");
	*out = (uint32_t)nr;
	return 0;
}

static int parse_serial(const char *text, const char *value, char *out, struct err *e)
{
	size_t len = strlen(value);

	if (!len || len > DISK_SERIAL_BYTES)
		return bad(text, "a serial has 1 to 20 characters", e);
	memcpy(out, value, len + 1);
	return 0;
}

static int parse_option(const char *text, const char *option, struct disk_spec *s, struct err *e)
{
	const char *value = strchr(option, '=');
	size_t len = value ? (size_t)(value - option) : 0;
	bool lock = true;
	int ret;

	if (!value)
		return bad(text, "an option without a value", e);
	value++;
	if (len == 8 && !memcmp(option, "readonly", len))
		return parse_switch(text, value, &s->readonly, e);
	if (len == 4 && !memcmp(option, "copy", len))
		return parse_switch(text, value, &s->copy, e);
	if (len == 6 && !memcmp(option, "queues", len))
		return parse_queues(value, &s->nr_queues, e);
	if (len == 6 && !memcmp(option, "serial", len))
		return parse_serial(text, value, s->serial, e);
	if (len != 4 || memcmp(option, "lock", len) != 0)
		return bad(text, "an option that does not exist", e);
	ret = parse_switch(text, value, &lock, e);
	s->unlocked = !lock;
	return ret;
}

int disk_spec_parse(const char *text, struct disk_spec *out, struct err *e)
{
	struct disk_spec s = {.nr_queues = 0};
	const char *at = text;
	char rest[160];
	char *next = rest;
	int ret = parse_path(text, &at, &s, e);

	if (ret < 0)
		return ret;
	if (strlen(at) >= sizeof(rest))
		return bad(text, "too many options", e);
	strcpy(rest, *at ? at + 1 : "");
	next = *at ? rest : NULL;
	while (!ret && next)
		ret = parse_option(text, strsep(&next, ","), &s, e);
	if (!ret)
		*out = s;
	return ret;
}

int disk_spec_add_copy(char *text, size_t cap, struct err *e)
{
	static const char option[] = ",copy=on";
	size_t len = strlen(text);

	if (len + sizeof(option) > cap)
		return bad(text, "too long", e);
	memcpy(text + len, option, sizeof(option));
	return 0;
}
