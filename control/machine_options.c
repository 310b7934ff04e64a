#include "control/machine_options.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vmm/block/disk_spec.h"
#include "vmm/cpu_model.h"
#include "vmm/net/net_config.h"
#include "vmm/virtio/blk.h"

static int check_image(const char *option, const char *path, struct err *e)
{
	if (!path || !access(path, R_OK))
		return 0;
	return err_sys(e, "--%s: cannot read %s", option, path);
}

static int check_memory(uint64_t bytes, struct err *e)
{
	const uint64_t step = 2ull << 20;

	if (bytes % step || bytes < step || bytes > MEM_MAX_BYTES)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--memory: a guest has a multiple of 2 MiB from 2 MiB to %llu GiB",
			       MEM_MAX_BYTES >> 30);
	return 0;
}

static int check_serial(const char *option, const char *serial, struct err *e)
{
	static const char *const whole[] = {"stdio", "null", "pty"};
	static const char *const prefix[] = {"file:", "unix:"};

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (!strcmp(serial, whole[i]))
			return 0;
	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++)
		if (!strncmp(serial, prefix[i], strlen(prefix[i])) && serial[strlen(prefix[i])])
			return 0;
	return err_set(e, ERR_USAGE, EINVAL,
		       "--%s: '%.100s' is not stdio, null, pty, file:PATH or unix:PATH", option,
		       serial);
}

static int check_console(const struct machine_options *o, struct err *e)
{
	if (!strcmp(o->console, "stdio") && !strcmp(o->serial, "stdio"))
		return err_set(e, ERR_USAGE, EINVAL,
			       "--console stdio: that is where the serial port is; move it with "
			       "--serial null");
	return check_serial("console", o->console, e);
}

static int add_virtio(struct vm_config *config, const char *type, const char *text, struct err *e)
{
	struct virtio_spec *spec = &config->virtio[config->nr_virtio];

	if (config->nr_virtio == VIRTIO_MAX_DEVICES)
		return err_set(e, ERR_USAGE, E2BIG, "a guest has at most %d virtio devices",
			       VIRTIO_MAX_DEVICES);
	if (strlen(text) >= sizeof(spec->spec))
		return err_set(e, ERR_USAGE, ENAMETOOLONG, "'%.60s...' is too long", text);
	strcpy(spec->type, type);
	strcpy(spec->spec, text);
	config->nr_virtio++;
	return 0;
}

static int add_nets(const struct option_list *nets, struct vm_config *config, struct err *e)
{
	struct net_config checked;

	for (size_t i = 0; i < nets->nr; i++)
		if (net_config_parse(nets->at[i], &checked, e) < 0 ||
		    add_virtio(config, "virtio-net", nets->at[i], e) < 0)
			return err_prefix(e, "--net");
	return 0;
}

static int add_disks(const struct option_list *disks, struct vm_config *config, struct err *e)
{
	struct disk_spec checked;

	for (size_t i = 0; i < disks->nr; i++)
		if (disk_spec_parse(disks->at[i], &checked, e) < 0 ||
		    add_virtio(config, VIRTIO_BLK_TYPE, disks->at[i], e) < 0)
			return err_prefix(e, "--disk");
	return 0;
}

static int add_others(const struct machine_options *o, struct vm_config *config, struct err *e)
{
	int ret = o->console ? add_virtio(config, "virtio-console", o->console, e) : 0;

	if (!ret && o->balloon)
		ret = add_virtio(config, "virtio-balloon", "", e);
	if (!ret && o->rng)
		ret = add_virtio(config, "virtio-rng", "", e);
	return ret;
}

static int check_kernel(const struct machine_options *o, bool incoming, struct err *e)
{
	if (!incoming && !o->kernel)
		return err_set(e, ERR_USAGE, EINVAL,
			       "--kernel is missing: it names the image to boot");
	return check_image("kernel", o->kernel, e);
}

/* What each option says by itself, and whether its files are there. */
static int check_options(const struct machine_options *o, bool incoming, enum nested_mode *nested,
			 struct err *e)
{
	if (check_kernel(o, incoming, e) < 0 || check_image("initrd", o->initrd, e) < 0 ||
	    check_serial("serial", o->serial, e) < 0)
		return -e->code;
	if ((!incoming || o->memory_bytes) && check_memory(o->memory_bytes, e) < 0)
		return -e->code;
	if (o->console && check_console(o, e) < 0)
		return -e->code;
	if (o->cpu && cpu_model_check(o->cpu, e) < 0)
		return err_prefix(e, "--cpu");
	if (o->nested && nested_mode_parse(o->nested, nested, e) < 0)
		return err_prefix(e, "--nested");
	return 0;
}

int machine_options_apply(const struct machine_options *o, bool incoming,
			  struct session_config *config, struct err *e)
{
	/* kvm-unit-tests test hypervisors, too, and QEMU's CPUs are such by default. */
	enum nested_mode nested = o->test_devices && !incoming ? NESTED_ON : NESTED_OFF;

	if (check_options(o, incoming, &nested, e) < 0 ||
	    rdma_options_parse(&o->rdma, &config->rdma_pin_bytes, &config->rdma_fallback, e) < 0)
		return -e->code;
	config->vm = (struct vm_config){
		.memory_bytes = o->memory_bytes,
		.nr_cpus = (uint32_t)o->nr_cpus,
		.debug_exit = o->debug_exit || o->test_devices,
		.test_devices = o->test_devices,
		.nested = nested,
		.cpu = o->cpu,
		.serial = o->serial,
		.kernel = o->kernel,
		.initrd = o->initrd,
		.append = o->append,
	};
	config->prealloc = o->prealloc;
	config->qmp = o->qmp;
	config->tracker = o->tracker;
	/* In the order the guest finds them: the first disk is its vda. */
	if (add_disks(&o->disks, &config->vm, e) < 0 || add_nets(&o->nets, &config->vm, e) < 0)
		return -e->code;
	return add_others(o, &config->vm, e);
}
