/*
 * Errors: what failed, on what, and what the user can do about it.
 *
 * Every function that can fail takes `struct err *e` last (never NULL) and returns a negative
 * errno. Whoever detects the error fills it in with err_set(); callers that know more about the
 * circumstances put that in front with err_prefix() ("round 3: channel 1: ..."). Only the top of
 * a program prints, once. Plain data, no ownership, one thread at a time.
 */
#pragma once

#include <stddef.h>

enum err_kind {
	ERR_NONE,
	ERR_SYS,    /* a system call or KVM said no */
	ERR_PEER,   /* the other side of a connection failed, refused or went away */
	ERR_STREAM, /* bytes from outside (stream, image, device state) are not what they must be */
	ERR_STATE,  /* not now: the operation does not fit the present state */
	ERR_UNSUPPORTED, /* this host, build or peer cannot do it */
	ERR_USAGE,       /* the user asked for something that makes no sense */
	ERR_CANCELLED,   /* somebody asked us to stop */
	ERR_INJECTED,    /* a fault point fired (tests) */
};

#define ERR_MSG_BYTES 512

struct err {
	enum err_kind kind;
	int code; /* positive errno */
	const char *file;
	int line;
	char msg[ERR_MSG_BYTES];
};

#define ERR_INIT                 \
	{                        \
		.kind = ERR_NONE \
	}

/* Fill @e in (overwriting what it held) and return -code, so that callers can `return
 * err_set(...)`. */
#define err_set(e, kind, code, ...) err_set_at((e), (kind), (code), __FILE__, __LINE__, __VA_ARGS__)

/* As err_set() with kind ERR_SYS and the present errno, whose text is appended to the message. */
#define err_sys(e, ...) err_sys_at((e), __FILE__, __LINE__, __VA_ARGS__)

int err_set_at(struct err *e, enum err_kind kind, int code, const char *file, int line,
	       const char *fmt, ...) __attribute__((format(printf, 6, 7)));
int err_sys_at(struct err *e, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Put "text: " before the message; returns -e->code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *e);
const char *err_kind_name(enum err_kind kind);
