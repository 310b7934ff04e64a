/*
 * One guest that is moved again and again between VMs of this process: both engines of every
 * migration run here, over a socket. For the commands that test and measure nesting. The guest says
 * how it is by its report page (vmm/guest_report.h: CPU 0 is L1, the others are L2s), by lines of
 * L1 and L2 or by words on its serial port. One thread.
 */
#pragma once

#include "migration/migration.h"
#include "nested/view.h"
#include "vmm/vm.h"

struct lab_config {
	struct vm_config vm;     /* serial is the lab's own */
	const char *ready;       /* words on the serial line; NULL: the report page tells */
	const char *alive;       /* with `ready`: must be seen again after each move */
	const char *bad;         /* with `ready`: must never be seen; NULL: nothing is bad */
	bool lines;              /* instead: L1 and L2 tell, by lines (control/nested_lines.h) */
	const char *serial_copy; /* append all serial output to this file; NULL: do not */
	const char *over;        /* what migrations go over: "unix", "rdma:HOST"; NULL: TCP */
	uint64_t patience_ns;    /* how long a guest may need to show that it is alive */
	int signals;             /* ending_signals_open(): one that comes ends all waiting */
};

struct lab;

/* Boot it and wait until it is ready. */
int lab_new(const struct lab_config *config, struct lab **out, struct err *e);
void lab_free(struct lab *l);

struct lab_move {
	struct migration_report report; /* the source's */
	struct nested_view stopped;     /* vCPU 0's, at the moment the guest was stopped */
	bool felt;                      /* the guest can tell, so: */
	uint64_t l1_gap_ns, l2_gap_ns;  /* the longest each of them felt during the migration */
};

/* Move the guest to a new VM and wait until every part of it is alive. */
int lab_move(struct lab *l, const struct migration_params *params, struct lab_move *out,
	     struct err *e);

struct vm *lab_vm(const struct lab *l);
const struct lab_config *lab_config(const struct lab *l);

/* The whole serial output of the present VM, from where it began to run here; free() it. */
char *lab_serial(const struct lab *l);
/* The same with what it said in the VMs before. A line may have begun in one and ended in the next.
 */
char *lab_told(const struct lab *l);
/* Until the present VM's has @text; ERR_STATE when the patience is over. */
int lab_await(struct lab *l, const char *text, struct err *e);

/* The bare-metal L1 that was built beside this program; @path has @cap bytes. */
int lab_l1_path(char *path, size_t cap, struct err *e);
