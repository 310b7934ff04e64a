/* The guest's disks at the destination: filled in, or taken over (proto/STREAM.md, section 8). */
#include <errno.h>

#include "migration/destination_internal.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk.h"

int destination_expect_disks(const Godwit__Describe *m, struct vm_config *config, struct err *e)
{
	if (m->n_disks > DISK_SET_MAX)
		return err_set(e, ERR_STREAM, EPROTO, "DESCRIBE has %zu disks", m->n_disks);
	config->copied_disks = 0;
	for (size_t i = 0; i < m->n_disks; i++) {
		if (!m->disks[i]->has_size || !m->disks[i]->has_copy)
			return err_set(e, ERR_STREAM, EPROTO, "DESCRIBE's disk %zu lacks a field",
				       i);
		config->copied_disks |= (uint32_t)(m->disks[i]->copy != 0) << i;
	}
	return 0;
}

int destination_check_disks(struct migration_destination *d, const Godwit__Describe *m,
			    struct err *e)
{
	if (vm_nr_disks(d->vm) != m->n_disks)
		return err_set(e, ERR_STREAM, EPROTO, "DESCRIBE has %zu disks, the machine %u",
			       m->n_disks, vm_nr_disks(d->vm));
	d->disks.nr = vm_nr_disks(d->vm);
	pthread_mutex_lock(&d->lock);
	d->report.disks.nr = d->disks.nr;
	for (uint32_t i = 0; i < d->disks.nr; i++) {
		d->report.disks.nr_copied += m->disks[i]->copy != 0;
		d->report.disks.bytes += m->disks[i]->copy ? m->disks[i]->size : 0;
	}
	pthread_mutex_unlock(&d->lock);
	for (uint32_t i = 0; i < d->disks.nr; i++) {
		d->disks.at[i].disk = vm_disk(d->vm, i);
		d->disks.at[i].copy = m->disks[i]->copy;
		if (disk_bytes(d->disks.at[i].disk) != m->disks[i]->size)
			return err_set(e, ERR_STREAM, EPROTO,
				       "DESCRIBE's disk %u has another size than the machine's", i);
	}
	return 0;
}

bool destination_wants_disks(const struct migration_destination *d)
{
	return disk_set_has_copies(&d->disks) && !d->disk_receiver;
}

int destination_start_disks(struct migration_destination *d, struct link *link, struct err *e)
{
	struct disk_receiver_config config = {
		.set = &d->disks, .abort = d->cancel, .fault = d->config.fault};
	struct disk_receiver *receiver;

	if (disk_receiver_new(&config, link, &receiver, e) < 0)
		return -e->code;
	pthread_mutex_lock(&d->lock);
	d->disk_receiver = receiver;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

void destination_stop_disks(struct migration_destination *d)
{
	struct disk_receiver *receiver;

	pthread_mutex_lock(&d->lock);
	receiver = d->disk_receiver;
	d->disk_receiver = NULL;
	if (receiver)
		d->report.wire_bytes += disk_receiver_received_bytes(receiver);
	pthread_mutex_unlock(&d->lock);
	disk_receiver_free(receiver);
}

int destination_accept_disks(struct migration_destination *d, struct err *e)
{
	if (disk_set_has_copies(&d->disks) &&
	    (!d->last_disk_pass || disk_receiver_pass(d->disk_receiver) != d->last_disk_pass))
		return err_set(e, ERR_STREAM, EPROTO,
			       "STATE came before the end of the disks' last pass");
	/* All of it is here. From now on the disks' connection has no say: a source that dies once
	 * it has sent COMMIT must not take the guest with it. */
	destination_stop_disks(d);
	for (uint32_t i = 0; i < d->disks.nr; i++)
		if (fault_point(d->config.fault, "dst.accept_disk", e) < 0 ||
		    disk_accept(d->disks.at[i].disk, e) < 0)
			return err_prefix(e, "taking over disk %u", i);
	return 0;
}

static bool settle(struct migration_destination *d)
{
	bool settled = true;

	for (uint32_t i = 0; i < d->disks.nr; i++)
		settled &= disk_settle(d->disks.at[i].disk);
	return settled;
}

void destination_settle_disks(struct migration_destination *d, uint64_t wait_ns)
{
	uint64_t give_up_ns = clock_now_ns() + wait_ns;

	while (!settle(d) && clock_now_ns() < give_up_ns)
		clock_sleep_until_ns(clock_now_ns() + 5 * NS_PER_MS);
}
