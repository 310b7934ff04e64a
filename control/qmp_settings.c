#include "control/qmp_settings.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "migration/rdma/pin_limit.h"
#include "vmm/base/clock.h"

struct capability {
	const char *name;
	size_t offset; /* of a bool in struct migration_settings */
};

#define SETTING(member) offsetof(struct migration_settings, member)

static const struct capability capabilities[] = {
	{"auto-converge", SETTING(params.auto_converge)},
	{"events", SETTING(events)},
	{"multifd", SETTING(multifd)},
	{"x-godwit-verify", SETTING(params.verify)},
	{"x-godwit-rdma-fallback", SETTING(params.rdma_fallback)},
};

#define NR_CAPABILITIES (sizeof(capabilities) / sizeof(capabilities[0]))

json_t *qmp_capabilities_to_json(const struct migration_settings *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < NR_CAPABILITIES; i++) {
		const bool *state = (const void *)((const char *)s + capabilities[i].offset);

		json_array_append_new(list, json_pack("{s:s,s:b}", "capability",
						      capabilities[i].name, "state", *state));
	}
	return list;
}

static int set_capability(struct migration_settings *s, const char *name, bool state, struct err *e)
{
	for (size_t i = 0; i < NR_CAPABILITIES; i++) {
		if (strcmp(name, capabilities[i].name))
			continue;
		*(bool *)(void *)((char *)s + capabilities[i].offset) = state;
		return 0;
	}
	return err_set(e, ERR_USAGE, EINVAL,
		       "Parameter 'capability' does not accept value '%.100s'", name);
}

int qmp_capabilities_set(struct migration_settings *s, json_t *list, struct err *e)
{
	static const struct qmp_arg members[] = {{"capability", QMP_STRING, false},
						 {"state", QMP_BOOL, false},
						 {NULL, QMP_INT, true}};
	struct migration_settings changed = *s;
	char path[40];
	json_t *item;
	size_t i;
	int ret;

	json_array_foreach(list, i, item)
	{
		if (!json_is_object(item))
			return err_set(e, ERR_USAGE, EINVAL,
				       "Invalid parameter type for 'capabilities[%zu]', expected: "
				       "object",
				       i);
		snprintf(path, sizeof(path), "capabilities[%zu].", i);
		ret = qmp_args_check(members, item, path, e);
		if (!ret)
			ret = set_capability(&changed,
					     json_string_value(json_object_get(item, "capability")),
					     json_is_true(json_object_get(item, "state")), e);
		if (ret < 0)
			return ret;
	}
	*s = changed;
	return 0;
}

/* A parameter: where it lives, in which unit QMP speaks of it, and its limits there. */
struct parameter {
	enum qmp_type type;
	size_t offset;
	size_t size;
	uint64_t unit; /* QMP's unit in ours: NS_PER_MS for milliseconds */
	uint64_t min;
	uint64_t max;
	const char *range; /* the limits in words */
};

#define MS_PARAMETER(member, low)                                                    \
	{                                                                            \
		QMP_INT, SETTING(member), sizeof(uint64_t), NS_PER_MS, low, 2000000, \
			"an integer in the range of " #low " to (2000 * 1000) ms"    \
	}
#define ANNOUNCE_PARAMETER(member, low, high)                                             \
	{                                                                                 \
		QMP_INT, SETTING(params.announce.member), sizeof(uint32_t), 1, low, high, \
			"a value between " #low " and " #high                             \
	}
#define PERCENT_PARAMETER(member)                                                           \
	{                                                                                   \
		QMP_INT, SETTING(member), 4, 1, 1, 99, "an integer in the range of 1 to 99" \
	}
#define TEXT_PARAMETER(member)                                                                    \
	{                                                                                         \
		QMP_STRING, SETTING(member), sizeof(((struct migration_settings *)0)->member), 0, \
			0, 0, NULL                                                                \
	}

const struct qmp_arg qmp_parameter_args[] = {
	{"max-bandwidth", QMP_INT, true},
	{"downtime-limit", QMP_INT, true},
	{"multifd-channels", QMP_INT, true},
	{"multifd-compression", QMP_STRING, true},
	{"announce-initial", QMP_INT, true},
	{"announce-max", QMP_INT, true},
	{"announce-rounds", QMP_INT, true},
	{"announce-step", QMP_INT, true},
	{"cpu-throttle-initial", QMP_INT, true},
	{"cpu-throttle-increment", QMP_INT, true},
	{"max-cpu-throttle", QMP_INT, true},
	{"x-godwit-downtime-limit-ns", QMP_INT, true},
	{"x-godwit-codec", QMP_STRING, true},
	{"x-godwit-tracker", QMP_STRING, true},
	{"x-godwit-policy", QMP_STRING, true},
	{"x-godwit-copy-disks", QMP_STRING, true},
	{"x-godwit-max-rounds", QMP_INT, true},
	{"x-godwit-connect-timeout", QMP_INT, true},
	{"x-godwit-stall-timeout", QMP_INT, true},
	{"x-godwit-rdma-pin", QMP_INT, true},
	{NULL, QMP_INT, true},
};

/* Same order as the names above. Two names may be one setting: QEMU's, and ours that says it
 * better or finer. */
static const struct parameter parameters[] = {
	{QMP_INT, SETTING(params.max_bytes_per_s), 8, 1, 0, INT64_MAX,
	 "an integer in the range of 0 to 9223372036854775807 bytes/second"},
	MS_PARAMETER(params.downtime_limit_ns, 1),
	{QMP_INT, SETTING(multifd_channels), 4, 1, 1, MIGRATION_MAX_CHANNELS,
	 "a value between 1 and 16"},
	TEXT_PARAMETER(params.codec),
	ANNOUNCE_PARAMETER(initial_ms, 0, 100000),
	ANNOUNCE_PARAMETER(max_ms, 0, 100000),
	ANNOUNCE_PARAMETER(rounds, 0, 1000),
	ANNOUNCE_PARAMETER(step_ms, 0, 10000),
	PERCENT_PARAMETER(params.throttle_initial),
	PERCENT_PARAMETER(params.throttle_increment),
	PERCENT_PARAMETER(params.throttle_max),
	{QMP_INT, SETTING(params.downtime_limit_ns), 8, 1, 1, 2000 * NS_PER_S,
	 "an integer in the range of 1 to 2000000000000 ns"},
	TEXT_PARAMETER(params.codec),
	TEXT_PARAMETER(params.tracker),
	TEXT_PARAMETER(params.policy),
	TEXT_PARAMETER(params.copy_disks),
	{QMP_INT, SETTING(params.max_rounds), 4, 1, 0, 1000000, "a value between 0 and 1000000"},
	MS_PARAMETER(params.connect_timeout_ns, 1),
	MS_PARAMETER(params.stall_timeout_ns, 1),
	{QMP_INT, SETTING(params.rdma_pin_bytes), 8, 1, PIN_MIN_CHANNEL_BYTES, PIN_ALL,
	 "at least 4194304 bytes"},
};

#define NR_PARAMETERS (sizeof(parameters) / sizeof(parameters[0]))

_Static_assert(sizeof(qmp_parameter_args) / sizeof(qmp_parameter_args[0]) == NR_PARAMETERS + 1,
	       "one row for each name");

json_t *qmp_parameters_to_json(const struct migration_settings *s)
{
	json_t *json = json_object();

	for (size_t i = 0; i < NR_PARAMETERS; i++) {
		const struct parameter *p = &parameters[i];
		const char *member = (const char *)s + p->offset;
		uint64_t value = 0;

		if (p->type == QMP_INT) {
			memcpy(&value, member, p->size);
			json_object_set_new(json, qmp_parameter_args[i].name,
					    json_integer((json_int_t)(value / p->unit)));
		} else {
			json_object_set_new(json, qmp_parameter_args[i].name, json_string(member));
		}
	}
	return json;
}

static int set_number(struct migration_settings *s, size_t i, json_t *value, struct err *e)
{
	const struct parameter *p = &parameters[i];
	json_int_t number = json_integer_value(value);
	uint64_t scaled;

	if (number < 0 || (uint64_t)number < p->min || (uint64_t)number > p->max)
		return err_set(e, ERR_USAGE, ERANGE, "Parameter '%s' expects %s",
			       qmp_parameter_args[i].name, p->range);
	scaled = (uint64_t)number * p->unit;
	memcpy((char *)s + p->offset, &scaled, p->size);
	return 0;
}

static int set_text(struct migration_settings *s, size_t i, json_t *value, struct err *e)
{
	const struct parameter *p = &parameters[i];
	const char *text = json_string_value(value);
	struct migration_settings trial = *s;

	if (strlen(text) < p->size) {
		strcpy((char *)&trial + p->offset, text);
		trial.params.nr_channels = 1;
		if (!migration_params_check(&trial.params, e)) {
			strcpy((char *)s + p->offset, text);
			return 0;
		}
		return err_prefix(e, "Parameter '%s' does not accept value '%s'",
				  qmp_parameter_args[i].name, text);
	}
	return err_set(e, ERR_USAGE, EINVAL, "Parameter '%s' does not accept value '%.100s'",
		       qmp_parameter_args[i].name, text);
}

int qmp_parameters_set(struct migration_settings *s, json_t *args, struct err *e)
{
	struct migration_settings changed = *s;

	for (size_t i = 0; i < NR_PARAMETERS; i++) {
		json_t *value = json_object_get(args, qmp_parameter_args[i].name);
		int ret = 0;

		if (value && parameters[i].type == QMP_INT)
			ret = set_number(&changed, i, value, e);
		else if (value)
			ret = set_text(&changed, i, value, e);
		if (ret < 0)
			return ret;
	}
	/* Each is in its range; together they may still make no sense. */
	if (changed.params.throttle_initial > changed.params.throttle_max)
		return err_set(e, ERR_USAGE, EINVAL,
			       "Parameter 'max-cpu-throttle' expects an integer in the range of "
			       "cpu-throttle-initial to 99");
	*s = changed;
	return 0;
}
