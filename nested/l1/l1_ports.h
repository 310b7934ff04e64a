/* The ports by which the bare-metal L1 (and its L2) speaks to whoever runs it. */
#ifndef GODWIT_NESTED_L1_L1_PORTS_H
#define GODWIT_NESTED_L1_L1_PORTS_H

/* A byte written here says where the machine is; whoever runs it may stop there. A port, because L1
 * and L2 can both write it without the other's noticing. */
#define L1_MARK_PORT 0xb5
/* The end of a run: 0, or what went wrong. */
#define L1_DONE_PORT 0xb6
/* In points mode: the page number of the map of MSRs that L2's exits go by, written once. The CPU,
 * or KVM for it, reads it at every entry. */
#define L1_MSR_MAP_PORT 0xb8
/* Reads as the number of exits L0 has had from this CPU, where the VMM offers it; else all ones. */
#define L1_EXITS_PORT 0x6774

#endif
