/* Skip the running test, by name, where there is no usable /dev/kvm. Include after cmocka. */
#pragma once

#include <unistd.h>

#include "vmm/kvm.h"

static inline void need_kvm(void)
{
	struct err e = ERR_INIT;
	int fd;

	if (kvm_open(&fd, &e) < 0) {
		print_message("skipped: %s\n", e.msg);
		skip();
	}
	close(fd);
}
