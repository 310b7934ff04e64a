#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/uri.h"

static void expect_tcp(const char *text, const char *host, const char *port)
{
	struct err e = ERR_INIT;
	struct uri u;

	assert_int_equal(uri_parse(text, &u, &e), 0);
	assert_int_equal(u.scheme, URI_TCP);
	assert_string_equal(u.host, host);
	assert_string_equal(u.port, port);
	assert_string_equal(u.text, text);
}

static void expect_refused(const char *text)
{
	struct err e = ERR_INIT;
	struct uri u;

	if (uri_parse(text, &u, &e) >= 0)
		fail_msg("'%s' was taken", text);
	assert_int_equal(e.kind, ERR_USAGE);
	assert_true(e.msg[0] != '\0');
}

static void test_tcp(void **state)
{
	(void)state;
	expect_tcp("tcp:host-b:4444", "host-b", "4444");
	expect_tcp("tcp:10.0.0.1:0", "10.0.0.1", "0");
	expect_tcp("tcp::4444", "", "4444");
	expect_tcp("tcp:[::1]:65535", "::1", "65535");
}

static void test_rdma(void **state)
{
	struct err e = ERR_INIT;
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("rdma:10.0.0.1:4444", &u, &e), 0);
	assert_int_equal(u.scheme, URI_RDMA);
	assert_string_equal(u.host, "10.0.0.1");
	assert_string_equal(u.port, "4444");
}

static void test_unix(void **state)
{
	struct err e = ERR_INIT;
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("unix:/run/vm sock", &u, &e), 0);
	assert_int_equal(u.scheme, URI_UNIX);
	assert_string_equal(u.path, "/run/vm sock");
}

static void test_refused(void **state)
{
	char long_path[300] = "unix:";
	char long_host[400] = "tcp:";
	char very_long[1000];

	(void)state;
	expect_refused("");
	expect_refused("tcp:");
	expect_refused("tcp:host");
	expect_refused("tcp:host:");
	expect_refused("tcp:host:port");
	expect_refused("tcp:host:65536");
	expect_refused("tcp:host:-1");
	expect_refused("unix:");
	expect_refused("rdma:host");
	expect_refused("/tmp/socket");
	memset(long_path + 5, 'a', 200);
	expect_refused(long_path);
	memset(long_host + 4, 'a', 300);
	strcat(long_host, ":1");
	expect_refused(long_host);
	memset(very_long, 'a', sizeof(very_long) - 1);
	very_long[sizeof(very_long) - 1] = '\0';
	expect_refused(very_long);
}

static void test_no_host_is_loopback(void **state)
{
	struct err e = ERR_INIT;
	struct addrinfo *list;
	struct sockaddr_in sin;
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("tcp::4444", &u, &e), 0);
	assert_int_equal(uri_resolve(&u, 0, &list, &e), 0);
	assert_int_equal(list->ai_family, AF_INET);
	memcpy(&sin, list->ai_addr, sizeof(sin));
	assert_int_equal(sin.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	assert_int_equal(sin.sin_port, htons(4444));
	freeaddrinfo(list);
}

static void test_an_unknown_host_is_named(void **state)
{
	struct err e = ERR_INIT;
	struct addrinfo *list;
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("rdma:no host:1", &u, &e), 0);
	assert_true(uri_resolve(&u, 0, &list, &e) < 0);
	assert_non_null(strstr(e.msg, "rdma:no host:1: cannot resolve host 'no host'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_rdma),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_host_is_loopback),
		cmocka_unit_test(test_an_unknown_host_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
