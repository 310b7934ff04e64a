/*
 * What a service reads of a connection before it knows anybody: any bytes, in any portions. It asks
 * for more within its limit, or refuses in words, or knows.
 */
#include <stdlib.h>

#include "proto/first_record.h"
#include "proto/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (size_t len = 0; len <= size; len += 1 + len / 4) {
		struct first_record first;
		struct err e = ERR_INIT;
		size_t need = 0;

		if (first_record_parse(data, len, &first, &need, &e) < 0) {
			if (e.kind != ERR_STREAM || !e.msg[0])
				abort();
		} else if (need > RECORD_HEADER_BYTES + (64u << 10)) {
			abort();
		}
	}
	return 0;
}
