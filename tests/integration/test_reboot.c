/* A guest boots again what it was booted from: without the files, and wherever it has moved to. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rig/rig.h"
#include "tests/unit/vmm/tiny_guest.h"
#include "vmm/base/clock.h"
#include "vmm/boot/image.h"
#include "vmm/machine.h"

#define INITRD_BYTES ((3u << 20) + 123) /* several records, and not whole pages */

struct files {
	char kernel[64];
	char initrd[64];
};

static void copy(FILE *from, char *path, uint64_t bytes)
{
	int fd = mkstemp(path);
	FILE *to = fd < 0 ? NULL : fdopen(fd, "wb");

	assert_non_null(from);
	assert_non_null(to);
	for (int c; bytes-- && (c = fgetc(from)) != EOF;)
		assert_int_not_equal(fputc(c, to), EOF);
	assert_int_equal(fclose(to), 0);
	fclose(from);
}

static void make_files(struct files *f)
{
	strcpy(f->kernel, "/tmp/godwit-reboot-kernel-XXXXXX");
	strcpy(f->initrd, "/tmp/godwit-reboot-initrd-XXXXXX");
	copy(fopen(rig_workload_path(), "rbe"), f->kernel, UINT64_MAX);
	copy(fopen("/dev/urandom", "rbe"), f->initrd, INITRD_BYTES);
}

/* From files that are gone before it runs. */
static struct vm *boot_from_vanishing_files(void)
{
	struct files f;
	struct rig_guest guest = {
		.memory_bytes = 64 << 20, .nr_cpus = 1, .kernel = f.kernel, .initrd = f.initrd};
	struct vm *vm;

	make_files(&f);
	vm = rig_boot(&guest);
	assert_int_equal(truncate(f.kernel, 0), 0);
	assert_int_equal(unlink(f.kernel), 0);
	assert_int_equal(unlink(f.initrd), 0);
	return vm;
}

static void reset(struct vm *vm)
{
	must(vm_reset(vm, e));
	rig_await_workload(vm);
	rig_check(vm);
}

static struct vm *move(struct vm *vm)
{
	struct rig_migration m;

	rig_migration_init(&m);
	m.params.verify = true;
	return rig_move(vm, &m);
}

static void reset_here_and_there(void **state)
{
	struct rig_census before = {0};
	struct rig_census after;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = boot_from_vanishing_files();
	reset(vm);
	for (int i = 0; i < 3; i++) {
		vm = move(vm);
		reset(vm);
		if (i == 0) /* allocators and libraries have settled */
			before = rig_take_census();
	}
	after = rig_take_census();
	assert_int_equal(after.nr_fds, before.nr_fds);
	assert_int_equal(after.nr_threads, before.nr_threads);
	vm_free(vm);
}

static void the_image_arrives_as_it_left(void **state)
{
	struct boot_image_spec spec;
	uint64_t bytes;
	uint8_t *sent;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = boot_from_vanishing_files();
	spec = boot_image_spec(vm_image(vm));
	assert_int_equal(spec.initrd_bytes, INITRD_BYTES);
	bytes = spec.kernel_bytes + spec.initrd_bytes;
	sent = test_malloc(bytes);
	memcpy(sent, boot_image_data(vm_image(vm)), bytes);
	vm = move(vm);
	spec = boot_image_spec(vm_image(vm));
	assert_int_equal(spec.kernel_bytes + spec.initrd_bytes, bytes);
	assert_memory_equal(boot_image_data(vm_image(vm)), sent, bytes);
	assert_non_null(strstr(spec.kernel_name, "godwit-reboot-kernel"));
	assert_string_equal(spec.append, "fill=24M ws=8M rate=20000 quiet=1");
	test_free(sent);
	vm_free(vm);
}

/* ---- a guest that asks for it ---- */

/* l: inc dword [DATA]; cmp byte [DATA+1],4; jb l; mov dx,0xcf9; mov al,6; out dx,al; jmp $. It
 * resets itself when it has counted to 1024; memory is kept, so somebody else clears the count. */
static const uint8_t resetting[] = {0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0x80, 0x3d,
				    0x01, 0x00, 0x20, 0x00, 0x04, 0x72, 0xf1, 0x66,
				    0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe};

static int build_tiny(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	return vm_new(config, tiny_on_event, ctx, vm, e);
}

static void clear_count(struct vm *vm)
{
	const uint32_t zero = 0;

	must(guest_mem_write(vm_mem(vm), TINY_DATA_GPA, &zero, sizeof(zero), e));
}

static void it_resets_itself_where_it_arrived(void **state)
{
	struct rig_migration m;
	struct tiny here;
	struct tiny there;

	(void)state;
	rig_need_kvm();
	tiny_new(&here, 1, resetting, sizeof(resetting));
	assert_int_equal(unlink(here.path), 0);
	memset(&there, 0, sizeof(there));
	rig_migration_init(&m);
	m.build = build_tiny;
	m.ctx = &there;
	must(vm_resume(here.vm, e));
	tiny_wait_event(&here, VM_EVENT_RESET, 1);
	/* Asked for here, carried out there. */
	there.vm = rig_migrate(here.vm, &m);
	assert_int_equal(m.source.status, MIGRATION_COMPLETED);
	for (unsigned int i = 1; i <= 3; i++) {
		tiny_wait_event(&there, VM_EVENT_RESET, i);
		clear_count(there.vm);
		must(vm_reset(there.vm, e));
	}
	vm_free(there.vm);
	vm_free(here.vm);
}

static void without_an_image_a_reset_changes_nothing(void **state)
{
	struct err e = ERR_INIT;
	struct tiny t;

	(void)state;
	rig_need_kvm();
	tiny_new(&t, 1, NULL, 0);
	assert_true(vm_reset(t.vm, &e) < 0);
	assert_non_null(strstr(e.msg, "no image to boot"));
	assert_int_equal(vm_status(t.vm), VM_PRELAUNCH);
	tiny_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_here_and_there),
		cmocka_unit_test(the_image_arrives_as_it_left),
		cmocka_unit_test(it_resets_itself_where_it_arrived),
		cmocka_unit_test(without_an_image_a_reset_changes_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
