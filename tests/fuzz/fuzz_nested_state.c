/* Nested state and capabilities from outside: parsed, checked, put into words; never believed. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "nested/view.h"
#include "nested/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_state(const uint8_t *data, size_t size)
{
	static const struct nested_caps hosts[] = {{.vendor = NESTED_SVM, .state_bytes = 4224},
						   {.vendor = NESTED_VMX, .state_bytes = 8320}};
	Godwit__NestedState *m = godwit__nested_state__unpack(NULL, size, data);
	struct nested_state s;
	struct nested_view view;
	struct err e = ERR_INIT;
	char text[160];

	if (!m)
		return;
	if (nested_state_wire_parse(m, &s, &e) == 0) {
		for (int i = 0; i < 2; i++)
			if (nested_state_check(&s, &hosts[i], &e) == 0 && s.kvm.size > sizeof(s))
				abort();
		nested_view_decode(&s, &view);
		nested_view_text(&view, text, sizeof(text));
	}
	godwit__nested_state__free_unpacked(m, NULL);
}

static void try_caps(const uint8_t *data, size_t size)
{
	Godwit__NestedCaps *m = godwit__nested_caps__unpack(NULL, size, data);
	struct nested_caps host = {.vendor = NESTED_VMX};
	struct nested_caps guest;
	struct err e = ERR_INIT;

	if (!m)
		return;
	if (nested_caps_wire_parse(m, &guest, &e) == 0)
		nested_caps_check(&guest, &host, &e);
	godwit__nested_caps__free_unpacked(m, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_state(data, size);
	try_caps(data, size);
	return 0;
}
