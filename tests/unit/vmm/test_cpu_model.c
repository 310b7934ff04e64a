/* vmm/cpu_model.c: what a guest of a model is told, and hosts that cannot keep it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "vmm/cpu_model.h"

#define AVX  (1u << 28)
#define AES  (1u << 25)
#define X2   (1u << 21)
#define VMX  (1u << 5)
#define XSAV (1u << 26)

/* A host with every feature there is, 46 address bits, and state for AVX, AVX-512 and PKU. */
static struct cpuid rich_host(void)
{
	return (struct cpuid){
		.nr = 15,
		.entries = {{0, 0, 0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69},
			    {1, 0, 0, 0x606a6, 0, ~0u, ~0u},
			    {7, 0, 1, 2, ~0u, ~0u, ~0u},
			    {7, 1, 1, ~0u, 0, 0, ~0u},
			    {0xd, 0, 1, 0x2e7, 0xa88, 0xa88, 0},
			    {0xd, 1, 1, 0x1f, 0, 0x1800, 0},
			    {0xd, 2, 1, 256, 576, 0, 0},
			    {0xd, 5, 1, 64, 1088, 0, 0},
			    {0xd, 9, 1, 8, 2688, 0, 0},
			    {0x14, 0, 1, 1, 2, 3, 4},
			    {0x80000001, 0, 0, 0, 0, ~0u, ~0u},
			    {0x80000008, 0, 0, 46 | 48 << 8, ~0u, 0, 0},
			    {0x80000000, 0, 0, 0x80000021, 0x756e6547, 0x6c65746e, 0x49656e69},
			    {0x8000000a, 0, 0, 1, 16, 0, 0x90ff},
			    {0x40000001, 0, 0, 0x1234, 0, 0, 0}}};
}

static struct cpuid with(const char *spec)
{
	struct cpuid host = rich_host();
	struct cpuid guest;
	struct err e = ERR_INIT;

	if (cpu_model_apply(spec, &host, &guest, &e) < 0)
		fail_msg("%s: %s", spec, e.msg);
	return guest;
}

static uint32_t leaf1_ecx(const char *spec)
{
	struct cpuid guest = with(spec);

	return cpuid_find(&guest, 1, 0)->ecx;
}

static void every_model_can_be_had_and_each_holds_its_base(void **state)
{
	const char *name;

	(void)state;
	for (uint32_t i = 0; (name = cpu_model_name(i)) != NULL; i++) {
		struct cpuid host = rich_host();
		struct cpuid guest = with(name);
		struct cpuid v1 = with("x86-64-v1");
		struct err e = ERR_INIT;

		assert_int_equal(cpuid_check(&guest, &host, &e), 0);
		assert_int_equal(cpuid_check(&v1, &guest, &e), 0);
	}
}

static void host_is_the_host(void **state)
{
	struct cpuid host = rich_host();
	struct cpuid guest = with("host");

	(void)state;
	assert_memory_equal(&guest, &host, sizeof(host));
	guest = with(NULL);
	assert_memory_equal(&guest, &host, sizeof(host));
	assert_int_equal(leaf1_ecx("host,-avx"), leaf1_ecx("host") & ~AVX);
}

static void levels_are_what_the_psabi_says(void **state)
{
	(void)state;
	assert_false(leaf1_ecx("x86-64-v2") & (AVX | AES));
	assert_true(leaf1_ecx("x86-64-v3") & AVX);
	assert_false(leaf1_ecx("x86-64-v3") & AES);
	assert_true(leaf1_ecx("Haswell") & AES);
	/* KVM's own, in every model; nesting is --nested's to give and take */
	assert_true(leaf1_ecx("x86-64-v1") & X2);
	assert_true(leaf1_ecx("x86-64-v1") & VMX);
}

static void features_come_and_go(void **state)
{
	(void)state;
	assert_true(leaf1_ecx("x86-64-v2,+aes") & AES);
	assert_false(leaf1_ecx("Haswell,-aes,-avx") & (AES | AVX));
	assert_true(leaf1_ecx("Haswell,-aes,+aes") & AES);
}

/* Also what every model is given. */
static void what_is_refused_by_name_is_not_there(void **state)
{
	struct cpuid guest;

	(void)state;
	assert_int_equal(leaf1_ecx("host,-x2apic"), leaf1_ecx("host") & ~X2);
	assert_int_equal(leaf1_ecx("x86-64-v2,-x2apic"), leaf1_ecx("x86-64-v2") & ~X2);
	assert_int_equal(leaf1_ecx("host,-x2apic,+x2apic"), leaf1_ecx("host"));
	guest = with("host,-kvm_steal_time");
	assert_int_equal(cpuid_find(&guest, 0x40000001, 0)->eax, 0x1234 & ~(1u << 5));
}

/* --nested decides what a guest's hypervisor gets, whatever the model; names can take from it. */
static void svm_features_are_no_models(void **state)
{
	struct cpuid guest = with("x86-64-v1");

	(void)state;
	assert_int_equal(cpuid_find(&guest, 0x8000000a, 0)->edx, 0x90ff);
	guest = with("host,-npt,-nrip_save");
	assert_int_equal(cpuid_find(&guest, 0x8000000a, 0)->edx, 0x90ff & ~9u);
}

static void a_vendor_is_in_both_ranges(void **state)
{
	struct cpuid guest = with("host,vendor=AuthenticAMD");

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		const struct cpuid_entry *en = cpuid_find(&guest, i ? 0x80000000 : 0, 0);

		assert_int_equal(en->ebx, 0x68747541);
		assert_int_equal(en->edx, 0x69746e65);
		assert_int_equal(en->ecx, 0x444d4163);
	}
	assert_int_equal(cpuid_find(&guest, 0, 0)->eax, 0x20);
	assert_int_equal(leaf1_ecx("host,vendor=AuthenticAMD"), leaf1_ecx("host"));
}

static void state_follows_features(void **state)
{
	struct cpuid v3 = with("x86-64-v3");
	struct cpuid v4 = with("x86-64-v4");

	(void)state;
	assert_int_equal(cpuid_find(&v3, 0xd, 0)->eax, 0x7);
	assert_int_equal(cpuid_find(&v3, 0xd, 0)->ecx, 832);
	assert_null(cpuid_find(&v3, 0xd, 5));
	assert_int_equal(cpuid_find(&v4, 0xd, 0)->eax, 0xe7);
	assert_non_null(cpuid_find(&v4, 0xd, 5));
	assert_null(cpuid_find(&v4, 0xd, 9));
	assert_int_equal(cpuid_find(&v4, 0xd, 1)->ecx, 0);
	assert_null(cpuid_find(&v4, 0x14, 0)); /* no Intel PT */
}

static void a_model_promises_few_address_bits(void **state)
{
	struct cpuid v2 = with("x86-64-v2");
	struct cpuid host = with("host,-avx");

	(void)state;
	assert_int_equal(cpuid_find(&v2, 0x80000008, 0)->eax, 40 | 48 << 8);
	assert_int_equal(cpuid_find(&host, 0x80000008, 0)->eax, 46 | 48 << 8);
	host = with("host,phys-bits=36");
	assert_int_equal(cpuid_find(&host, 0x80000008, 0)->eax, 36 | 48 << 8);
	host = with("host,phys-bits=52"); /* no more than there are */
	assert_int_equal(cpuid_find(&host, 0x80000008, 0)->eax, 46 | 48 << 8);
}

static void what_a_host_lacks_is_named(void **state)
{
	struct cpuid host = rich_host();
	struct cpuid guest;
	struct err e = ERR_INIT;

	(void)state;
	host.entries[1].ecx &= ~(AVX | XSAV);
	assert_true(cpu_model_apply("x86-64-v3", &host, &guest, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "x86-64-v3: this host's KVM lacks xsave, avx"));
	err_clear(&e);
	assert_int_equal(cpu_model_apply("x86-64-v3,-avx,-xsave", &host, &guest, &e), 0);
	assert_true(cpu_model_apply("host,+avx", &host, &guest, &e) < 0);
}

static void expect_bad(const char *spec, const char *says)
{
	struct err e = ERR_INIT;

	assert_true(cpu_model_check(spec, &e) < 0);
	assert_int_equal(e.kind, ERR_USAGE);
	if (!strstr(e.msg, says))
		fail_msg("%s: %s", spec, e.msg);
}

static void nonsense_is_explained(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	expect_bad("x86-64-v9", "there is no CPU model 'x86-64-v9'; choose host, x86-64-v1");
	expect_bad("", "there is no CPU model ''");
	expect_bad("host,+zzz", "there is no CPU feature 'zzz'");
	expect_bad("host,avx", "'avx': a feature comes with + or -");
	expect_bad("host,", "a feature comes with + or -");
	expect_bad("host,+", "there is no CPU feature ''");
	expect_bad("host,vendor=Intel", "vendor=Intel: a vendor has 12 letters");
	expect_bad("host,vendor=GenuineIntel1", "vendor=GenuineIntel1: a vendor has 12 letters");
	expect_bad("host,phys-bits=60,-avx", "phys-bits=60: 32 to 52");
	expect_bad("host,phys-bits=", "phys-bits=: 32 to 52");
	expect_bad("host,phys-bits=40x", "phys-bits=40x: 32 to 52");
	assert_int_equal(cpu_model_check("x86-64-v2,+avx,-la57", &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_model_can_be_had_and_each_holds_its_base),
		cmocka_unit_test(host_is_the_host),
		cmocka_unit_test(levels_are_what_the_psabi_says),
		cmocka_unit_test(features_come_and_go),
		cmocka_unit_test(what_is_refused_by_name_is_not_there),
		cmocka_unit_test(svm_features_are_no_models),
		cmocka_unit_test(a_vendor_is_in_both_ranges),
		cmocka_unit_test(state_follows_features),
		cmocka_unit_test(a_model_promises_few_address_bits),
		cmocka_unit_test(what_a_host_lacks_is_named),
		cmocka_unit_test(nonsense_is_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
