#include "control/migration_settings.h"

void migration_settings_init(struct migration_settings *s)
{
	*s = (struct migration_settings){.events = true, .multifd_channels = 2};
	migration_params_init(&s->params);
}

void migration_settings_resolve(const struct migration_settings *s, struct migration_params *out)
{
	*out = s->params;
	out->nr_channels = s->multifd ? s->multifd_channels : 1;
}
