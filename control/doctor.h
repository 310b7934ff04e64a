/*
 * What godwit needs of a host, as a table of checks. Each looks at one thing and changes nothing.
 * One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum verdict {
	VERDICT_OK,
	VERDICT_NOTE,    /* works, with a difference worth knowing */
	VERDICT_ABSENT,  /* a feature that is not there; guests still run and migrate */
	VERDICT_MISSING, /* without this there is no running or no migrating */
};

struct finding {
	enum verdict verdict;
	char detail[200];
	char remedy[240]; /* "" when there is nothing to do */
};

/* What the checks share; opened once. Descriptors are -1 where the host says no. */
struct host {
	int kvm_fd;
	int kvm_errno; /* why there is no kvm_fd */
	int vm_fd;
	int vcpu_fd;
};

struct check {
	const char *name;
	/* Sets nothing when there is nothing to say. */
	void (*probe)(const struct host *host, struct finding *f);
	bool needs_kvm; /* skipped, and not reported, without a VM */
};

/* doctor_kvm.c, doctor_host.c, doctor_net.c, doctor_rdma.c; ended by a NULL name. */
extern const struct check doctor_kvm_checks[];
extern const struct check doctor_host_checks[];
extern const struct check doctor_net_checks[];
extern const struct check doctor_rdma_checks[];

void host_open(struct host *host);
void host_close(struct host *host);

void finding_set(struct finding *f, enum verdict verdict, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void finding_remedy(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
