#include "control/rdma_options.h"

#include <errno.h>
#include <string.h>

#include "migration/params.h"
#include "migration/rdma/pin_limit.h"
#include "vmm/base/units.h"

int rdma_options_parse(const struct rdma_options *o, uint64_t *pin_bytes, bool *fallback,
		       struct err *e)
{
	*pin_bytes = MIGRATION_RDMA_PIN;
	*fallback = o->fallback != NULL;
	if (o->fallback && strcmp(o->fallback, "tcp"))
		return err_set(e, ERR_USAGE, EINVAL,
			       "--rdma-fallback: '%.100s' is not what one can fall back to: tcp is",
			       o->fallback);
	if (o->pin && !strcmp(o->pin, "all"))
		*pin_bytes = PIN_ALL;
	else if (o->pin && units_parse_bytes(o->pin, pin_bytes, e) < 0)
		return err_prefix(e, "--rdma-pin");
	if (*pin_bytes >= PIN_MIN_CHANNEL_BYTES && *pin_bytes <= PIN_ALL)
		return 0;
	return err_set(e, ERR_USAGE, EINVAL, "--rdma-pin: at least %llu MiB a channel, or all",
		       PIN_MIN_CHANNEL_BYTES >> 20);
}
