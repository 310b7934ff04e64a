/*
 * How the bare-metal L1 asks for the number of L0's exits where no VMM offers L1_EXITS_PORT (option
 * l1.exits=1). It says "bench exits_gpa=G" once. To ask it sends one L1_EXITS_ENQUIRY, which is one
 * exit, and looks at `nr_answers` until it changes, which is none. Whoever has the other end of the
 * serial line and the guest's memory writes `exits` first.
 */
#ifndef GODWIT_NESTED_L1_L1_EXITS_H
#define GODWIT_NESTED_L1_L1_EXITS_H

#include <stdint.h>

#define L1_EXITS_ENQUIRY 0x05 /* ASCII's ENQ */

struct l1_exits {
	uint64_t nr_answers;
	uint64_t exits;
};

#endif
