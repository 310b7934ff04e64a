/*
 * Places in AMD's virtual machine control block, in bytes from its start (AMD APM vol. 2, appendix
 * B): what nested state, its view and the tests look at. Freestanding: the bare-metal L1 uses it
 * too.
 */
#ifndef GODWIT_NESTED_VMCB_H
#define GODWIT_NESTED_VMCB_H

#define VMCB_BYTES         4096
#define VMCB_CONTROL_BYTES 0x400
#define VMCB_SEGMENT_BYTES 16

/* Control area */
#define VMCB_INTERCEPT_CR        0x000
#define VMCB_INTERCEPT_EXCEPTION 0x008
#define VMCB_INTERCEPT_MISC1     0x00c
#define VMCB_INTERCEPT_MISC2     0x010
#define VMCB_IOPM_PA             0x040
#define VMCB_MSRPM_PA            0x048
#define VMCB_TSC_OFFSET          0x050
#define VMCB_ASID                0x058
#define VMCB_TLB_CONTROL         0x05c
#define VMCB_INT_CTL             0x060
#define VMCB_INT_STATE           0x068
#define VMCB_EXIT_CODE           0x070
#define VMCB_EXIT_INFO1          0x078
#define VMCB_EXIT_INFO2          0x080
#define VMCB_EXIT_INT_INFO       0x088
#define VMCB_NESTED_CTL          0x090
#define VMCB_EVENT_INJ           0x0a8
#define VMCB_NESTED_CR3          0x0b0
#define VMCB_NEXT_RIP            0x0c8

/* State save area */
#define VMCB_SAVE_ES     0x400
#define VMCB_SAVE_CS     0x410
#define VMCB_SAVE_SS     0x420
#define VMCB_SAVE_DS     0x430
#define VMCB_SAVE_FS     0x440
#define VMCB_SAVE_GS     0x450
#define VMCB_SAVE_GDTR   0x460
#define VMCB_SAVE_LDTR   0x470
#define VMCB_SAVE_IDTR   0x480
#define VMCB_SAVE_TR     0x490
#define VMCB_SAVE_CPL    0x4cb
#define VMCB_SAVE_EFER   0x4d0
#define VMCB_SAVE_CR4    0x548
#define VMCB_SAVE_CR3    0x550
#define VMCB_SAVE_CR0    0x558
#define VMCB_SAVE_DR7    0x560
#define VMCB_SAVE_DR6    0x568
#define VMCB_SAVE_RFLAGS 0x570
#define VMCB_SAVE_RIP    0x578
#define VMCB_SAVE_RSP    0x5d8
#define VMCB_SAVE_RAX    0x5f8
#define VMCB_SAVE_CR2    0x640
#define VMCB_SAVE_G_PAT  0x668
#define VMCB_SAVE_DBGCTL 0x670

#endif
