#include "control/qmp_args.h"

#include <errno.h>
#include <string.h>

static const char *type_name(enum qmp_type type)
{
	switch (type) {
	case QMP_STRING:
		return "string";
	case QMP_BOOL:
		return "boolean";
	case QMP_INT:
		return "integer";
	case QMP_ARRAY:
		return "array";
	}
	return "?";
}

static bool has_type(const json_t *value, enum qmp_type type)
{
	switch (type) {
	case QMP_STRING:
		return json_is_string(value);
	case QMP_BOOL:
		return json_is_boolean(value);
	case QMP_INT:
		return json_is_integer(value);
	case QMP_ARRAY:
		return json_is_array(value);
	}
	return false;
}

static bool is_known(const struct qmp_arg *args, const char *name)
{
	for (; args && args->name; args++)
		if (!strcmp(args->name, name))
			return true;
	return false;
}

int qmp_args_check(const struct qmp_arg *args, json_t *given, const char *path, struct err *e)
{
	const char *key;
	json_t *value;

	for (const struct qmp_arg *arg = args; arg && arg->name; arg++) {
		value = json_object_get(given, arg->name);
		if (!value && !arg->optional)
			return err_set(e, ERR_USAGE, EINVAL, "Parameter '%s%s' is missing", path,
				       arg->name);
		if (value && !has_type(value, arg->type))
			return err_set(e, ERR_USAGE, EINVAL,
				       "Invalid parameter type for '%s%s', expected: %s", path,
				       arg->name, type_name(arg->type));
	}
	json_object_foreach(given, key, value)
	{
		if (!is_known(args, key))
			return err_set(e, ERR_USAGE, EINVAL, "Parameter '%s%.100s' is unexpected",
				       path, key);
	}
	return 0;
}
