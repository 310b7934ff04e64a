/*
 * The file behind guest memory: unlinked, in RAM, of huge pages where this host lets us have them.
 *
 * A memfd lives in the kernel's own tmpfs, whose use of huge pages is one global switch
 * (/sys/kernel/mm/transparent_hugepage/shmem_enabled, usually "never"). A tmpfs of our own, mounted
 * nowhere (fsopen(2), fsmount(2)), has its own huge= option, and an O_TMPFILE in it is as good as a
 * memfd: lseek(SEEK_DATA), sendfile and passing the descriptor all work. With huge pages KVM maps
 * the guest by 2 MiB, and a destination allocates memory 512 pages at a time instead of one. That
 * needs CAP_SYS_ADMIN, if only in a user namespace (user_namespaces(7)), which a child enters for
 * the moment; where users may not make one, the memory is a memfd. Source: tmpfs(5), mount options
 * `huge` and `size`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

/* A new file of @bytes (sparse). @huge says what it is made of. The caller closes it. */
int mem_file_new(uint64_t bytes, bool *huge, struct err *e);
