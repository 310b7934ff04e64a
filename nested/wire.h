/*
 * Nested capabilities and state as messages and back (NestedCaps, NestedState of
 * proto/state.proto). Plain conversion, any thread; what comes back in is hostile until checked
 * here.
 */
#pragma once

#include "nested/caps.h"
#include "nested/state.h"
#include "proto/state.pb-c.h"

/* Of the NestedState this writes, and the newest it reads. */
#define NESTED_STATE_VERSION 1u

/* A message that points into itself. */
struct nested_caps_wire {
	Godwit__NestedCaps msg;
	uint32_t vmx_index[NESTED_MAX_VMX_MSRS];
	uint64_t vmx_value[NESTED_MAX_VMX_MSRS];
};

void nested_caps_wire_fill(struct nested_caps_wire *w, const struct nested_caps *caps);
int nested_caps_wire_parse(const Godwit__NestedCaps *msg, struct nested_caps *caps, struct err *e);

/* @msg points into @s. */
void nested_state_wire_fill(Godwit__NestedState *msg, struct nested_state *s);
/* @msg may be NULL: no nesting. Whether a host can take it is nested_state_check()'s question. */
int nested_state_wire_parse(const Godwit__NestedState *msg, struct nested_state *s, struct err *e);
