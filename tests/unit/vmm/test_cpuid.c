/* vmm/cpuid.c: what a guest is told, and what a host that cannot keep the promise answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "need_kvm.h"
#include "vmm/cpuid.h"

static struct cpuid_entry *entry(struct cpuid *c, uint32_t function, uint32_t index)
{
	return (struct cpuid_entry *)(uintptr_t)cpuid_find(c, function, index);
}

/* A host with a few leaves, all of whose features are in @ecx of leaf 1. */
static struct cpuid host_with(uint32_t ecx)
{
	return (struct cpuid){.nr = 3,
			      .entries = {{0, 0, 0, 1, 0x756e6547, 0x6c65746e, 0x49656e69},
					  {1, 0, 0, 0x606a6, 0, ecx, 0x178bfbff},
					  {0x80000008, 0, 0, 0x3030, 0, 0, 0}}};
}

static void missing_features_are_named(void **state)
{
	struct cpuid guest = host_with(1u << 25 | 1u << 28 | 1u << 16);
	struct cpuid host = host_with(1u << 25);
	struct err e = ERR_INIT;

	(void)state;
	assert_true(cpuid_check(&guest, &host, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "avx"));
	assert_non_null(strstr(e.msg, "CPUID 0x1.0 ecx bit 16"));
	assert_null(strstr(e.msg, "aes"));
	err_clear(&e);
	assert_int_equal(cpuid_check(&host, &guest, &e), 0);
}

static void runtime_bits_are_no_features(void **state)
{
	struct cpuid guest = host_with(1u << 27 | 1u << 31 | 1u << 3); /* osxsave, hypervisor */
	struct cpuid host = host_with(0);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(cpuid_check(&guest, &host, &e), 0);
}

static void everything_missing_still_fits_a_message(void **state)
{
	struct cpuid guest = host_with(UINT32_MAX);
	struct cpuid host = host_with(0);
	struct err e = ERR_INIT;

	(void)state;
	guest.entries[guest.nr++] = (struct cpuid_entry){7, 0, 1, 0, ~0u, ~0u, ~0u};
	assert_true(cpuid_check(&guest, &host, &e) < 0);
	assert_true(strlen(e.msg) < ERR_MSG_BYTES);
}

static void another_vendor_is_refused(void **state)
{
	struct cpuid guest = host_with(0);
	struct cpuid host = host_with(0);
	struct err e = ERR_INIT;

	(void)state;
	host.entries[0].ebx = 0x68747541;
	host.entries[0].edx = 0x69746e65;
	host.entries[0].ecx = 0x444d4163;
	assert_true(cpuid_check(&guest, &host, &e) < 0);
	assert_non_null(strstr(e.msg, "GenuineIntel"));
	assert_non_null(strstr(e.msg, "AuthenticAMD"));
}

static void fewer_address_bits_are_refused(void **state)
{
	struct cpuid guest = host_with(0);
	struct cpuid host = host_with(0);
	struct err e = ERR_INIT;

	(void)state;
	guest.entries[2].eax = 0x302e;
	host.entries[2].eax = 0x3028;
	assert_true(cpuid_check(&guest, &host, &e) < 0);
	assert_non_null(strstr(e.msg, "46"));
	assert_non_null(strstr(e.msg, "40"));
}

static void words_come_back_as_they_went(void **state)
{
	struct cpuid c = host_with(0x1234);
	struct cpuid back;
	uint32_t words[3 * CPUID_ENTRY_WORDS];
	struct err e = ERR_INIT;

	(void)state;
	cpuid_to_words(&c, words);
	assert_int_equal(cpuid_from_words(words, 3 * CPUID_ENTRY_WORDS, &back, &e), 0);
	assert_int_equal(back.nr, 3);
	assert_memory_equal(back.entries, c.entries, sizeof(words));
}

static void odd_words_are_refused(void **state)
{
	static uint32_t words[(CPUID_MAX_ENTRIES + 1) * CPUID_ENTRY_WORDS];
	const size_t lengths[] = {0, 1, CPUID_ENTRY_WORDS + 1, sizeof(words) / sizeof(words[0])};
	struct cpuid back;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct err e = ERR_INIT;

		assert_true(cpuid_from_words(words, lengths[i], &back, &e) < 0);
		assert_int_equal(e.kind, ERR_STREAM);
	}
}

static void a_guest_sees_its_topology_and_nothing_that_cannot_move(void **state)
{
	struct cpuid c;
	struct err e = ERR_INIT;
	int fd;

	(void)state;
	need_kvm();
	assert_int_equal(kvm_open(&fd, &e), 0);
	assert_int_equal(cpuid_build(fd, 6, 2000000, false, &c, &e), 0);
	cpuid_set_apic_id(&c, 5);
	assert_int_equal(entry(&c, 1, 0)->ebx >> 24, 5);
	assert_int_equal(entry(&c, 1, 0)->ebx >> 16 & 0xff, 8);       /* ids, a power of two */
	assert_int_equal(entry(&c, 1, 0)->ecx & 1u << 5, 0);          /* vmx */
	assert_true(entry(&c, 1, 0)->ecx & 1u << 31);                 /* hypervisor */
	assert_int_equal(entry(&c, 0x80000001, 0)->ecx & 1u << 2, 0); /* svm */
	if (entry(&c, 7, 0))
		assert_int_equal(entry(&c, 7, 0)->ecx & 1u << 16, 0); /* la57 */
	if (entry(&c, 0xb, 0)) {
		assert_int_equal(entry(&c, 0xb, 1)->eax, 3);
		assert_int_equal(entry(&c, 0xb, 1)->ebx, 6);
		assert_int_equal(entry(&c, 0xb, 0)->edx, 5);
	}
	assert_memory_equal(&entry(&c, 0x40000000, 0)->ebx, "KVMKVMKVM", 9);
	assert_int_equal(entry(&c, 0x40000010, 0)->eax, 2000000);
	assert_int_equal(cpuid_check(&c, &c, &e), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_features_are_named),
		cmocka_unit_test(runtime_bits_are_no_features),
		cmocka_unit_test(everything_missing_still_fits_a_message),
		cmocka_unit_test(another_vendor_is_refused),
		cmocka_unit_test(fewer_address_bits_are_refused),
		cmocka_unit_test(words_come_back_as_they_went),
		cmocka_unit_test(odd_words_are_refused),
		cmocka_unit_test(a_guest_sees_its_topology_and_nothing_that_cannot_move),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
